"""What the jobs of a pseudo-labelling read, and the teacher that a request names."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from sqlalchemy.orm import Session

import models_store
from app.db import tables
from app.errors import NotFound, PseudoLabellingFailed
from models_store.detector import Detector
from worker.attempt import Attempt, ClaimedJob
from worker.data.dataset import Dataset, Image
from worker.device import choose_device
from worker.handlers.inputs import checkpoint_folder, manifest_of, ready
from worker.models import models
from worker.pseudo_boxes.detector import DetectorTeacher
from worker.pseudo_boxes.image_label_detr import DetrSettings, DetrTeacher
from worker.pseudo_boxes.image_label_teacher import ImageLabelSettings, ImageLabelTeacher
from worker.pseudo_boxes.pseudo_boxes import Looking, Teacher, Watching
from worker.pseudo_boxes.words import WordSettings, WordTeacher


def row_of(session: Session, job: ClaimedJob) -> tables.PseudoLabelling:
    """Raises NotFound."""
    row = session.get(tables.PseudoLabelling, job.resource_id)
    if row is None:
        raise NotFound(f"the pseudo-labelling {job.resource_id} is gone")
    return row


def teacher_of(attempt: Attempt, asked: Mapping[str, Any], folder: Path) -> Teacher | DetrTeacher:
    """Raises NotFound, PseudoLabellingFailed, Unusable, Unteachable."""
    if asked.get("form") == "detr":
        return _detr_teacher(attempt, asked, folder)
    if asked["teacher"] == "words":
        return _word_teacher(attempt, asked, folder)
    detector = _loaded(attempt, asked["checkpoint_id"], folder)
    if asked["teacher"] == "image_labels":
        return ImageLabelTeacher(detector, _image_label_settings(asked), seed=asked["seed"])
    names = detector.manifest.class_names or ()
    places = {name: label for label, name in enumerate(asked["categories"])}
    classes = {
        index: places[asked["classes"][name]] for index, name in enumerate(names) if name in asked["classes"]
    }
    return DetectorTeacher(detector, classes, asked["image_size"], asked["confidence"])


def _detr_teacher(attempt: Attempt, asked: Mapping[str, Any], folder: Path) -> DetrTeacher:
    """With a copy of the checkpoint of its own: it may be that detector itself that learns."""
    checkpoint = ready(attempt, tables.Checkpoint, asked["checkpoint_id"], PseudoLabellingFailed)
    own = models_store.load_detector(checkpoint_folder(attempt, checkpoint, folder / "checkpoint"))
    usual = DetrSettings()
    settings = replace(
        usual,
        regions=replace(usual.regions, methods=tuple(asked["proposals"] or usual.regions.methods)),
        model_type=asked["architecture"],
        config=asked["config"],
        image_size=asked["image_size"] or usual.image_size,
        epochs=asked["epochs"],
        batch_size=asked["batch_size"],
        least_pictures=asked.get("least_pictures") or usual.least_pictures,
    )
    return DetrTeacher(own, settings, seed=asked["seed"])


def _image_label_settings(asked: Mapping[str, Any]) -> ImageLabelSettings:
    """The library's own settings, but for what the request names."""
    usual = ImageLabelSettings()
    features, learning = usual.features, usual.learning
    return replace(
        usual,
        regions=replace(usual.regions, methods=tuple(asked["proposals"] or usual.regions.methods)),
        features=replace(
            features,
            layers=tuple(asked["layers"] or features.layers),
            image_size=asked["image_size"] or features.image_size,
        ),
        learning=replace(learning, epochs=asked["epochs"] or learning.epochs),
        # a request from before it could be asked for has none
        least_pictures=asked.get("least_pictures") or usual.least_pictures,
    )


def looked_at(dataset: Dataset, asked: Mapping[str, Any]) -> list[Image]:
    """The pictures that the teacher sees: those that get pseudo boxes, and those that a confidence is chosen on."""
    splits = set(asked["splits"])
    chooses = asked["teacher"] in ("detector", "words") and asked["confidence"] is None
    if chooses and dataset.supervision in ("boxes", "masks"):
        splits.add("val")
    return [image for image in dataset.images if image.split in splits]


def look_key(teacher: Looking, images: list[Image]) -> str:
    """The teacher's key, with the pictures that are divided into parts."""
    return f"{teacher.key}/{len(images)}/{'-'.join(sorted({image.split for image in images}))}"


def watching(attempt: Attempt) -> Watching:
    return Watching(attempt.progress, attempt.check, attempt.log, attempt.settings.decode_threads)


def _word_teacher(attempt: Attempt, asked: Mapping[str, Any], folder: Path) -> WordTeacher:
    """The library's own settings, but for what the request names."""
    usual = WordSettings()
    settings = WordSettings(
        confidence=asked["confidence"],
        text_threshold=_given(asked["text_threshold"], usual.text_threshold),
        overlap=_given(asked["overlap"], usual.overlap),
        most_boxes=_given(asked["max_boxes"], usual.most_boxes),
        all_classes=bool(asked["all_classes"]),
    )
    checkpoint, path = _files(attempt, asked["checkpoint_id"], folder)
    detector = models().open_vocabulary(path, manifest_of(checkpoint), **_place(attempt))
    return WordTeacher(detector, asked["categories"], asked["words"], settings, asked["image_size"])


def _given(value: Any, usual: Any) -> Any:
    return usual if value is None else value


def _loaded(attempt: Attempt, checkpoint_id: str, folder: Path) -> Detector:
    checkpoint, path = _files(attempt, checkpoint_id, folder)
    return models().load(path, manifest_of(checkpoint), **_place(attempt))


def _files(attempt: Attempt, checkpoint_id: str, folder: Path) -> tuple[tables.Checkpoint, Path]:
    checkpoint = ready(attempt, tables.Checkpoint, checkpoint_id, PseudoLabellingFailed)
    return checkpoint, checkpoint_folder(attempt, checkpoint, folder / "checkpoint")


def _place(attempt: Attempt) -> dict[str, Any]:
    settings = attempt.settings
    return {"device": choose_device(settings.device), "max_bytes": settings.model_cache_bytes}
