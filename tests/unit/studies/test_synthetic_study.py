"""The synthetic benchmark from glyphs to report, at its smallest; it goes on where it stood, and refuses what it cannot."""

import gzip
import json
import shutil
import struct
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.neighbors import KNeighborsClassifier
from typer.testing import CliRunner

from app.cli.main import build
from models_store import load_detector
from worker.data.dataset import open_dataset
from worker.studies import StudyRefused
from worker.studies.reports.synthetic_report import study_of
from worker.studies.runs.printed import printed
from worker.studies.runs.scale import scale_named
from worker.studies.runs.synthetic import AT_HAND, _glyphs, run, sources_in

SCALE = scale_named("tiny")


def _idx(path: Path, array: np.ndarray) -> None:
    header = b"\0\0\x08" + bytes([array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    path.write_bytes(gzip.compress(header + array.tobytes()))


@pytest.fixture(scope="module")
def glyphs(tmp_path_factory) -> Path:
    """A folder of two sources made of scikit-learn's digits: lying on their side, and in negative, four of them."""
    folder = tmp_path_factory.mktemp("glyphs")
    digits = load_digits()
    images = np.repeat(np.repeat((digits.images * 15).astype(np.uint8), 3, axis=1), 3, axis=2)
    few = digits.target < 4
    for name, pictures, labels in (
        ("lying", images.transpose(0, 2, 1), digits.target),
        ("negative", 255 - images[few], digits.target[few]),
    ):
        (folder / name).mkdir()
        _idx(folder / name / "t10k-images-idx3-ubyte.gz", np.ascontiguousarray(pictures))
        _idx(folder / name / "t10k-labels-idx1-ubyte.gz", labels.astype(np.uint8))
    return folder


@pytest.fixture(scope="module")
def out(glyphs, tmp_path_factory) -> Path:
    """A folder in whose `work` a whole benchmark was run."""
    folder = tmp_path_factory.mktemp("study")
    run(sources_in(["digits", glyphs]), SCALE, folder / "work", seed=3)
    return folder


@pytest.mark.slow
def test_every_pair_is_scored_and_transferred(out, glyphs):
    told = []
    benchmark = run(
        sources_in(["digits", glyphs]), SCALE, out / "work", seed=3, progress=lambda *each: told.append(each)
    )
    assert told == [(24, 24, "what is done already")], "nothing is done twice"
    assert benchmark.sources == ("digits", "lying", "negative")
    assert benchmark.left_out() == {}
    rows = benchmark.observations()
    assert len(rows) == 6
    assert all(set(o.map_by_seed) == {3, 4} for o in rows)
    assert all(np.isfinite(list(o.scores.values())).all() for o in rows)
    places = {place for o in rows for place in (*o.scores, *o.undefined)}
    assert ("tlogme", "neck.roi", "local") in places
    assert ("leep", "head.class_probabilities", "local") in places, "the models' own classes are scored"
    assert ("ncti", "backbone.c4", "global") in places, "and what is relative to a pool"
    assert not any(metric.startswith("ncti_") for metric, _, _ in places), (
        "without the terms nobody asked for"
    )
    assert {len(r["val_curve"]) for t in benchmark.transfers.values() for r in t.values()} == {1}


@pytest.mark.slow
def test_a_simulated_model_is_a_checkpoint_like_any_other(out):
    detector = load_detector(out / "work" / "models" / "negative")
    assert detector.manifest.class_names == ("0", "1", "2", "3")
    assert detector.manifest.initialised_keys == ()
    assert all(layer.trained for layer in detector.layers)
    assert detector.manifest.provenance["dataset"]["name"] == "negative"
    dataset = open_dataset(out / "work" / "datasets" / "negative")
    counts = {split: sum(i.split == split for i in dataset.images) for split in ("train", "val", "test")}
    assert counts == {"train": 16, "val": 4, "test": 6}
    assert not list((out / "work").rglob("*.safetensors.partial"))
    assert not list((out / "work").rglob("state.json")), "states of ended trainings are gone"


@pytest.mark.slow
def test_a_pair_that_was_lost_is_done_again_and_gives_the_same(out, glyphs):
    lost = out / "work" / "transfers" / "lying-to-digits-3.json"
    before = json.loads(lost.read_text())
    lost.unlink()
    run(sources_in(["digits", glyphs]), SCALE, out / "work", seed=3)
    after = json.loads(lost.read_text())
    for each in (before, after):
        del each["start"]["seconds"]
        del each["seconds"], each["memory_mb"]
    assert after == before


@pytest.mark.slow
def test_the_study_has_both_selections_and_the_published_figures(out, glyphs):
    benchmark = run(sources_in(["digits", glyphs]), SCALE, out / "work", seed=3)
    study = study_of(benchmark, bootstrap=20)
    source, target, pairs = study.sections
    assert set(source.correlations.per_dataset) == {"digits", "lying", "negative"}
    assert {o.dataset for o in target.observations} == {"digits", "lying", "negative"}
    assert len(pairs.observations) == 6
    published = next(table for title, _, table in study.tables if title == "Beside the published figures")
    assert ("Source selection", "tlogme", "0.50") in {row[:3] for row in published.rows}
    assert ("Target selection", "tlogme", "0.35") in {row[:3] for row in published.rows}
    assert source.correlations.ceiling, "two seeds show the noise"


@pytest.mark.slow
def test_the_command_goes_on_and_writes_the_report(out, glyphs):
    asked = [
        "study",
        "synthetic",
        "--scale",
        "tiny",
        "--out",
        str(out),
        "--sources",
        "digits",
        "--sources",
        str(glyphs),
        "--seed",
        "3",
    ]
    result = CliRunner().invoke(build(), asked)
    assert result.exit_code == 0, result.output
    assert "Source selection" in result.output
    assert {"report.html", "report.md", "correlations.csv", "observations.csv", "plots"} <= {
        p.name for p in out.iterdir()
    }
    assert "Beside the published figures" in (out / "report.html").read_text()


@pytest.mark.slow
def test_a_pair_that_fails_is_named_and_the_rest_stands(out, glyphs, tmp_path):
    shutil.copytree(out / "work", tmp_path / "work")
    (tmp_path / "work" / "scores" / "lying-on-digits.json").write_text(
        '{"error": "no_objects: nothing there"}'
    )
    benchmark = run(sources_in(["digits", glyphs]), SCALE, tmp_path / "work", seed=3)
    assert benchmark.left_out() == {("lying", "digits"): "no_objects: nothing there"}
    assert len(benchmark.observations()) == 5
    tables = {title: table for title, _, table in study_of(benchmark, bootstrap=5).tables}
    assert tables["Left out"].rows == (("lying", "digits", "no_objects: nothing there"),)


@pytest.mark.slow
def test_another_study_in_the_same_folder_is_refused(out, glyphs):
    with pytest.raises(StudyRefused, match="name another folder") as refusal:
        run(sources_in(["digits", glyphs]), SCALE, out / "work", seed=4)
    assert refusal.value.code == "other_study"


def test_the_sources_at_hand_are_five_and_tell_their_classes_apart():
    found = {name: _glyphs(name) for name in AT_HAND}
    assert len(sources_in(AT_HAND)) == 5
    for name, each in found.items():
        assert len(each.names) == 10
        assert each.images.dtype == np.uint8
        flat = each.images.reshape(len(each.images), -1).astype(np.float64)
        probe = KNeighborsClassifier(1).fit(flat[::2], each.labels[::2])
        assert probe.score(flat[1::2], each.labels[1::2]) > 0.9, name
    again = printed("printed_letters")
    assert np.array_equal(again.images, found["printed_letters"].images)


def test_sources_are_found_in_folders_of_folders(glyphs):
    found = sources_in(["digits", glyphs])
    assert set(found) == {"digits", "lying", "negative"}
    assert found["digits"] == "digits"


def test_too_few_unknown_and_repeated_sources_are_refused(glyphs, tmp_path):
    for given, code in (
        (["digits"], "few_sources"),
        (["digits", glyphs, glyphs / "lying"], "unknown_source"),
        ([tmp_path, "digits"], "unknown_source"),
    ):
        with pytest.raises(StudyRefused) as refusal:
            sources_in(given)
        assert refusal.value.code == code
    result = CliRunner().invoke(
        build(), ["study", "synthetic", "--out", str(tmp_path / "x"), "--sources", "digits"]
    )
    assert result.exit_code == 2
    assert "at least 3 are needed" in " ".join(result.output.replace("│", " ").split())
    assert not (tmp_path / "x").exists()


def test_a_body_that_cannot_be_had_says_what_else_there_is(glyphs, tmp_path):
    asked = sources_in(["digits", glyphs])
    with pytest.raises(StudyRefused, match="a file of weights, or `random`") as refusal:
        run(asked, SCALE, tmp_path / "work", body="pypi://nothing")
    assert refusal.value.code == "no_body"
    with pytest.raises(StudyRefused, match="not for torchvision/nothing"):
        run(asked, replace(SCALE, backbone="torchvision/nothing"), tmp_path / "other")
