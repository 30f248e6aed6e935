"""Pictures and plots of a pseudo-labelling, in storage."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from app.db.documents import StoredFile
from models_store.detr.attention import READ, looked_at
from worker.attempt import Attempt
from worker.data.batches import read_checked
from worker.data.dataset import Dataset
from worker.data.drawing import short
from worker.evaluation.prediction import Prediction
from worker.handlers.results import keep_file
from worker.pseudo_boxes.attention import tokens_of
from worker.pseudo_boxes.image_label_detr import DetrTeacher, LearnedDetector
from worker.pseudo_boxes.image_label_teacher import ImageLabelTeacher
from worker.pseudo_boxes.pictures import attention_on, beside_truth, calibration_plot, regions_on
from worker.pseudo_boxes.pseudo_boxes import Looking
from worker.pseudo_boxes.regions import CUTS
from worker.pseudo_boxes.truth import Truth
from worker.pseudo_boxes.worth import Weighed

SHOWN = 8


def shown(
    attempt: Attempt,
    dataset: Dataset,
    categories: tuple[str, ...],
    found: Mapping[int, Prediction],
    truth: Truth | None,
    folder: Path,
) -> list[StoredFile]:
    """Pictures with boxes, evenly from the surest to the most doubtful, beside true boxes where these are known."""
    with_boxes = [(float(each.scores.mean()), id) for id, each in found.items() if len(each.boxes)]
    order = [id for _, id in sorted(with_boxes, reverse=True)]
    places = {round(place) for place in np.linspace(0, len(order) - 1, SHOWN).tolist()} if order else set()
    images = {image.id: image for image in dataset.images}
    files = []
    for place in sorted(places):
        image = images[order[place]]
        path = folder / f"image-{image.id}.png"
        beside_truth(read_checked(image), found[image.id], categories, _true(truth, image.id), path)
        beside = "" if truth is None or image.id not in truth.ids else ", beside the true ones"
        title = f"image {image.id}: pseudo boxes with their scores{beside}"
        files.append(_file(attempt, path, title, {"image_id": image.id, "boxes": len(found[image.id].boxes)}))
        attempt.check()
    return files


def proposals_of(
    attempt: Attempt,
    dataset: Dataset,
    looked: Mapping[int, Mapping[str, np.ndarray]],
    image_ids: Sequence[int],
    folder: Path,
) -> list[StoredFile]:
    """The same pictures with the regions that were searched in them; none of a teacher that does not search."""
    images = {image.id: image for image in dataset.images}
    files = []
    for id in image_ids:
        arrays = looked[id]
        if "scores" in arrays:  # what a detector found is no proposal
            continue
        path = folder / f"proposals-{id}.png"
        regions_on(read_checked(images[id]), arrays["boxes"], path)
        title = f"image {id}: {len(arrays['boxes'])} regions that may hold an object"
        files.append(_file(attempt, path, title, {"image_id": id, "proposals": len(arrays["boxes"])}))
        attempt.check()
    return files


def attention_of(
    attempt: Attempt,
    dataset: Dataset,
    teacher: Looking,
    learned: LearnedDetector | None,
    image_ids: Sequence[int],
    folder: Path,
) -> list[StoredFile]:
    """Where the transformer whose attention is cut looks in the same pictures, and where the surest query of a detector that
    learned does; none of a teacher that has neither."""
    images = {image.id: image for image in dataset.images}
    files = []
    for id in image_ids:
        pixels = read_checked(images[id])
        if isinstance(teacher, ImageLabelTeacher | DetrTeacher) and CUTS in teacher.settings.regions.methods:
            tokens = tokens_of(teacher.backbone, pixels, max(teacher.settings.regions.cuts.scales))
            path = attention_on(pixels, tokens.attention, folder / f"attention-{id}.png")
            title = f"image {id}: attention of the body, which is cut"
            files.append(_file(attempt, path, title, {"image_id": id, "attention": "body"}))
        if learned is not None and learned.detector.family.model_type in READ:
            found = looked_at(learned.detector, pixels, learned.image_size)
            name = short((learned.detector.manifest.class_names or ())[found.label])
            path = folder / f"query-attention-{id}.png"
            attention_on(pixels, found.attention, path, (found.box, f"{name} {found.score:.2f}"))
            title = f"image {id}: what the detector's surest query looks at, and its box"
            files.append(_file(attempt, path, title, {"image_id": id, "attention": "query"}))
        attempt.check()
    return files


def plots(attempt: Attempt, worth: Weighed | None, folder: Path) -> list[StoredFile]:
    if worth is None or not worth.quality["calibration"]["bins"]:
        return []
    path = calibration_plot(worth.quality["calibration"], folder / "calibration.png")
    return [_file(attempt, path, "whether a score is the share of such boxes that are right", {})]


def _true(truth: Truth | None, image_id: int) -> tuple[np.ndarray, np.ndarray] | None:
    """Boxes and labels of a picture, in the categories of what was said."""
    if truth is None or image_id not in truth.ids:
        return None
    back = {there: here for here, there in truth.labels.items()}
    own = (truth.dataset.annotation_image_ids == truth.ids[image_id]) & np.isin(
        truth.dataset.labels, list(back)
    )
    labels = np.array([back[label] for label in truth.dataset.labels[own].tolist()], np.int64)
    return truth.dataset.boxes[own], labels


def _file(attempt: Attempt, path: Path, title: str, about: dict[str, Any]) -> StoredFile:
    kept = keep_file(attempt, path, "image/png")
    return {"sha256": kept, "file_name": path.name, "media_type": "image/png", "title": title, "about": about}
