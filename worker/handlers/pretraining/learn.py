"""Job `learn`: pretrain the detector on the pictures of a dataset, and register what came of it."""

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from sqlalchemy.orm import Session

import models_store
from app.db import tables
from app.errors import PretrainingFailed
from models_store.detector import Detector
from models_store.detr.detector import DetrDetector
from models_store.manifest import WEIGHTS_FILE
from models_store.pretraining import OBJECT, Pretrained, placed_over
from models_store.save import save_detector
from worker.attempt import Attempt, ClaimedJob
from worker.data.dataset import Dataset, Image, open_dataset
from worker.device import choose_device
from worker.files import scratch
from worker.handlers.datasets import dataset_folder, every_image
from worker.handlers.inputs import checkpoint_folder, ready
from worker.handlers.pretraining.inputs import LESS_MEMORY, row_of
from worker.handlers.pretraining.regions import gathered
from worker.handlers.pretraining.registered import register
from worker.handlers.pretraining.shown import Album, plots
from worker.handlers.refusals import refusals
from worker.handlers.results import keep_file
from worker.handlers.verification.training_report import TrainingReport
from worker.handlers.verification.training_state import StateKeeper, restore
from worker.models import models
from worker.pretraining.held_out import allowed, digests_measured_on
from worker.pretraining.pretrain import PretrainedDetector, prepared, pretrain, usable
from worker.pretraining.proposals import RANDOM
from worker.pretraining.recipe import PretrainingPlan, pretraining_plan_of, recipes
from worker.training.examples import with_validation
from worker.training.inputs import Host, Ids, Watch

MOST_BETWEEN_STATES_S = 60.0
# fields of a request that a plan has under the same name
OF_PLAN = (
    "proposals",
    "max_proposals",
    "embedding_layer",
    "epochs",
    "iterations",
    "image_size",
    "batch_size",
    "precision",
    "evaluations",
    "lr_factor",
    "ema",
    "seed",
)


@dataclass(frozen=True)
class LearningMaterial:
    """What is learned from. `measured_on`: pictures of other splits that were left out for their content."""

    dataset: Dataset
    images: list[Image]
    watched_ids: list[int]
    found: dict[int, np.ndarray] | None
    measured_on: int


def run(attempt: Attempt, job: ClaimedJob) -> Callable[[Session], None]:
    """Trains from where the last attempt's state stands, and stores weights, curves and pictures.

    Returns the write of the result, with the new checkpoint. Raises PretrainingFailed with the reason and what to
    change, and NotFound.
    """
    with attempt.database.reading() as session:
        row = row_of(session, job)
    asked = row.request
    report = TrainingReport(attempt, row.id, tables.Pretraining)
    with ExitStack() as stack:
        folder = stack.enter_context(scratch(attempt.settings.scratch_dir))
        stack.enter_context(refusals(PretrainingFailed, LESS_MEMORY))
        report.stage("loading")
        models().forget()  # the whole device is needed
        material = _material(attempt, stack, asked, folder)
        start, licence = _start(attempt, row, folder)
        recipe = recipes()[asked["recipe"]]
        plan_sizes = None if asked["image_size"] else recipe.regions.sizes
        detector = prepared(
            start, _encoder(attempt, row, folder), asked["embedding_layer"], plan_sizes, asked["seed"]
        )
        images = usable(material.images, recipe_regions(asked), material.found)
        plan = _plan(attempt, row, detector.manifest, len(images))
        state = folder / "state"
        if restore(attempt, row, state):
            attempt.log(f"training goes on from iteration {row.state_iteration}")
        keeper = stack.enter_context(StateKeeper(attempt, row.id, state, folder, tables.Pretraining))
        report.stage("training")
        album = Album(attempt, row.id, material.dataset, plan, material.found, folder)
        settings = attempt.settings
        host = Host(
            choose_device(settings.device),
            settings.decode_threads,
            min(settings.training_state_s, MOST_BETWEEN_STATES_S),
        )
        made = pretrain(
            detector,
            material.dataset,
            plan,
            Ids([image.id for image in material.images], material.watched_ids, []),
            material.found,
            state,
            host=host,
            watch=Watch(report.progress, attempt.check, keeper.saved, report.point, attempt.log),
            looked=album.looked,
        )
        report.tell()
        report.stage("storing")
        return _finished(attempt, row, material, plan, made, licence, folder)


def recipe_regions(asked: dict[str, Any]) -> Any:
    """The regions of a request whose defaults are filled in."""
    found = recipes()[asked["recipe"]].regions
    return type(found)(
        asked["proposals"], asked["max_proposals"], asked["embedding_layer"], found.crop_size, found.sizes
    )


def _material(attempt: Attempt, stack: ExitStack, asked: dict[str, Any], folder: Path) -> LearningMaterial:
    opened = []
    compared = (asked["compare"] or {}).get("dataset_id") or asked["dataset_id"]
    for id in dict.fromkeys((asked["dataset_id"], compared)):
        row = ready(attempt, tables.Dataset, id, PretrainingFailed)
        root = stack.enter_context(dataset_folder(attempt, row, every_image))
        opened.append(open_dataset(root))
    dataset = opened[0]
    by_split: dict[str, list[Image]] = {"train": [], "val": [], "test": []}
    for image in dataset.images:
        by_split[image.split].append(image)
    forbidden = digests_measured_on(opened, attempt.check)
    images = allowed(by_split["train"], forbidden, attempt.check)
    left_out = len(by_split["train"]) - len(images)
    train_ids, watched_ids, _ = with_validation(
        [image.id for image in images], [image.id for image in by_split["val"]], asked["seed"]
    )
    chosen = set(train_ids)
    found = None
    if asked["proposals"] != RANDOM:
        found = gathered(attempt, dataset, asked["proposals"], asked["parts"], folder / "regions")
    return LearningMaterial(
        dataset, [image for image in images if image.id in chosen], watched_ids, found, left_out
    )


def _start(attempt: Attempt, row: tables.Pretraining, folder: Path) -> tuple[Detector, str | None]:
    """The detector as training begins with it, and its licence. A fresh one is registered first, to be compared with."""
    if row.start_checkpoint_id is not None:
        checkpoint = ready(attempt, tables.Checkpoint, row.start_checkpoint_id, PretrainingFailed)
        at = checkpoint_folder(attempt, checkpoint, folder / "start")
        return models_store.load_detector(at), checkpoint.licence
    asked = row.request
    checkpoint = ready(attempt, tables.Checkpoint, asked["encoder_checkpoint_id"], PretrainingFailed)
    encoder = models_store.load_detector(checkpoint_folder(attempt, checkpoint, folder / "body"))
    placed = placed_over(encoder, asked["architecture"], config=asked["config"], seed=asked["seed"])
    manifest = _saved_fresh(placed, folder / "fresh", checkpoint)
    kept = keep_file(attempt, folder / "fresh" / WEIGHTS_FILE, "application/octet-stream")
    with attempt.writing() as session:
        mine = session.get_one(tables.Pretraining, row.id)
        mine.start_checkpoint_id = row.start_checkpoint_id = register(
            session,
            row,
            manifest,
            kept,
            name=f"{checkpoint.name} in a fresh {placed.family.title.partition(' (')[0]}",
            licence=checkpoint.licence,
        )
    return models_store.load_detector(folder / "fresh"), checkpoint.licence


def _saved_fresh(placed: DetrDetector, folder: Path, checkpoint: tables.Checkpoint) -> models_store.Manifest:
    """Written with all its tensors, and with what nobody trained still marked as such."""
    lineage = {"parent": {"checkpoint_id": checkpoint.id, "name": checkpoint.name}}
    saved = save_detector(placed, folder, class_names=OBJECT, lineage=lineage)
    fresh = placed.manifest
    manifest = saved.but(initialised_keys=fresh.initialised_keys, layers=fresh.layers, licence=fresh.licence)
    manifest.write(folder)
    return manifest


def _encoder(attempt: Attempt, row: tables.Pretraining, folder: Path) -> Detector:
    """A second copy where it is the start itself: what it says must not move."""
    id = row.encoder_checkpoint_id or row.start_checkpoint_id
    if id is None:
        raise AssertionError("nothing to encode with")
    checkpoint = ready(attempt, tables.Checkpoint, id, PretrainingFailed)
    return models_store.load_detector(checkpoint_folder(attempt, checkpoint, folder / "encoder"))


def _plan(
    attempt: Attempt, row: tables.Pretraining, manifest: models_store.Manifest, images: int
) -> PretrainingPlan:
    """The plan of the first attempt, so that a later version goes on as it began."""
    if row.plan is not None:
        return PretrainingPlan.from_json(row.plan)
    asked = row.request
    minutes = asked["budget_minutes"]
    plan = pretraining_plan_of(
        asked["recipe"],
        manifest=manifest,
        images=images,
        budget_s=None if minutes is None else minutes * 60,
        **{name: asked[name] for name in OF_PLAN},
    )
    with attempt.writing() as session:
        session.get_one(tables.Pretraining, row.id).plan = plan.to_json()
    return plan


def _finished(
    attempt: Attempt,
    row: tables.Pretraining,
    material: LearningMaterial,
    plan: PretrainingPlan,
    made: PretrainedDetector,
    licence: str | None,
    folder: Path,
) -> Callable[[Session], None]:
    manifest = _saved(row, material, plan, made, folder / "saved")
    attempt.check()
    weights = keep_file(attempt, folder / "saved" / WEIGHTS_FILE, "application/octet-stream")
    drawn = plots(attempt, made, folder)
    name = f"{row.request['start_name']} pretrained on {row.request['dataset_name']}"

    def finish(session: Session) -> None:
        mine = session.get(tables.Pretraining, row.id)
        if mine is None:
            return
        mine.curves, mine.seconds, mine.plots = made.curves, made.seconds, drawn
        mine.state_sha256, mine.state_iteration = None, None
        mine.result = {
            "recall": {"start": made.start["recall"], "end": made.end.to_json()},
            "pictures": made.pictures,
            "without_region": made.left_out,
            "held_out": {"split": len(material.watched_ids), "equal_content": material.measured_on},
            "iterations": made.iterations,
            "finished": made.finished,
            "warnings": _warnings(material, made),
        }
        plain = {"unavailable": "it is pretrained without classes: fine-tune it first"}
        mine.trained_checkpoint_id = register(
            session, mine, manifest, weights, name=name, licence=licence, plain=plain
        )

    return finish


def _warnings(material: LearningMaterial, made: PretrainedDetector) -> list[str]:
    found = list(made.warnings)
    if material.measured_on:
        found.append(
            f"{material.measured_on} pictures of the training split are also in validation or test, and were kept out"
        )
    return found


def _saved(
    row: tables.Pretraining,
    material: LearningMaterial,
    plan: PretrainingPlan,
    made: PretrainedDetector,
    folder: Path,
) -> models_store.Manifest:
    asked = row.request
    lineage = {
        "pretraining_id": row.id,
        "parent": {"checkpoint_id": row.start_checkpoint_id, "name": asked["start_name"]},
        "encoder": {"checkpoint_id": row.encoder_checkpoint_id, "layer": plan.regions.embedding_layer},
        "dataset": {
            "id": asked["dataset_id"],
            "name": asked["dataset_name"],
            "digest": material.dataset.digest,
        },
        "method": "detreg",
        "recipe": plan.training.recipe.name,
        "proposals": plan.regions.proposals,
        "max_proposals": plan.regions.max_proposals,
        "pictures": made.pictures,
        "seed": plan.training.seed,
        "iterations": made.iterations,
        "recall": made.end.recall,
    }
    detector: Pretrained = made.detector
    names = detector.manifest.class_names
    classes = detector.manifest.num_classes or 1
    if names is None or len(names) != classes:
        names = OBJECT if classes == 1 else tuple(f"class {index}" for index in range(classes))
    try:
        return save_detector(
            detector, folder, class_names=names, lineage=lineage, image_size=plan.training.image_size
        )
    except models_store.Unusable as refusal:
        raise PretrainingFailed(refusal.detail, code=refusal.code) from refusal
