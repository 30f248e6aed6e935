"""Commands that compute without a service: `metrics score` and `datasets synth`."""

import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from app.cli.main import build
from worker.metrics import METRICS, FeatureSet, score
from worker.metrics.base import RegionSet


def run(*words: object) -> Result:
    return CliRunner().invoke(build(), [str(word) for word in words])


@pytest.fixture
def arrays() -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    labels = random.integers(0, 3, 60)
    return {
        "features": random.normal(size=(60, 8)) + labels[:, None],
        "labels": labels,
        "boxes": np.sort(random.random((60, 4)), axis=1),
    }


@pytest.fixture
def npz(tmp_path: Path, arrays: dict[str, np.ndarray]) -> Path:
    np.savez(tmp_path / "features.npz", **arrays)
    return tmp_path / "features.npz"


def test_scores_have_the_form_that_programs_read(npz: Path, arrays: dict[str, np.ndarray]) -> None:
    result = run("metrics", "score", npz, "--metrics", "tlogme, logme,leep", "--json")
    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout)
    assert list(document) == ["tlogme", "logme", "leep"]
    assert all(set(one) == {"value", "undefined", "seconds"} for one in document.values())
    expected = score(FeatureSet(**arrays), ["tlogme", "logme"])
    for name in ("tlogme", "logme"):
        assert document[name]["value"] == pytest.approx(expected[name].value, rel=1e-12)
        assert document[name]["undefined"] is None
        assert document[name]["seconds"] >= 0
    assert document["leep"]["value"] is None
    assert "source probabilities" in document["leep"]["undefined"]


def test_without_names_every_metric_is_scored_and_shown(npz: Path) -> None:
    result = run("metrics", "score", npz)
    assert result.exit_code == 0
    assert all(name in result.output for name, metric in METRICS.items() if not metric.pool_relative)


def test_regions_of_ones_own(
    tmp_path: Path, arrays: dict[str, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "500")
    random = np.random.default_rng(1)
    labels = random.integers(0, 4, 90)
    deltas = random.normal(size=(90, 4))
    deltas[labels == 3] = np.nan
    regions = {
        "features": random.normal(size=(90, 8)),
        "labels": labels,
        "ious": random.random(90),
        "deltas": deltas,
        "image_ids": np.arange(90) // 5,
    }
    named = {f"region_{name}": array for name, array in regions.items()}
    np.savez(tmp_path / "regions.npz", **arrays, **named)
    result = run(
        "metrics", "score", tmp_path / "regions.npz", "--metrics", "logme,detection_evidence", "--json"
    )
    assert result.exit_code == 0, result.output
    expected = score(FeatureSet(**arrays, regions=RegionSet(**regions)), ["detection_evidence"])[
        "detection_evidence"
    ]
    assert json.loads(result.stdout)["detection_evidence"]["value"] == pytest.approx(
        expected.value, rel=1e-12
    )
    del named["region_deltas"]
    np.savez(tmp_path / "half.npz", **arrays, **named)
    refused = run("metrics", "score", tmp_path / "half.npz")
    assert refused.exit_code == 2
    assert "has no array 'region_deltas'" in refused.output


def test_values_that_are_not_numbers_are_valid_json(tmp_path: Path, arrays: dict[str, np.ndarray]) -> None:
    arrays["features"][3, 3] = np.nan
    np.savez(tmp_path / "nan.npz", **arrays)
    result = run("metrics", "score", tmp_path / "nan.npz", "--metrics", "logme", "--json")
    assert result.exit_code == 0
    assert json.loads(result.stdout, parse_constant=lambda word: pytest.fail(f"{word} is not JSON"))["logme"][
        "undefined"
    ]


class Payload:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (Path.touch, (Path("ran"),))


@pytest.mark.parametrize(
    ("case", "says"),
    [
        ("absent", "there is no such file"),
        ("empty", "not an npz file"),
        ("text", "not an npz file"),
        ("truncated", "not an npz file"),
        ("no labels", "has no array 'labels'; it has: features"),
        ("pickle", "arrays of Python objects are not accepted"),
        ("shapes", "labels must have shape (60,)"),
        ("floats", "labels must be integer"),
    ],
)
def test_bad_files_are_refused_with_what_to_change(
    case: str,
    says: str,
    npz: Path,
    arrays: dict[str, np.ndarray],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "500")
    match case:
        case "absent":
            npz.unlink()
        case "empty":
            npz.write_bytes(b"")
        case "text":
            npz.write_text("features, labels")
        case "truncated":
            npz.write_bytes(npz.read_bytes()[:-30])
        case "no labels":
            np.savez(npz, features=arrays["features"])
        case "pickle":
            np.savez(npz, features=np.array([Payload()], dtype=object), labels=arrays["labels"])
        case "shapes":
            np.savez(npz, features=arrays["features"], labels=arrays["labels"][1:])
        case "floats":
            np.savez(npz, features=arrays["features"], labels=arrays["labels"] + 0.5)
    result = run("metrics", "score", npz, "--json")
    assert result.exit_code == 2
    assert says in result.output
    assert result.stdout == ""
    assert not (tmp_path / "ran").exists()


def test_an_unknown_metric_is_answered_with_the_known(npz: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "500")
    result = run("metrics", "score", npz, "--metrics", "logme,logmee")
    assert result.exit_code == 2
    assert "logmee" in result.output
    assert "tlogme" in result.output


def test_a_drawn_set_is_the_same_each_time(tmp_path: Path) -> None:
    for name in ("a.zip", "b.zip"):
        result = run(
            "datasets", "synth", tmp_path / name, "--train", 3, "--test", 2, "--seed", 5, "--style", "scenes"
        )
        assert result.exit_code == 0, result.output
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()
    with zipfile.ZipFile(tmp_path / "a.zip") as archive:
        train = json.loads(archive.read("annotations/instances_train.json"))
        assert sum(name.endswith(".png") for name in archive.namelist()) == 5
    assert [category["name"] for category in train["categories"]] == list("0123456789")
    assert train["annotations"]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--style", "oil"), "'oil' is not one of 'published', 'scenes'"),
        (("--source", "/nowhere"), "holds no pair"),
        (("--max-size", "200"), "max_size"),
    ],
)
def test_a_set_that_cannot_be_drawn_is_not_begun(
    words: tuple[str, ...], says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "500")
    result = run("datasets", "synth", tmp_path / "set.zip", *words)
    assert result.exit_code == 2
    assert says in result.output
    assert not (tmp_path / "set.zip").exists()


def test_what_is_there_is_not_written_over(tmp_path: Path) -> None:
    (tmp_path / "set.zip").write_text("mine")
    assert run("datasets", "synth", tmp_path / "set.zip").exit_code == 2
    assert (tmp_path / "set.zip").read_text() == "mine"


def test_named_weights_are_listed_by_the_uri_that_adds_them() -> None:
    found = json.loads(run("checkpoints", "weights", "ssdlite320", "--json").stdout)["items"]
    assert [row["uri"] for row in found] == ["torchvision://ssdlite320_mobilenet_v3_large/COCO_V1"]
    assert found[0]["coco_box_map"] == 21.3
    assert "fasterrcnn" not in run("checkpoints", "weights", "ssdlite320").stdout
