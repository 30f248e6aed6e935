"""Self-training: a detector that was fine-tuned labels the pictures without labels, and a student learns from both.

After "A simple semi-supervised learning framework for object detection" (STAC, arXiv 2005.04757): pseudo boxes above a
confidence, a student under stronger augmentation. The confidence is chosen on validation instead of fixed. With a mean teacher,
after "Unbiased teacher for semi-supervised object detection" (arXiv 2102.09480): the teacher's boxes stand for a first
part of the training, then the mean of the student's weights says those of each batch.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from models_store.detector import Detector
from models_store.sizes import Size
from worker.data.dataset import Dataset, Image
from worker.evaluation.prediction import Prediction
from worker.pseudo_boxes.detector import DetectorTeacher
from worker.pseudo_boxes.geometry import above, plausible
from worker.pseudo_boxes.pseudo_boxes import Arrays, Unteachable, Watching
from worker.training.inputs import Renewal
from worker.training.plan import Plan
from worker.training.recipe import Augmentation

Look = Callable[[DetectorTeacher, list[Image], Watching], Mapping[int, Arrays]]
# of the iterations, before which a student knows less than its teacher
RENEWED_FROM = 1 / 3
MEAN_DECAY = 0.999
STRONGER = Augmentation(flip=0.5, scales=(0.7, 0.8, 0.9, 1.0), crop=0.5, crop_least=0.6, colour=0.4)


@dataclass(frozen=True)
class PseudoLabelled:
    """`dataset`: with pseudo boxes in place of the labels of `image_ids`, those pictures that got any.

    `annotation_ids`: what a student learns from, labels and pseudo boxes. `confidence`: what a box needed; `f1`: on validation
    with it; `boxes`: how many there are.
    """

    dataset: Dataset
    image_ids: tuple[int, ...]
    annotation_ids: tuple[int, ...]
    confidence: float
    f1: float | None
    boxes: int

    def to_json(self) -> dict[str, Any]:
        return {
            "confidence": self.confidence,
            "f1": self.f1,
            "boxes": self.boxes,
            "pictures": len(self.image_ids),
        }


def looked_at(teacher: DetectorTeacher, images: list[Image], watching: Watching) -> dict[int, Arrays]:
    """What the teacher sees in the pictures, by image id. Raises BadPicture."""
    return {image.id: arrays for image, arrays in teacher.look(images, watching)}


def pseudo_labelled(
    teacher: Detector,
    dataset: Dataset,
    *,
    labelled_ids: Sequence[int],
    unlabelled_ids: Sequence[int],
    val_ids: Sequence[int],
    image_size: Size | None,
    classes: Mapping[int, int] | None = None,
    watching: Watching = Watching(),
    look: Look = looked_at,
) -> PseudoLabelled:
    """What the teacher finds in the pictures of `unlabelled_ids`; their own boxes are not looked at.

    `classes`: its class to the dataset's category, both from 0; None: it has the dataset's. `look`: gives what it sees, such as
    from a file where it has looked before.

    Raises Unteachable: `no_objects` without boxes to choose the confidence by, `no_pseudo_boxes` where the teacher
    finds nothing that counts.
    """
    if dataset.supervision not in ("boxes", "masks"):
        raise Unteachable("no_objects", "self-training needs labelled pictures to choose its confidence by")
    asked = {*unlabelled_ids, *val_ids}
    images = [image for image in dataset.images if image.id in asked]
    if classes is None:
        classes = {label: label for label in range(len(dataset.categories))}
    asks = DetectorTeacher(teacher, classes, image_size)
    said = asks.say(dataset, look(asks, images, watching), watching)
    kept = [said.found[id] for id in sorted(unlabelled_ids) if len(said.found[id].boxes)]
    if not kept:
        raise Unteachable(
            "no_pseudo_boxes",
            "the teacher finds nothing in the pictures without labels: it has too little to teach",
        )
    return _with(dataset, labelled_ids, kept, said.about)


def with_unlabelled(
    dataset: Dataset, images: Sequence[Image], digest: str
) -> tuple[Dataset, tuple[int, ...]]:
    """(the dataset with more training pictures, which have no labels, the ids that they get in it).

    `digest`: of the dataset that the pictures are of.
    """
    first = max((image.id for image in dataset.images), default=0) + 1
    more = tuple(replace(image, id=first + n, split="train") for n, image in enumerate(images))
    whole = json.dumps([dataset.digest, digest, [image.id for image in images]])
    joined = replace(
        dataset,
        images=(*dataset.images, *more),
        digest=hashlib.sha256(whole.encode()).hexdigest(),
    )
    return joined, tuple(image.id for image in more)


def student_plan(plan: Plan, images: int, *, mean_teacher: bool = False) -> Plan:
    """The plan of the student: the teacher's under stronger augmentation, over the pictures of both.

    mean_teacher: from RENEWED_FROM of its iterations on its own averaged weights say the pseudo boxes.
    """
    made = replace(plan, images=images, recipe=replace(plan.recipe, augmentation=STRONGER))
    return replace(made, renewed_from=RENEWED_FROM, ema=made.ema or MEAN_DECAY) if mean_teacher else made


def mean_teaching(lesson: PseudoLabelled) -> Renewal:
    """What a mean teacher says of the pictures that have pseudo boxes: above the confidence of the first teacher."""

    def objects(found: Prediction) -> Prediction:
        return above(plausible(found), lesson.confidence)

    return Renewal(frozenset(lesson.image_ids), objects)


def _with(
    dataset: Dataset,
    labelled_ids: Sequence[int],
    kept: Sequence[Prediction],
    about: dict[str, Any],
) -> PseudoLabelled:
    pseudo = {each.image_id for each in kept}
    real = ~np.isin(dataset.annotation_image_ids, list(pseudo))
    counts = [len(each.boxes) for each in kept]
    first = int(dataset.annotation_ids.max(initial=0)) + 1
    ids = np.arange(first, first + sum(counts))
    joined = replace(
        dataset,
        supervision="boxes",
        segmentations=None,
        ignored=None
        if dataset.ignored is None
        else np.concatenate([dataset.ignored[real], np.zeros(len(ids), bool)]),
        annotation_ids=np.concatenate([dataset.annotation_ids[real], ids]),
        annotation_image_ids=np.concatenate(
            [dataset.annotation_image_ids[real], np.repeat([each.image_id for each in kept], counts)]
        ),
        labels=np.concatenate([dataset.labels[real], *(each.labels for each in kept)]),
        boxes=np.concatenate([dataset.boxes[real], *(each.boxes for each in kept)]),
        iscrowd=np.concatenate([dataset.iscrowd[real], np.zeros(len(ids), bool)]),
    )
    own = np.isin(dataset.annotation_image_ids, list(labelled_ids))
    return PseudoLabelled(
        joined,
        tuple(sorted(pseudo)),
        tuple(np.concatenate([dataset.annotation_ids[own], ids]).tolist()),
        about["confidence"],
        about["f1_on_validation"],
        len(ids),
    )
