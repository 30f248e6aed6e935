"""Studies of given candidates and datasets, from a TOML file to the report; they go on, grow, and name what failed."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from typer.testing import CliRunner

from app.cli.main import build
from models_store import load_detector
from worker.data.dataset import open_dataset
from worker.data.glyphs import Glyphs, digits
from worker.data.synthetic import Scenes, synth
from worker.features.extract import extract
from worker.features.reading import reading_of
from worker.metrics import FeatureSet, RegionSet, score
from worker.studies import StudyRefused
from worker.studies.evidence.material import material_of
from worker.studies.files import write_json
from worker.studies.reports.report import write_report
from worker.studies.runs.fine_tuning import ids_of
from worker.studies.runs.real import RealStudy, StudySettings, run, study_of
from worker.studies.runs.study_file import make_ready, read_study

OPTIONS = "neck_channels = 16, head_width = 32, box_batch_size_per_image = 16, rpn_post_nms_top_n_train = 20, rpn_post_nms_top_n_test = 10"
FILE = f"""
title = "A study"
recipe = "quick"
seeds = [0, 1]
max_train_images = 8
feature_images = 8
layers = ["backbone.c4", "neck.roi"]
metrics = ["tlogme", "logme_boxes", "etran", "leep"]
[plan]
iterations = 2
image_size = 64
batch_size = 2
evaluations = 1
[datasets]
one = "sets/one"
two = "sets/two"
[[candidates]]
name = "kept"
source = "body.safetensors"
architecture = "torchvision/mobilenet_v3_small"
published = {{ coco_box_map = 21.5 }}
[candidates.overrides]
min_size = 64
max_size = 64
options = {{ {OPTIONS} }}
[[candidates]]
name = "random"
random = "torchvision/mobilenet_v3_small"
seed = 5
[candidates.overrides]
min_size = 64
max_size = 64
options = {{ {OPTIONS} }}
"""


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """Two little datasets, a file of weights and the study's file."""
    import torchvision

    folder = tmp_path_factory.mktemp("data")
    glyphs = digits()
    for name, classes in (("one", 1), ("two", 3)):
        few = glyphs.labels < classes
        synth(
            folder / "sets" / name,
            Glyphs(glyphs.images[few], glyphs.labels[few], glyphs.names[:classes]),
            Scenes(image_size=64, max_size=30, max_objects=3),
            images_train=12,
            images_test=4,
        )
    torch.manual_seed(1)
    save_file(torchvision.models.mobilenet_v3_small().state_dict(), folder / "body.safetensors")
    (folder / "study.toml").write_text(FILE)
    return folder


@pytest.fixture(scope="module")
def out(data, tmp_path_factory) -> Path:
    """Where the command ran the file's study."""
    folder = tmp_path_factory.mktemp("out")
    result = CliRunner().invoke(
        build(), ["study", "local", str(data / "study.toml"), "--out", str(folder), "--workers", "1"]
    )
    assert result.exit_code == 0, result.output
    assert "Ranking candidates for a dataset" in result.output
    return folder


def again(data: Path, out: Path) -> RealStudy:
    asked = read_study(data / "study.toml")
    datasets, candidates = make_ready(asked, data, out / "work")
    return run(datasets, candidates, out / "work", asked.settings)


@pytest.mark.slow
def test_a_file_becomes_a_report(data, out):
    real = again(data, out)
    assert real.left_out() == {}
    rows = real.observations()
    assert [(o.dataset, o.candidate) for o in rows] == [
        ("one", "kept"),
        ("one", "random"),
        ("two", "kept"),
        ("two", "random"),
    ]
    assert all(set(o.map_by_seed) == {0, 1} for o in rows)
    assert {o.static["static_coco_map"] for o in rows} == {21.5, None}
    assert rows[0].static["static_parameters"] == real.scores["one", "kept"]["parameters"]
    one, two = rows[0], rows[2]
    assert ("tlogme", "backbone.c4", "local") in two.scores
    assert one.undefined["tlogme", "backbone.c4", "local"], (
        "a single class has no scores over classes, with the reason"
    )
    assert "etran_s_en" not in {metric for metric, _, _ in (*one.scores, *two.scores)}, (
        "terms nobody asked for"
    )
    assert ("leep", "head.class_probabilities", "local") in two.undefined
    page = (out / "report.html").read_text()
    assert "A study" in page
    assert "iterations 2" in page


@pytest.mark.slow
def test_nothing_is_done_twice_and_more_may_be_added(data, out):
    asked = read_study(data / "study.toml")
    datasets, candidates = make_ready(asked, data, out / "work")
    told = []
    run(datasets, candidates, out / "work", asked.settings, progress=lambda *each: told.append(each))
    assert told == [(12, 12, "what is done already")]
    fewer = run({"one": datasets["one"]}, candidates, out / "work", asked.settings)
    assert len(fewer.observations()) == 2
    with pytest.raises(StudyRefused, match="other settings"):
        run(datasets, candidates, out / "work", StudySettings(recipe="sgd_1x"))
    with pytest.raises(StudyRefused, match="candidate kept changed"):
        run(datasets, {"kept": candidates["random"]}, out / "work", asked.settings)


def test_scores_of_metrics_that_gave_other_numbers_are_not_taken_over(data, out, monkeypatch):
    asked = read_study(data / "study.toml")
    datasets, candidates = make_ready(asked, data, out / "work")
    monkeypatch.setattr("worker.studies.runs.real.METRICS_VERSION", -1)
    told = []
    run(
        {"one": datasets["one"]},
        {"kept": candidates["kept"]},
        out / "work",
        asked.settings,
        progress=lambda *each: told.append(each),
    )
    assert told[0][0] == told[0][1] - 1, "its fine-tunings stay, its scores are computed anew"


EVIDENCE = """
extends = "study.toml"
title = "Evidence"
levels = ["local"]
layers = ["backbone.c3", "backbone.c4"]
metrics = ["tlogme", "logme_boxes", "logme_regions", "logme_deltas", "detection_evidence"]
metrics_by_size = ["logme_regions"]
zero_point = true
choose_on = ["one"]
layer_rules = ["backbone.c3", "backbone.c4", "size_matched / 2", "mean of maps"]
[regions]
jittered = 2
background = 2
[probe]
iterations = 1
freeze = "backbone"
"""


@pytest.mark.slow
def test_the_same_fine_tunings_serve_another_question(data, out, tmp_path):
    """A folder as it was written before scores had one of their own: its fine-tunings stay, scores are made anew."""
    work = out / "work"
    before = {path: path.stat().st_mtime_ns for path in (work / "tunings").iterdir()}
    kept = json.loads((work / "settings.json").read_text())
    write_json(work / "settings.json", {**kept, "spec": {"layers": ["all"]}, "metrics": ["tlogme"]})
    (data / "evidence.toml").write_text(EVIDENCE)
    command = [
        "study",
        "local",
        str(data / "evidence.toml"),
        "--out",
        str(tmp_path),
        "--work",
        str(work),
        "--workers",
        "1",
    ]
    result = CliRunner().invoke(build(), command)
    assert result.exit_code == 0, result.output
    assert {path: path.stat().st_mtime_ns for path in (work / "tunings").iterdir()} == before
    assert "has a value for every candidate" in result.output or "could be chosen" in result.output

    asked = read_study(data / "evidence.toml")
    datasets, candidates = make_ready(asked, data, work)
    real = run(datasets, candidates, work, asked.settings)
    found = {(o.dataset, o.candidate): o for o in material_of(real, asked.question).observations}
    kept, random = found["two", "kept"], found["two", "random"]
    gain, evidence = (
        ("gain of detection_evidence", "backbone.c4", "local"),
        ("detection_evidence", "backbone.c4", "local"),
    )
    zero = {(r["metric"], r["layer"], r["level"]): r["value"] for r in real.zeros["two", "kept"]["rows"]}
    assert evidence in kept.scores, kept.undefined
    assert kept.scores[gain] == pytest.approx(
        kept.scores[evidence] - zero["detection_evidence", "backbone.c4", "local"]
    )
    assert real.zeros["two", "kept"] == real.zeros["two", "random"], "one architecture has one zero point"
    assert len(list((work / "scores").rglob("zero/*.json"))) == 2
    assert len({kept.scores[gain], random.scores[gain], 0.0}) == 3, "the zero point has weights of its own"
    assert {"small", "medium", "large"} <= {level for _, _, level in (*kept.scores, *kept.undefined)}
    assert ("probe_map", "fine-tuning", "test images") in kept.scores
    assert "detection_evidence" in (tmp_path / "report.html").read_text()
    of_small(real, datasets["two"], candidates["kept"], asked.settings.spec)


def of_small(real, dataset, candidate, spec):
    """The score of the small objects is that of their regions, and of background as small."""
    features = extract(reading_of(load_detector(candidate), open_dataset(dataset), spec))
    part = real.scores["two", "kept"]
    low = np.quantile(features.object_pixels, 1 / 3)
    assert part["object_pixels"]["limits"][0] == pytest.approx(low, abs=1e-3)
    regions, sides = (
        features.regions,
        np.sqrt(np.prod(features.regions.boxes[:, 2:] - features.regions.boxes[:, :2], axis=1)),
    )
    # images of 64 pixels, seen at 64 pixels
    chosen = np.where(regions.jittered, features.object_pixels[regions.objects], sides) < low
    assert 0 < chosen.sum() < len(chosen)
    own = RegionSet(
        features=features.region_layers["backbone.c4"][chosen],
        labels=regions.labels[chosen],
        deltas=regions.deltas[chosen],
        ious=regions.ious[chosen],
    )
    objects = FeatureSet(
        features=np.zeros((3, own.features.shape[1])), labels=np.zeros(3, dtype=int), regions=own
    )
    value = score(objects, ["logme_regions"])["logme_regions"].value
    row = next(
        r
        for r in part["rows"]
        if (r["metric"], r["layer"], r["level"]) == ("logme_regions", "backbone.c4", "small")
    )
    assert value is not None
    assert row["value"] == pytest.approx(value, rel=1e-6)


@pytest.mark.slow
def test_a_part_that_fails_is_named_and_the_rest_stands(data, out, tmp_path):
    real = again(data, out)
    broken = {**real.tunings, ("one", "random"): {0: {"error": "training_diverged: at iteration 3"}}}
    lame = RealStudy(real.settings, real.manifests, real.scores, broken)
    assert lame.left_out() == {("one", "random"): "training_diverged: at iteration 3"}
    study = study_of(lame, "Lame", bootstrap=5)
    assert [o.candidate for o in study.sections[0].observations] == ["kept", "kept", "random"]
    text = write_report(study, tmp_path).markdown.read_text()
    assert "training\\_diverged: at iteration 3" in text


@pytest.mark.slow
def test_a_recipe_that_does_not_fit_is_a_result(data, out, tmp_path):
    asked = read_study(data / "study.toml")
    datasets, candidates = make_ready(asked, data, out / "work")
    settings = StudySettings(recipe="detr", spec=asked.settings.spec, metrics=asked.settings.metrics)
    real = run({"one": datasets["one"]}, {"kept": candidates["kept"]}, tmp_path / "work", settings)
    assert real.left_out()["one", "kept"].startswith("wrong_family: ")


@pytest.mark.parametrize("name", ["../x", "a/b", "", ".hidden"])
def test_a_name_is_never_a_path(tmp_path, name):
    with pytest.raises(StudyRefused, match="files of these names"):
        run({name: tmp_path}, {}, tmp_path / "work", StudySettings())
    assert not (tmp_path / "work").exists()


def test_a_dataset_without_a_test_split_is_tested_on_validation():
    class Image:
        def __init__(self, id, split):
            self.id, self.split = id, split

    class Dataset:
        images = tuple(Image(i, "val" if i % 5 == 0 else "train") for i in range(20))

    ids = ids_of(Dataset)
    assert (len(ids.train), ids.val, len(ids.test)) == (16, (), 4)
    few, fewer = ids_of(Dataset, max_train=8, seed=1), ids_of(Dataset, max_train=3, seed=1)
    assert set(fewer.train) < set(few.train) < set(ids.train)
    assert few.test == ids.test


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("recipe =", "recipee ="), "recipee mean nothing"),
        (('name = "kept"\nsource', "source"), "a candidate has a name"),
        (('random = "torchvision', 'source = "x"\nrandom = "torchvision'), "either a source or random"),
        (('name = "random"', 'name = "kept"'), "of different names"),
        (("[plan]", "[plan"), "cannot be read"),
    ],
)
def test_what_a_file_cannot_say_is_refused(tmp_path, change, said):
    (tmp_path / "s.toml").write_text(FILE.replace(*change))
    with pytest.raises(StudyRefused, match=said) as refusal:
        read_study(tmp_path / "s.toml")
    assert refusal.value.code == "bad_file"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (('choose_on = ["one"]', 'choose_on = ["three"]'), "no dataset of the study: three"),
        (('choose_on = ["one"]', 'choose_on = ["one", "two"]'), "leaves some datasets"),
        (("jittered = 2", "jittered = 0"), "regions: .*jittered is 1 to"),
        (("jittered = 2", "jitered = 2"), "regions: .*jitered"),
        (('"backbone.c3", "backbone.c4", "size', '"best", "size'), "is no layer rule"),
        (('"tlogme", "logme_boxes"', '"tlogme", "no_such"'), "no metric no_such"),
        (
            ('metrics_by_size = ["logme_regions"]', 'metrics_by_size = ["leep"]'),
            "leep cannot be scored by size",
        ),
        (
            ('choose_on = ["one"]', 'choose_on = ["one"]\nchoose_metrics = ["leep"]'),
            "for one candidate alone: leep",
        ),
        (('extends = "study.toml"', 'extends = "evidence.toml"'), "one has to stand alone"),
        (('extends = "study.toml"', 'extends = "none.toml"'), "cannot be read"),
    ],
)
def test_what_a_question_cannot_ask_is_refused(tmp_path, change, said):
    assert change[0] in EVIDENCE
    (tmp_path / "study.toml").write_text(FILE)
    (tmp_path / "evidence.toml").write_text(EVIDENCE.replace(*change))
    with pytest.raises(StudyRefused, match=said) as refusal:
        read_study(tmp_path / "evidence.toml")
    assert refusal.value.code == "bad_file"


def test_the_evidence_of_this_repository_asks_of_the_study_beside_it():
    folder = Path(__file__).resolve().parents[3] / "docs" / "studies"
    evidence, real = read_study(folder / "evidence.toml"), read_study(folder / "real.toml")
    for shared in ("recipe", "overrides", "max_train"):
        assert getattr(evidence.settings, shared) == getattr(real.settings, shared), (
            "it takes over the other's fine-tunings"
        )
    assert (evidence.datasets, evidence.candidates) == (real.datasets, real.candidates)
    assert evidence.question.choose_on == ("bccd", "pennfudan", "cards")
    assert evidence.question.untrained == {"mobilenet_v2 random", "squeezenet1_1 random"}
    assert len(evidence.settings.seeds) >= 2
    assert real.question is None


def test_the_study_of_this_repository_can_be_read():
    study = read_study(Path(__file__).resolve().parents[3] / "docs" / "studies" / "real.toml")
    assert len(study.candidates) >= 10
    assert len(study.datasets) == 7
    assert sum("random" in candidate for candidate in study.candidates) >= 2


def test_a_result_that_is_no_number_never_becomes_one(tmp_path):
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "x.json", {"map": np.inf})
    assert json.loads(write_json(tmp_path / "y.json", {"map": None}).read_text()) == {"map": None}
