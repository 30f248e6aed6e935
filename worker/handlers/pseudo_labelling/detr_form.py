"""The form `detr` of the teacher `image_labels`: a detector learns on the way, goes on after a kill, and becomes a checkpoint."""

from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy.orm import Session

import models_store
from app.db import tables
from app.errors import PseudoLabellingFailed
from models_store.manifest import WEIGHTS_FILE
from models_store.save import save_detector
from worker.attempt import Attempt
from worker.data.dataset import Dataset
from worker.device import choose_device
from worker.evaluation.evaluate import evaluate
from worker.handlers.pretraining.registered import register
from worker.handlers.results import keep_file
from worker.handlers.verification.training_report import TrainingReport
from worker.handlers.verification.training_state import StateKeeper, restore
from worker.models import models
from worker.pseudo_boxes.image_label_detr import DetrTeacher, LearnedDetector
from worker.pseudo_boxes.looked import Looked
from worker.pseudo_boxes.truth import Truth, own_truth
from worker.training.inputs import Host, Watch
from worker.training.pictures import Pictures
from worker.training.validate import predictions_of

MOST_BETWEEN_STATES_S = 60.0
METHOD = "image_labels_detr"


@dataclass(frozen=True)
class KeptDetector:
    """The detector's weights in storage. `worth`: what it finds by itself, None where no true box is known."""

    manifest: models_store.Manifest
    weights_sha256: str
    worth: dict[str, Any] | None


def learned(
    attempt: Attempt,
    stack: ExitStack,
    row: tables.PseudoLabelling,
    dataset: Dataset,
    looked: Looked,
    teacher: DetrTeacher,
    folder: Path,
) -> LearnedDetector:
    """Learns from where the last attempt's state stands. Raises what `DetrTeacher.teach` does."""
    models().forget()  # the whole device is needed
    report = TrainingReport(attempt, row.id, tables.PseudoLabelling)
    state = folder / "state"
    if restore(attempt, row, state):
        attempt.log(f"learning goes on from iteration {row.state_iteration}")
    keeper = stack.enter_context(StateKeeper(attempt, row.id, state, folder, tables.PseudoLabelling))
    report.stage("teaching")
    settings = attempt.settings
    host = Host(
        choose_device(settings.device),
        settings.decode_threads,
        min(settings.training_state_s, MOST_BETWEEN_STATES_S),
    )
    made = teacher.teach(
        dataset,
        looked,
        state,
        host,
        Watch(report.progress, attempt.check, keeper.saved, report.point, attempt.log),
    )
    report.tell()
    return made


def kept(
    attempt: Attempt,
    row: tables.PseudoLabelling,
    dataset: Dataset,
    teacher: DetrTeacher,
    made: LearnedDetector,
    truth: Truth | None,
    folder: Path,
) -> KeptDetector:
    """Measures the detector where true boxes are known, and stores its weights. Raises PseudoLabellingFailed."""
    worth = _worth(attempt, row.request, dataset, teacher, made, truth)
    try:
        manifest = save_detector(
            made.detector,
            folder / "saved",
            class_names=dataset.categories,
            lineage=_lineage(row, dataset, teacher, made, worth),
            image_size=teacher.settings.image_size,
        )
    except models_store.Unusable as refusal:
        raise PseudoLabellingFailed(refusal.detail, code=refusal.code) from refusal
    sha256 = keep_file(attempt, folder / "saved" / WEIGHTS_FILE, "application/octet-stream")
    return KeptDetector(manifest, sha256, worth)


def registered(session: Session, row: tables.PseudoLabelling, found: KeptDetector) -> str:
    """A checkpoint that is ready; its id."""
    asked = row.request
    parent = session.get(tables.Checkpoint, asked["checkpoint_id"])
    return register(
        session,
        row,
        found.manifest,
        found.weights_sha256,
        name=f"{asked['checkpoint_name']}, taught by the image labels of {asked['dataset_name']}",
        licence=None if parent is None else parent.licence,
    )


def _worth(
    attempt: Attempt,
    asked: dict[str, Any],
    dataset: Dataset,
    teacher: DetrTeacher,
    made: LearnedDetector,
    truth: Truth | None,
) -> dict[str, Any] | None:
    """Of pictures that it has not learned from, where people drew boxes in some; else of those whose truth is known."""
    where, measured = "pictures that it learned from", truth
    others = [image.id for image in dataset.images if image.split not in asked["splits"]]
    if others and dataset.supervision in ("boxes", "masks"):
        where, measured = "pictures that it has not seen", own_truth(dataset, others)
    if measured is None:
        return None
    images = [image for image in dataset.images if image.id in measured.ids]
    attempt.stage("measuring")
    with Pictures() as pictures:
        found = predictions_of(
            made.detector,
            images,
            pictures,
            teacher.settings.image_size,
            threads=attempt.settings.decode_threads,
            check=attempt.check,
        )
    told = evaluate(
        measured.dataset, measured.image_ids, measured.of({each.image_id: each for each in found})
    )
    return {
        "measured_on": where,
        "pictures": len(images),
        "map": told.map,
        "ap50": told.box["ap50"],
        "corloc": told.corloc,
    }


def _lineage(
    row: tables.PseudoLabelling,
    dataset: Dataset,
    teacher: DetrTeacher,
    made: LearnedDetector,
    worth: dict[str, Any] | None,
) -> dict[str, Any]:
    asked = row.request
    return {
        "pseudo_labelling_id": row.id,
        "parent": {"checkpoint_id": asked["checkpoint_id"], "name": asked["checkpoint_name"]},
        "dataset": {"id": asked["dataset_id"], "name": asked["dataset_name"], "digest": dataset.digest},
        "method": METHOD,
        "proposals": list(teacher.settings.regions.methods),
        "pictures": made.said.about["pictures"],
        "seed": asked["seed"],
        "iterations": made.iterations,
        "measured": worth,
    }
