"""A verification that also learns from what a teacher says of pictures without labels (self-training).

These are the training images that its subset leaves out and, with `unlabelled_dataset_id`, those of another dataset.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

import models_store
from app.db import tables
from app.errors import VerificationFailed
from models_store.detector import Detector
from worker.attempt import Attempt
from worker.data.dataset import Dataset, Image, open_dataset
from worker.data.subsets import Subset
from worker.device import choose_device
from worker.handlers.datasets import dataset_folder, every_image
from worker.handlers.inputs import checkpoint_folder, ready
from worker.handlers.ranking import feature_files
from worker.pretraining.held_out import allowed, digest_of, digests_measured_on
from worker.pseudo_boxes.detector import DetectorTeacher
from worker.pseudo_boxes.looked import Looked, key_of, save
from worker.pseudo_boxes.pseudo_boxes import Arrays, Unteachable, Watching
from worker.pseudo_boxes.self_training import looked_at, mean_teaching, pseudo_labelled, with_unlabelled
from worker.training.examples import with_validation
from worker.training.inputs import Renewal


@dataclass(frozen=True)
class Lesson:
    """`dataset`: with pseudo boxes; `subset`: what is learned from in it; `val_ids`: what chooses the best weights, with true boxes.

    `about`: what the teacher came to. `renewal`: how pseudo boxes are said anew, None where they stand.
    """

    dataset: Dataset
    subset: Subset
    val_ids: list[int]
    about: dict[str, Any]
    renewal: Renewal | None


def teacher_id_of(row: tables.Verification) -> str | None:
    """The checkpoint that teaches; None for what learns from labels alone."""
    return row.request.get("teacher_checkpoint_id")


def taught(
    attempt: Attempt,
    stack: ExitStack,
    row: tables.Verification,
    dataset: Dataset,
    subset: Subset,
    val_ids: Sequence[int],
    folder: Path,
) -> Lesson:
    """What a student learns from, and is chosen by: of `val_ids`, without any of a tenth of the labelled images.

    The labels of the images that the subset leaves out are not looked at, nor those of another dataset, whose files stay as
    long as `stack` is open. Raises Unteachable.
    """
    id = teacher_id_of(row)
    if id is None:
        raise AssertionError("nobody teaches")
    checkpoint = ready(attempt, tables.Checkpoint, id, VerificationFailed)
    teacher = _loaded(attempt, checkpoint, folder)
    names = {name: label for label, name in enumerate(dataset.categories)}
    classes = {
        index: names[name] for index, name in enumerate(teacher.manifest.class_names or ()) if name in names
    }
    dataset, left_out = _with_another(attempt, stack, row, dataset)
    # drawn here, where it is known who has labels: pseudo boxes must not choose
    labelled_ids, val_ids, _ = with_validation(subset.image_ids, val_ids, row.request["seed"])
    labelled = set(labelled_ids)
    unlabelled = [
        image.id
        for image in dataset.images
        if image.split == "train" and image.id not in {*labelled, *val_ids}
    ]
    if not unlabelled:
        raise Unteachable(
            "no_unlabelled",
            "no training picture is without labels, so there is nothing to be taught: give a label_fraction, or pictures that "
            "are not in the labelled dataset",
        )

    def look(asks: DetectorTeacher, images: list[Image], watching: Watching) -> Mapping[int, Arrays]:
        return _looked_once(attempt, dataset, asks, images, watching, folder)

    made = pseudo_labelled(
        teacher,
        dataset,
        labelled_ids=labelled_ids,
        unlabelled_ids=unlabelled,
        val_ids=val_ids,
        image_size=row.request["image_size"],
        classes=classes,
        watching=Watching(attempt.progress, attempt.check, attempt.log, attempt.settings.decode_threads),
        look=look,
    )
    others = [image.id for image in dataset.images if image.split != "train"]
    measured = dataset.annotation_ids[np.isin(dataset.annotation_image_ids, others)]
    learned = set(made.annotation_ids)
    if subset.annotation_ids is not None:
        own = dataset.annotation_ids[np.isin(dataset.annotation_image_ids, labelled_ids)]
        learned -= set(own.tolist()) - set(subset.annotation_ids)
    extended = replace(
        subset,
        image_ids=tuple(sorted({*labelled_ids, *made.image_ids})),
        annotation_ids=tuple(sorted({*learned, *measured.tolist()})),
    )
    about = {
        "checkpoint_id": checkpoint.id,
        "name": checkpoint.name,
        **made.to_json(),
        "labelled_pictures": len(labelled),
        "unlabelled_pictures": len(unlabelled),
        "equal_content": left_out,
    }
    mean = bool(row.request.get("mean_teacher"))
    return Lesson(made.dataset, extended, val_ids, about, mean_teaching(made) if mean else None)


def _loaded(attempt: Attempt, checkpoint: tables.Checkpoint, folder: Path) -> Detector:
    teacher = models_store.load_detector(checkpoint_folder(attempt, checkpoint, folder / "teacher"))
    teacher.module.to(choose_device(attempt.settings.device))
    return teacher


def _with_another(
    attempt: Attempt, stack: ExitStack, row: tables.Verification, dataset: Dataset
) -> tuple[Dataset, int]:
    """(the dataset with the training pictures of the unlabelled one, how many of these were left out).

    Left out are pictures with the content of one that is measured on, by either dataset, or that has labels.
    """
    id = row.request.get("unlabelled_dataset_id")
    if id is None:
        return dataset, 0
    record = ready(attempt, tables.Dataset, id, VerificationFailed)
    other = open_dataset(stack.enter_context(dataset_folder(attempt, record, every_image)))
    forbidden = digests_measured_on([other], attempt.check)
    for image in dataset.images:
        attempt.check()
        forbidden.add(digest_of(image.path))
    theirs = [image for image in other.images if image.split == "train"]
    kept = allowed(theirs, forbidden, attempt.check)
    return with_unlabelled(dataset, kept, other.digest)[0], len(theirs) - len(kept)


def _looked_once(
    attempt: Attempt,
    dataset: Dataset,
    teacher: DetectorTeacher,
    images: list[Image],
    watching: Watching,
    folder: Path,
) -> Mapping[int, Arrays]:
    """What the teacher sees, kept in storage: another attempt goes on with the same boxes, and looks at nothing again."""
    ids = hashlib.sha256(json.dumps([image.id for image in images]).encode()).hexdigest()
    key = key_of(dataset.digest, f"{teacher.key}/{ids}", 0, 1)
    path = feature_files.fetch(attempt, key, folder / "looked")
    if path is None:
        path = folder / "looked.safetensors"
        save(path, looked_at(teacher, images, watching))
        feature_files.keep(attempt, key, path)
    else:
        attempt.log("these pictures have been looked at before")
    return Looked([path])
