"""A DETR from image labels: what it learns, that pictures are never mixed, and that a kill changes nothing."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from models_store import Unusable, load_detector
from models_store.detector import Detector
from models_store.instances.detector import BRANCH, QueryLearning, taught_by_labels
from models_store.instances.losses import sure_boxes
from models_store.instances.region_queries import RegionQueries, sine_of_boxes
from models_store.save import save_detector
from tests.unit.pseudo_boxes.conftest import untrained
from tests.unit.pseudo_boxes.scenes import scenes
from tests.unit.pseudo_boxes.test_image_label_teacher import corloc, without_boxes
from worker.data.dataset import Dataset, open_dataset
from worker.data.ingest import ingest
from worker.data.pictures import read_rgb
from worker.pseudo_boxes.image_label_detr import DetrSettings, DetrTeacher, LearnedDetector, told_both_ways
from worker.pseudo_boxes.image_labels import present_of
from worker.pseudo_boxes.pseudo_boxes import Unteachable
from worker.pseudo_boxes.regions import RegionSettings
from worker.training.inputs import Host, Watch
from worker.training.pictures import Pictures
from worker.training.validate import predictions_of


class Killed(Exception):
    """Stands for a process that ended."""


TINY = {
    "d_model": 32,
    "encoder_layers": 1,
    "decoder_layers": 2,
    "encoder_ffn_dim": 64,
    "decoder_ffn_dim": 64,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "num_queries": 8,
    "dropout": 0.0,
    "attention_dropout": 0.0,
    "activation_dropout": 0.0,
}
EPOCHS = 24
SHORT = DetrSettings(regions=RegionSettings(most=30), config=TINY, image_size=96, epochs=1)


def looked_by(teacher: DetrTeacher, dataset: Dataset, pictures: int = 12) -> dict[int, dict[str, np.ndarray]]:
    return {image.id: arrays for image, arrays in teacher.look(dataset.images[:pictures])}


def targets(dataset: Dataset, looked: dict[int, Any], ids: list[int]) -> tuple[list[np.ndarray], list[dict]]:
    present = present_of(dataset, ids)
    by_id = {image.id: image for image in dataset.images}
    pictures = [read_rgb(by_id[id].path) for id in ids]
    wanted = [
        {
            "boxes": torch.from_numpy(looked[id]["boxes"]),
            "labels": torch.zeros(len(looked[id]["boxes"]), dtype=torch.long),
            "present": torch.from_numpy(present[id]),
        }
        for id in ids
    ]
    return pictures, wanted


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_objects_are_found_without_a_box_and_by_a_detector_that_needs_no_regions(tmp_path: Path) -> None:
    """CorLoc 0.96 by regions where one drawn by chance gives 0.14 (another BLAS moves it by a point or two); the detector alone,
    after so short a time, twice chance."""
    ingest(scenes(tmp_path / "raw", 60), tmp_path / "canonical", seed=1)
    dataset = open_dataset(tmp_path / "canonical")
    settings = replace(
        SHORT,
        regions=RegionSettings(most=150),
        config=TINY | {"d_model": 64, "num_queries": 20},
        learning=QueryLearning(stride=8),
        epochs=EPOCHS,
    )
    teacher = DetrTeacher(untrained("test_resnet", tmp_path), settings)
    made = teacher.teach(without_boxes(dataset), looked_by(teacher, dataset, 60), tmp_path / "state")
    assert corloc(dataset, list(made.said.found.values())) >= 0.95
    with Pictures() as pictures:
        own = predictions_of(made.detector, dataset.images, pictures, 96, threads=1, check=lambda: None)
    assert corloc(dataset, own) >= 0.25


@pytest.mark.parametrize("model_type", ["deformable_detr", "detr"])
def test_pictures_are_never_mixed(small_body: Detector, few: Dataset, model_type: str) -> None:
    """The losses of a batch are the mean of those of its pictures alone."""
    teacher = DetrTeacher(small_body, replace(SHORT, model_type=model_type))
    looked, detector = looked_by(teacher, few), teacher.fresh(few)
    detector.queries.content[2].p = 0.0  # what is dropped is drawn anew each time
    pictures, wanted = targets(few, looked, [1, 2, 3])
    together = detector.losses(pictures, wanted, image_size=96)
    apart = [detector.losses([p], [w], image_size=96) for p, w in zip(pictures, wanted, strict=True)]
    assert {"loss_mil", "loss_refine_3", "loss_boxes", "own_loss_ce", "own_loss_bbox"} <= set(together)
    for name, value in together.items():
        alone = torch.stack([one[name] for one in apart]).mean()
        assert float(value) == pytest.approx(float(alone), rel=2e-3, abs=1e-5), name


@pytest.mark.parametrize("model_type", ["deformable_detr", "detr"])
def test_a_region_does_not_see_the_others(small_body: Detector, few: Dataset, model_type: str) -> None:
    """What the refinements say of it is the same in whatever company: else each could tell what is anywhere in the picture."""
    teacher = DetrTeacher(small_body, replace(SHORT, model_type=model_type))
    detector, pixels = teacher.fresh(few), read_rgb(few.images[0].path)
    boxes = looked_by(teacher, few, 1)[few.images[0].id]["boxes"]
    together, alone = (detector.told(pixels, some, image_size=96) for some in (boxes, boxes[:2]))
    assert len(boxes) > 5
    assert np.allclose(together[0][:2], alone[0], atol=1e-6)
    assert np.allclose(together[1][:2], alone[1], atol=1e-3)
    assert not np.allclose(together[0][0], together[0][1], atol=1e-6)


def test_a_picture_and_its_mirror_image_say_the_same(small_body: Detector, few: Dataset) -> None:
    teacher = DetrTeacher(small_body, SHORT)
    detector, pixels = teacher.fresh(few), read_rgb(few.images[0].path)
    boxes = looked_by(teacher, few, 1)[few.images[0].id]["boxes"]
    turned, places = np.ascontiguousarray(pixels[:, ::-1]), boxes.copy()
    places[:, [0, 2]] = pixels.shape[1] - boxes[:, [2, 0]]
    here, there = (told_both_ways(detector, *each, 96) for each in ((pixels, boxes), (turned, places)))
    assert np.allclose(here[0], there[0], atol=1e-6)
    assert np.allclose(here[1][:, 0], pixels.shape[1] - there[1][:, 2], atol=1e-3)
    assert np.allclose(here[1][:, [1, 3]], there[1][:, [1, 3]], atol=1e-3)
    # one look alone does not
    assert not np.allclose(detector.told(pixels, boxes, image_size=96)[0], here[0], atol=1e-6)


def test_every_part_learns(small_body: Detector, few: Dataset) -> None:
    """Heads that are read at the end have gradients, as does the body: in the published code neither had."""
    teacher = DetrTeacher(small_body, SHORT)
    detector = teacher.fresh(few)
    detector.module.requires_grad_(True)
    pictures, wanted = targets(few, looked_by(teacher, few), [1, 2])
    torch.stack(list(detector.losses(pictures, wanted, image_size=96).values())).sum().backward()
    moved = {name for name, p in detector.module.named_parameters() if p.grad is not None and p.grad.any()}
    for part in (
        "model.backbone.model.body",
        "model.encoder",
        "model.decoder",
        "class_embed",
        "bbox_embed",
        f"{BRANCH}.heads.mil.0",
        f"{BRANCH}.heads.refine.2",
        f"{BRANCH}.heads.move",
        f"{BRANCH}.content",
    ):
        assert any(name.startswith(part) for name in moved), part


@pytest.mark.slow
def test_a_kill_changes_nothing(small_body: Detector, few: Dataset, tmp_path: Path) -> None:
    settings = replace(SHORT, epochs=2)
    teacher = DetrTeacher(small_body, settings)
    looked = looked_by(teacher, few)
    whole = teacher.teach(without_boxes(few), looked, tmp_path / "whole")
    steps: list[int] = []

    def killed() -> None:
        if len(steps) == 3:
            raise Killed

    def progress(done: int, *_: object) -> None:
        steps.append(done)

    host = Host(save_every_s=0.0)
    with pytest.raises(Killed):
        teacher.teach(
            without_boxes(few), looked, tmp_path / "cut", host, Watch(progress=progress, check=killed)
        )
    resumed: list[int] = []
    watch = Watch(progress=lambda done, *_: resumed.append(done))
    again = DetrTeacher(small_body, settings).teach(without_boxes(few), looked, tmp_path / "cut", host, watch)
    assert (resumed[0], whole.iterations, again.iterations) == (4, 6, 6)
    for id, each in whole.said.found.items():
        assert np.array_equal(each.boxes, again.said.found[id].boxes)
        assert np.array_equal(each.scores, again.said.found[id].scores)
    theirs = again.detector.module.state_dict()
    assert all(torch.equal(value, theirs[name]) for name, value in whole.detector.module.state_dict().items())
    other = DetrTeacher(small_body, settings, seed=1).teach(without_boxes(few), looked, tmp_path / "other")
    assert any(
        not np.array_equal(each.scores, other.said.found[id].scores) for id, each in whole.said.found.items()
    )


def test_what_comes_of_it_is_an_ordinary_detector(small_body: Detector, few: Dataset, tmp_path: Path) -> None:
    teacher = DetrTeacher(small_body, replace(SHORT, model_type="detr"))
    looked = looked_by(teacher, few)
    looked[1] = {"boxes": np.zeros((0, 4), np.float32)}
    made: LearnedDetector = teacher.teach(without_boxes(few), looked, tmp_path / "state")
    assert len(made.said.found[1].boxes) == 0
    assert made.said.about["without_region"] == [1]
    assert not hasattr(made.detector.module, BRANCH)
    assert made.curves[-1]["val"]["followed"] is not None
    save_detector(made.detector, tmp_path / "saved", class_names=few.categories, lineage={}, image_size=96)
    found = load_detector(tmp_path / "saved")
    assert (found.manifest.architecture, found.manifest.class_names) == ("detrank/detr", few.categories)
    pixels = read_rgb(few.images[0].path)
    own, back = (each.predictions([pixels], image_size=96)[0] for each in (made.detector, found))
    assert torch.allclose(own["scores"], back["scores"], atol=1e-4)
    assert torch.allclose(own["boxes"], back["boxes"], atol=0.1)
    # it goes on from there, with other regions, as itself
    again = taught_by_labels(found, few.categories)
    assert again.module is found.module


def test_boxes_are_sure_by_class_and_inside() -> None:
    boxes = torch.tensor(
        [[-5.0, 0, 20, 20], [0, 0, 20, 21], [50, 50, 80, 80], [90, 90, 200, 200], [120, 0, 130, 9]]
    )
    scores = torch.tensor([[0.9, 0.1], [0.8, 0.1], [0.5, 0.3], [0.2, 0.8], [1.0, 1.0]])
    made = sure_boxes(scores, boxes, torch.tensor([True, False]), (100, 100))
    assert made.labels.tolist() == [0, 0]
    assert made.boxes.tolist() == [[0, 0, 20, 20], [50, 50, 80, 80]]
    assert made.scores.tolist() == pytest.approx([0.9, 0.5])
    both = sure_boxes(scores, boxes, torch.tensor([True, True]), (100, 100))
    assert both.boxes[-1].tolist() == [90, 90, 100, 100]
    assert len(sure_boxes(scores[4:], boxes[4:], torch.tensor([True, True]), (100, 100)).boxes) == 0


def test_a_region_is_read_where_it_lies_though_its_picture_is_padded() -> None:
    """Three quarters of the map's width are picture: its right half begins at column 3 of 8."""
    queries = RegionQueries(3, 4, 2, grid=1)
    features = torch.zeros(3, 4, 8)
    features[0, :, 3:6], features[1, :, :3], features[2, :, 6:] = 1.0, 1.0, 1.0
    boxes = torch.tensor([[0.75, 0.5, 0.5, 1.0], [0.25, 0.5, 0.25, 0.5]])
    read = queries.read(features, torch.tensor([0.75, 1.0]), boxes)
    assert torch.allclose(read[0, :3], torch.tensor([1.0, 0.0, 0.0]), atol=1e-5)
    assert torch.allclose(read[1, :3], torch.tensor([0.0, 1.0, 0.0]), atol=1e-5)
    content, place = queries(features, torch.tensor([0.75, 1.0]), boxes)
    assert content.shape == place.shape == (2, 4)


def test_a_place_has_one_embedding_and_another_place_another() -> None:
    boxes = torch.tensor([[0.5, 0.5, 0.2, 0.2], [0.5, 0.5, 0.2, 0.3]])
    made = sine_of_boxes(boxes, 32)
    assert made.shape == (2, 64)
    # cx cy w h, sixteen numbers each: only the height differs
    assert torch.equal(made[0, :48], made[1, :48])
    assert not torch.allclose(made[0, 48:], made[1, 48:])


def test_what_cannot_be_done_is_refused(small_body: Detector, few: Dataset, tmp_path: Path) -> None:
    teacher = DetrTeacher(small_body, SHORT)
    none = {image.id: {"boxes": np.zeros((0, 4), np.float32)} for image in few.images}
    for dataset, code in (
        (few, "no_proposals"),
        (replace(few, categories=()), "unknown_class"),
        (replace(few, annotation_image_ids=few.annotation_image_ids + 1000), "no_labels"),
    ):
        with pytest.raises(Unteachable) as stopped:
            teacher.teach(dataset, none, tmp_path / "state")
        assert stopped.value.code == code
    with pytest.raises(Unteachable, match="attention"):
        DetrTeacher(small_body, replace(SHORT, regions=RegionSettings(("cuts",))))
    with pytest.raises(Unusable, match="two_stage"):
        DetrTeacher(small_body, replace(SHORT, config=TINY | {"with_box_refine": True})).fresh(few)
    for wrong in (
        {"d_model": 48},
        {"d_model": 30, "decoder_attention_heads": 7},
        {"surprise": 1.5, "d_model": -1},
    ):
        with pytest.raises(Unusable) as bad:
            DetrTeacher(small_body, replace(SHORT, config=TINY | wrong)).fresh(few)
        assert bad.value.code == "bad_config"
    made = taught_by_labels(small_body, few.categories, model_type="detr", config=TINY)
    with pytest.raises(Unusable, match="another configuration"):
        taught_by_labels(made, few.categories, config=TINY)


@pytest.mark.slow
def test_a_vision_transformer_is_a_body_and_its_attention_may_be_cut(few: Dataset, tmp_path: Path) -> None:
    """As DINO's ViT-S would be: one map of stride 16, regions by cuts of its last block."""
    body = untrained("test_vit", tmp_path)
    config = TINY | {"d_model": 64}
    settings = replace(SHORT, regions=RegionSettings(("cuts",), most=20), config=config)
    teacher = DetrTeacher(body, settings)
    assert teacher.key != DetrTeacher(body, SHORT).key
    looked = looked_by(teacher, few)
    made = teacher.teach(without_boxes(few), looked, tmp_path / "state")
    assert made.finished == "completed"
    assert made.detector.manifest.backbone == body.manifest.backbone
    assert all(np.isfinite(point["loss"]) for point in made.curves)
