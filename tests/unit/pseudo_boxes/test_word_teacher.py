"""The teacher `words`: which prompt is of which class, which answers become boxes, and what a look depends on."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from knowing import of, split

from models_store.open_vocabulary.detector import load_open_vocabulary
from models_store.open_vocabulary.families import FAMILIES
from models_store.open_vocabulary.said import Said
from tests import open_vocabulary_models as small
from worker.data.batches import read_checked
from worker.data.dataset import Dataset
from worker.pseudo_boxes.pseudo_boxes import PseudoBoxes, Unteachable, Watching
from worker.pseudo_boxes.words import WordSettings, WordTeacher


class Answering:
    """Knows the objects: those of the first class answer the first prompt; says each twice, and one more outside of the picture."""

    def __init__(self, dataset: Dataset, family: str = "owlv2", texts: float = 0.9) -> None:
        self.dataset, self.family, self.texts = dataset, FAMILIES[family], texts
        self.module = torch.nn.Linear(1, 1)
        self.manifest: Any = SimpleNamespace(weights_sha256="0" * 64, options={"preprocessor": {}})
        self.asked: list[str] = []
        self.looks = 0

    def prompt_for(self, name: str) -> str:
        return self.family.template.format(name)

    def ask(self, prompts: Sequence[str]) -> Any:
        self.asked = list(prompts)
        return SimpleNamespace(texts=1)

    def look(self, pictures: Sequence[np.ndarray], asked: Any, image_size: int | None = None) -> list[Said]:
        made = []
        for pixels in pictures:
            self.looks += 1
            # found again by what is in it
            image = next(each for each in self.dataset.images if self._same(each, pixels))
            own = of(self.dataset, image.id)
            boxes, labels = self.dataset.boxes[own], self.dataset.labels[own]
            rows = np.concatenate([boxes, boxes + 1, boxes[:1] - 90])
            prompts = np.concatenate([labels, labels, [0]]) % len(self.asked)
            scores = np.array([0.9, 0.8, 0.7, 0.6, 0.05])
            made.append(
                Said(
                    torch.tensor(rows, dtype=torch.float32),
                    torch.tensor(scores, dtype=torch.float32),
                    torch.full((len(rows),), self.texts),
                    torch.tensor(prompts),
                )
            )
        return made

    def _same(self, image: Any, pixels: np.ndarray) -> bool:
        return bool((read_checked(image) == pixels).all())


def said(teacher: WordTeacher, dataset: Dataset, ids: Sequence[int]) -> PseudoBoxes:
    images = [image for image in dataset.images if image.id in ids]
    looked = {image.id: arrays for image, arrays in teacher.look(images, Watching())}
    assert sorted(looked) == sorted(ids)
    return teacher.say(dataset, looked, Watching())


def test_each_object_once_under_the_class_whose_prompt_it_answers(toy: Dataset) -> None:
    detector = Answering(toy)
    teacher = WordTeacher(detector, toy.categories, {"blue": [], "red": ["crimson", "ruby", "ruby"]})
    assert detector.asked == ["crimson", "ruby", "a photo of a blue"]
    ids = split(toy, "train")[:5]
    found = said(teacher, replace(toy, supervision="none"), ids)
    for id in ids:
        # objects answer the first and the second prompt, both of red
        assert found.found[id].labels.tolist() == [0, 0]
        np.testing.assert_allclose(found.found[id].boxes, toy.boxes[of(toy, id)])
        np.testing.assert_allclose(found.found[id].scores, [0.9, 0.8])
    assert found.about["confidence"] == 0.1
    assert found.about["prompts"] == {"red": ["crimson", "ruby"], "blue": ["a photo of a blue"]}
    assert found.about["removed"]["duplicates"] == 10
    assert found.about["warnings"] == ["no box answers the words for blue"]


def test_what_becomes_a_box_follows_from_the_settings_without_another_look(toy: Dataset) -> None:
    bare, ids = replace(toy, supervision="none"), split(toy, "train")[:3]
    words = {"red": [], "blue": []}

    def boxes(family: str = "owlv2", texts: float = 0.9, **settings: Any) -> int:
        teacher = WordTeacher(Answering(toy, family, texts), toy.categories, words, WordSettings(**settings))
        keys.add(teacher.key)
        return said(teacher, bare, ids).boxes

    keys: set[str] = set()
    assert boxes() == 6
    assert boxes(confidence=0.85) == 3
    assert boxes(overlap=0.99) == 12
    assert boxes(most_boxes=1) == 3
    assert boxes(confidence=0.0) == 6  # what lies outside the picture is no box
    assert len(keys) == 1
    # of a phrase its own best token must be sure, too; other families have one score
    with pytest.raises(Unteachable, match="give a lower confidence"):
        boxes("grounding-dino", texts=0.2)
    assert boxes("grounding-dino", texts=0.2, text_threshold=0.1) == 6
    assert boxes("owlv2", texts=0.2) == 6


def test_the_confidence_is_chosen_where_people_drew_boxes(toy: Dataset) -> None:
    teacher = WordTeacher(Answering(toy), toy.categories, {"red": [], "blue": []})
    found = said(teacher, toy, split(toy, "train")[:2] + split(toy, "val"))
    assert found.about["f1_on_validation"] == 1.0
    assert found.about["confidence"] == 0.8


def test_image_labels_rule_out_other_classes_unless_all_are_asked_for(toy: Dataset) -> None:
    only_red = toy.labels == 0
    labelled = replace(
        toy,
        supervision="image_labels",
        annotation_ids=toy.annotation_ids[only_red],
        annotation_image_ids=toy.annotation_image_ids[only_red],
        labels=toy.labels[only_red],
        boxes=toy.boxes[only_red],
        iscrowd=toy.iscrowd[only_red],
    )
    ids = split(toy, "train")[:3]
    words = {"red": [], "blue": []}
    detector = Answering(toy)
    assert {
        n
        for each in said(WordTeacher(detector, toy.categories, words), labelled, ids).found.values()
        for n in each.labels
    } == {0}
    every = WordTeacher(detector, toy.categories, words, WordSettings(all_classes=True))
    assert {n for each in said(every, labelled, ids).found.values() for n in each.labels} == {0, 1}


def test_a_look_depends_on_words_and_size_alone(toy: Dataset) -> None:
    def key(words: dict[str, list[str]], size: int | None = None) -> str:
        return WordTeacher(Answering(toy), toy.categories, words, WordSettings(), size).key

    first = key({"red": [], "blue": []})
    others = [key({"red": ["crimson"], "blue": []}), key({"red": []}), key({"red": [], "blue": []}, 64)]
    assert len({first, *others}) == 4
    assert key({"blue": [], "red": []}) == first
    assert key({"red": [], "blue": []}) == first


def test_words_that_say_nothing_apart_are_refused(toy: Dataset) -> None:
    for words, code in (
        ({"green": []}, "unknown_class"),
        ({"red": ["a Thing"], "blue": ["a  thing."]}, "same_prompt"),
    ):
        with pytest.raises(Unteachable) as refusal:
            WordTeacher(Answering(toy), toy.categories, words)
        assert refusal.value.code == code


@pytest.mark.parametrize("family", ["grounding-dino", "owlv2"])
def test_a_real_module_looks_at_pictures_in_batches_alike(family: str, toy: Dataset, tmp_path: Path) -> None:
    detector = load_open_vocabulary(small.converted(tmp_path, small.saved(family, tmp_path / "model")))
    size = 48 if family == "grounding-dino" else None
    teacher = WordTeacher(detector, toy.categories, {"red": ["red square"], "blue": []}, image_size=size)
    images = list(toy.images[:6])
    together = {image.id: arrays for image, arrays in teacher.look(images)}
    alone = {image.id: arrays for each in images for image, arrays in teacher.look([each])}
    for id, arrays in together.items():
        np.testing.assert_allclose(arrays["scores"], alone[id]["scores"], atol=1e-5)
        assert arrays["boxes"].min() >= 0
        assert arrays["boxes"].max() <= 64
        assert set(arrays["labels"].tolist()) <= {0, 1}
    assert (
        teacher.key != WordTeacher(detector, toy.categories, {"red": ["red square"], "blue": []}).key
        or size is None
    )
