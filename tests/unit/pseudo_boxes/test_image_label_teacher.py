"""Boxes from image labels: that they are right where they can be, the same each time, and refused with a reason."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from models_store.detector import Detector
from tests.unit.pseudo_boxes.conftest import QUICK, untrained
from tests.unit.pseudo_boxes.scenes import scenes
from worker.data.dataset import Dataset, open_dataset
from worker.data.ingest import ingest
from worker.data.pictures import read_rgb
from worker.evaluation.evaluate import evaluate
from worker.evaluation.prediction import Prediction
from worker.pseudo_boxes.image_label_teacher import ImageLabelSettings, ImageLabelTeacher, say_from
from worker.pseudo_boxes.image_labels import present_of
from worker.pseudo_boxes.instance_learning import LearningSettings, learn
from worker.pseudo_boxes.looked import Looked, save
from worker.pseudo_boxes.pseudo_boxes import PseudoBoxes, Unteachable
from worker.pseudo_boxes.region_features import FeatureSettings, region_vectors
from worker.pseudo_boxes.regions import RegionSettings


def without_boxes(dataset: Dataset) -> Dataset:
    """The same pictures and classes; every box is the whole picture, as a dataset of image labels has them."""
    whole = np.tile([0.0, 0.0, 96.0, 96.0], (len(dataset.labels), 1))
    return replace(dataset, supervision="image_labels", boxes=whole)


def corloc(dataset: Dataset, predictions: list[Prediction]) -> float:
    found = evaluate(dataset, [image.id for image in dataset.images], predictions).corloc
    assert found is not None
    return found


def all_scores(made: PseudoBoxes) -> np.ndarray:
    return np.concatenate([each.scores for each in made.found.values()])


@pytest.mark.slow
def test_objects_are_found_without_a_box(tmp_path: Path) -> None:
    """CorLoc 0.95 where a region drawn by chance gives 0.14: 60 scenes, three classes, features that nobody trained."""
    ingest(scenes(tmp_path / "raw", 60), tmp_path / "canonical", seed=1)
    dataset = open_dataset(tmp_path / "canonical")
    settings = ImageLabelSettings(
        features=FeatureSettings(("backbone.c3",), 128, grid=2, context=1.8),
        learning=LearningSettings(epochs=30, hidden=256, dropout=0.3),
    )
    teacher = ImageLabelTeacher(untrained("resnet18", tmp_path), settings)
    looked = {image.id: arrays for image, arrays in teacher.look(dataset.images)}
    made = teacher.say(without_boxes(dataset), looked)
    rng = np.random.default_rng(0)
    chance = []
    for id, present in present_of(dataset, looked).items():
        classes = np.flatnonzero(present)
        boxes = looked[id]["boxes"][rng.integers(len(looked[id]["boxes"]), size=len(classes))]
        chance.append(Prediction(id, boxes, np.ones(len(classes)), classes))
    assert corloc(dataset, list(made.found.values())) >= 0.95
    assert corloc(dataset, chance) < 0.3
    # One box of each object, hardly any other.
    assert len(dataset.labels) <= made.boxes <= 1.2 * len(dataset.labels)


def test_boxes_are_of_classes_of_their_picture_and_inside_it(
    quick: ImageLabelTeacher, few: Dataset, looked: dict
) -> None:
    made = quick.say(without_boxes(few), looked)
    there = present_of(few, looked)
    assert list(made.found) == [image.id for image in few.images]
    for id, each in made.found.items():
        assert each.image_id == id
        assert set(each.labels.tolist()) <= set(np.flatnonzero(there[id]).tolist())
        assert each.boxes.min() >= 0
        assert each.boxes.max() <= 96
        assert (each.boxes[:, 2:] > each.boxes[:, :2]).all()
        assert each.scores.min() >= 0
        assert each.scores.max() <= 1
    assert made.about["pictures"] == 24
    assert len(made.about["curves"]) == 3


def test_the_places_of_boxes_are_not_looked_at(quick: ImageLabelTeacher, few: Dataset, looked: dict) -> None:
    seen, hidden = quick.say(few, looked), quick.say(without_boxes(few), looked)
    assert all(np.array_equal(seen.found[id].boxes, hidden.found[id].boxes) for id in looked)
    assert np.array_equal(all_scores(seen), all_scores(hidden))


def test_the_seed_decides(quick: ImageLabelTeacher, few: Dataset, looked: dict) -> None:
    present = present_of(few, looked)
    once, again, other = (all_scores(say_from(few, looked, present, QUICK, seed)) for seed in (4, 4, 5))
    assert np.array_equal(once, again)
    assert not np.array_equal(once, other)


def test_looking_twice_gives_the_same_and_a_file_the_same_boxes(
    quick: ImageLabelTeacher, few: Dataset, looked: dict, tmp_path: Path
) -> None:
    again = {image.id: arrays for image, arrays in quick.look(few.images[:3])}
    for id, arrays in again.items():
        assert all(np.array_equal(arrays[name], looked[id][name]) for name in ("boxes", "vectors"))
    save(tmp_path / "part", looked)
    assert np.array_equal(
        all_scores(quick.say(few, Looked([tmp_path / "part"]))), all_scores(quick.say(few, looked))
    )


def test_the_key_follows_what_is_seen_and_nothing_else(small_body: Detector) -> None:
    def key(**changes: object) -> str:
        return ImageLabelTeacher(small_body, replace(QUICK, **changes)).key

    assert key() == key(learning=LearningSettings(epochs=9))
    others = {
        key(),
        key(features=replace(QUICK.features, grid=1)),
        key(features=replace(QUICK.features, layers=("backbone.c2",))),
        key(regions=RegionSettings(most=20)),
        key(regions=RegionSettings(("objectness",))),
    }
    assert len(others) == 5
    default = ImageLabelTeacher(small_body)
    assert default.layers == ("backbone.c4",)
    assert (
        default.key
        == ImageLabelTeacher(small_body, ImageLabelSettings(features=FeatureSettings(("backbone.c4",)))).key
    )


def test_a_region_is_read_where_it_lies(small_body: Detector, few: Dataset) -> None:
    """The first cell of the whole picture is its upper left quarter, in pixels of the picture whatever size it is read at."""
    pixels = read_rgb(few.images[0].path)
    boxes = np.array([[0, 0, 96, 96], [0, 0, 48, 48]], np.float32)
    in_cells = region_vectors(small_body, pixels, boxes, FeatureSettings(("backbone.c2",), 192, 2, 1.0))
    plain = region_vectors(small_body, pixels, boxes, FeatureSettings(("backbone.c2",), 192, 1, 1.0))
    assert in_cells.shape[1] == 4 * plain.shape[1]
    assert np.allclose(in_cells[0, : plain.shape[1]], plain[1], atol=2e-2)
    assert not np.allclose(plain[0], plain[1], atol=2e-2)


def test_batches_do_not_mix_pictures(few: Dataset, looked: dict) -> None:
    still = LearningSettings(epochs=1, hidden=8, dropout=0.0, rate=1e-12)
    present = present_of(few, looked)
    losses = [learn(looked, present, replace(still, batch_size=size)).curves[0] for size in (1, 5, 24)]
    for other in losses[1:]:
        assert other == pytest.approx(losses[0], rel=1e-4)


def test_pictures_without_label_or_region_are_left_out_and_named(
    quick: ImageLabelTeacher, few: Dataset, looked: dict
) -> None:
    bare, blank = few.images[0].id, few.images[1].id
    kept = few.annotation_image_ids != bare
    thin = replace(few, annotation_image_ids=few.annotation_image_ids[kept], labels=few.labels[kept])
    empty = {name: array[:0] for name, array in looked[blank].items()}
    made = quick.say(thin, looked | {blank: empty})
    assert made.about["without_label"] == [bare]
    assert made.about["without_region"] == [blank]
    assert bare not in made.found
    assert len(made.found[blank].boxes) == 0
    assert len(made.about["warnings"]) == 2


def test_what_cannot_be_done_is_refused(
    quick: ImageLabelTeacher, small_body: Detector, few: Dataset, looked: dict
) -> None:
    def refused(dataset: Dataset, seen: dict, present: dict | None = None) -> str:
        with pytest.raises(Unteachable) as stopped:
            say_from(dataset, seen, present_of(dataset, seen) if present is None else present, QUICK)
        return stopped.value.code

    none = {id: {name: array[:0] for name, array in arrays.items()} for id, arrays in looked.items()}
    assert refused(few, none) == "no_proposals"
    assert refused(replace(few, annotation_image_ids=few.annotation_image_ids + 1000), looked) == "no_labels"
    assert refused(replace(few, categories=()), looked) == "unknown_class"
    lonely = {id: own & np.array([True, True, id == 1]) for id, own in present_of(few, looked).items()}
    lonely[1][2] = True
    assert refused(few, looked, lonely) == "lonely_class"
    settings = {
        "unknown_layer": {"features": FeatureSettings(("backbone.c9",))},
        "unknown_proposals": {"regions": RegionSettings(("guessed",))},
        "no_attention": {"regions": RegionSettings(("cuts",))},
        "bad_settings": {"learning": LearningSettings(epochs=0)},
    }
    for code, change in settings.items():
        with pytest.raises(Unteachable) as stopped:
            ImageLabelTeacher(small_body, replace(QUICK, **change))
        assert stopped.value.code == code
    with pytest.raises(Unteachable, match="at least one"):
        ImageLabelTeacher(small_body, replace(QUICK, regions=RegionSettings(())))


def test_a_class_in_every_picture_is_pointed_at(few: Dataset, looked: dict) -> None:
    present = {id: own | np.array([True, False, False]) for id, own in present_of(few, looked).items()}
    assert few.categories[0] in say_from(few, looked, present, QUICK).about["warnings"][0]
