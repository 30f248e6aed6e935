"""Detectors that a study trains on one dataset and carries to the others."""

import csv
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from made_up import manifest
from safetensors.torch import save_file
from typer.testing import CliRunner

from app.cli.main import build
from models_store.manifest import Manifest
from worker.data.glyphs import Glyphs, digits
from worker.data.synthetic import Scenes, synth
from worker.studies import StudyRefused
from worker.studies.files import read_json
from worker.studies.runs import carried, plans
from worker.studies.runs.carried import CARRIED, identity, trained_there
from worker.studies.runs.real import run
from worker.studies.runs.study_file import StudyFile, make_ready, read_study

FILE = """
recipe = "quick"
max_train_images = 4
feature_images = 4
layers = ["backbone.c4"]
metrics = ["logme_boxes"]
[plan]
iterations = 1
image_size = 64
batch_size = 2
evaluations = 1
[datasets]
one = "sets/one"
two = "sets/two"
[[candidates]]
name = "body"
source = "body.safetensors"
architecture = "torchvision/mobilenet_v3_small"
[candidates.overrides]
min_size = 64
max_size = 64
options = { neck_channels = 16, head_width = 32, box_batch_size_per_image = 16, rpn_post_nms_top_n_test = 10 }
[[candidates]]
name = "carried"
source = "body.safetensors"
architecture = "detrank/retinanet"
trained_on = "one"
training = { iterations = 2, seed = 3 }
[candidates.overrides]
min_size = 64
max_size = 64
options = { neck_channels = 16, backbone = "torchvision/mobilenet_v3_small" }
"""


def read(folder: Path, text: str = FILE) -> StudyFile:
    (folder / "study.toml").write_text(text)
    return read_study(folder / "study.toml")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import torchvision

    folder, glyphs = tmp_path_factory.mktemp("data"), digits()
    for name, classes in (("one", 2), ("two", 3)):
        few = glyphs.labels < classes
        synth(
            folder / "sets" / name,
            Glyphs(glyphs.images[few], glyphs.labels[few], glyphs.names[:classes]),
            Scenes(image_size=64, max_size=30, max_objects=2),
            images_train=8,
            images_test=3,
        )
    torch.manual_seed(1)
    save_file(torchvision.models.mobilenet_v3_small().state_dict(), folder / "body.safetensors")
    return folder


@pytest.mark.slow
def test_it_is_trained_once_and_used_everywhere_but_there(data: Path, tmp_path: Path, monkeypatch) -> None:
    asked, work = read(data), tmp_path / "work"
    # the process ends after the last step, before the checkpoint is written
    with monkeypatch.context() as killed:
        killed.setattr(carried, "save_detector", _end)
        with pytest.raises(KeyboardInterrupt):
            make_ready(asked, data, work)
    assert not (work / "candidates" / "carried").exists()
    assert (work / "carried" / "carried" / "state" / "state.json").exists()
    taken: list[int] = []
    train = carried.fine_tune

    def counted(*arguments: Any, **named: Any) -> Any:
        trained, result = train(*arguments, **named)
        taken.append(trained.iterations)
        return trained, result

    monkeypatch.setattr(carried, "fine_tune", counted)
    datasets, candidates = make_ready(asked, data, work)
    made = Manifest.read(candidates["carried"])
    assert (made.kind, made.architecture, made.class_names) == ("detector", "detrank/retinanet", ("0", "1"))
    assert made.provenance["dataset"]["name"] == "one"
    result = read_json(work / "carried" / "carried.json")
    assert result["images"]["train"] == 11, "every image, those of test among them"
    assert (result["iterations"], result["map"]) == (2, None)

    real = run(datasets, candidates, work, asked.settings)
    assert make_ready(asked, data, work) == (datasets, candidates)
    assert taken == [2], "once, however often the study goes on"
    assert set(real.scores) == {("one", "body"), ("two", "body"), ("two", "carried")}
    assert real.own == {("one", "carried")}
    assert not list((work / "tunings").glob("carried-on-one-*"))
    again = {"plain": {}, "other": {"lr_factor": 0.5}}
    only = {"carried": candidates["carried"]}
    tunings = plans.run(datasets, only, tmp_path / "plans", asked.settings, again)
    assert {t.dataset for t in tunings} == {"two"}

    command = [
        "study",
        "local",
        str(data / "study.toml"),
        "--work",
        str(work),
        "--out",
        str(tmp_path / "out"),
    ]
    told = CliRunner().invoke(build(), command)
    assert told.exit_code == 0, told.output
    rows = list(csv.DictReader((tmp_path / "out" / "candidates.csv").open()))
    assert {row["candidate"]: row["trained_on"] for row in rows} == {"body": "", "carried": "one"}
    pairs = {(r["dataset"], r["candidate"]) for r in csv.DictReader((tmp_path / "out" / "pairs.csv").open())}
    assert pairs == set(real.scores)
    assert "trained on it" in (tmp_path / "out" / "report.md").read_text()

    other = read(data, FILE.replace("seed = 3", "seed = 4"))
    with pytest.raises(StudyRefused, match="carried was trained otherwise") as refusal:
        make_ready(other, data, work)
    assert refusal.value.code == "other_study"
    # a part of the study has no such dataset, and yet its candidate
    (data / "part.toml").write_text('extends = "study.toml"\n[datasets]\ntwo = "sets/two"\n')
    read(data)
    assert set(make_ready(read_study(data / "part.toml"), data, work)[0]) == {"two"}


@pytest.mark.slow
def test_what_cannot_be_trained_is_named(data: Path, tmp_path: Path) -> None:
    asked = read(data, FILE.replace("iterations = 2, seed", 'recipe = "deformable_detr", seed'))
    with pytest.raises(StudyRefused, match="carried could not be trained on one: wrong_family") as refusal:
        make_ready(asked, data, tmp_path)
    assert refusal.value.code == "not_trained"
    assert not (tmp_path / "candidates" / "carried").exists()


def _end(*_: Any, **__: Any) -> None:
    raise KeyboardInterrupt


def made(provenance: Mapping[str, Any]) -> Manifest:
    return manifest("a").but(weights_sha256="w", provenance=dict(provenance))


def test_what_it_is_does_not_hang_on_how_a_host_rounds() -> None:
    told = {"dataset": {"name": "one", "digest": "d"}, CARRIED: {"made_by": "m"}}
    assert identity(made(told)) == "m"
    assert trained_there(made(told), "d")
    assert not trained_there(made(told), "e")
    # what the service fine-tuned says its dataset too, and is a candidate like any other
    plain = made({"dataset": told["dataset"]})
    assert identity(plain) == "w"
    assert not trained_there(plain, "d")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (('trained_on = "one"', 'trained_on = "three"'), "trained_on three, which is no dataset"),
        (('trained_on = "one"\n', ""), "training but no trained_on"),
        (("training = { iterations = 2, seed = 3 }", "training = 2"), "is a table such as"),
        (("seed = 3 }", "seed = 3 }\npublished = { coco_box_map = 20.0 }"), "is not published of it"),
    ],
)
def test_what_a_file_cannot_say_of_it_is_refused(tmp_path: Path, change: tuple[str, str], said: str) -> None:
    assert FILE.count(change[0]) == 1
    with pytest.raises(StudyRefused, match=said) as refusal:
        read(tmp_path, FILE.replace(*change))
    assert refusal.value.code == "bad_file"


def test_more_candidates_stand_beside_those_of_the_file_below(tmp_path: Path) -> None:
    read(tmp_path)
    more = 'extends = "study.toml"\n[[more_candidates]]\nname = "third"\nsource = "x"\ntrained_on = "two"\n'
    (tmp_path / "more.toml").write_text(more)
    found = read_study(tmp_path / "more.toml")
    assert [each["name"] for each in found.candidates] == ["body", "carried", "third"]
    (tmp_path / "more.toml").write_text(more + 'sourse = "y"\n')
    with pytest.raises(StudyRefused, match="sourse mean nothing"):
        read_study(tmp_path / "more.toml")


def test_the_committed_study_has_a_pool_worth_ranking() -> None:
    root = Path(__file__).resolve().parents[3]
    study = read_study(root / "docs" / "studies" / "truth" / "study.toml")
    assert len(study.candidates) >= 16
    assert len({each["trained_on"] for each in study.candidates if "trained_on" in each}) == 5
    kinds = {each.get("architecture") for each in study.candidates}
    assert {"detrank/retinanet", "detrank/fcos", "detrank/deformable_detr"} <= kinds
    old = json.loads((root / "docs" / "studies" / "truth" / "work" / "settings.json").read_text())
    assert old["overrides"]["iterations"] == study.settings.overrides["iterations"]
