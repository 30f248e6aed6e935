"""The parts of every study, as tasks: one candidate scored on one dataset, and fine-tuned there with one seed.

Each writes one JSON file. What a candidate or dataset does not support is part of the result, under `error`; the study
goes on without that part and names it.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import models_store
from models_store.manifest import Manifest
from models_store.untrained import untrained
from worker.data.dataset import open_dataset
from worker.evaluation.errors import Unevaluable
from worker.features.errors import Unextractable
from worker.studies.files import write_json
from worker.studies.measures.scoring import ScoringSpec, score_detector
from worker.studies.runs.fine_tuning import fine_tune, ids_of
from worker.studies.runs.memory import memory_taken
from worker.training.errors import TrainingDiverged, Untrainable
from worker.training.plan import plan_of
from worker.training.recipe import Recipe

REFUSALS = (models_store.Unusable, Unextractable, Untrainable, Unevaluable, TrainingDiverged)


def score_part(checkpoint: Path, dataset: Path, asked: ScoringSpec, device: str, done: Path) -> None:
    """All scores of the converted `checkpoint` on the canonical `dataset`, into `done`."""
    _scored(lambda: models_store.load_detector(checkpoint, device=device), dataset, asked, device, done)


def zero_point_part(
    checkpoint: Path, seed: int, dataset: Path, asked: ScoringSpec, device: str, done: Path
) -> None:
    """The same of the checkpoint's architecture with the initial weights of `seed`."""
    _scored(lambda: untrained(Manifest.read(checkpoint), seed, device=device), dataset, asked, device, done)


def _scored(
    detector: Callable[[], models_store.Detector], dataset: Path, asked: ScoringSpec, device: str, done: Path
) -> None:
    try:
        result = score_detector(detector(), open_dataset(dataset), asked, device=device)
    except REFUSALS as refusal:
        result = {"error": f"{refusal.code}: {refusal.detail}"}
    write_json(done, result)


def tune_part(
    checkpoint: Path,
    dataset: Path,
    recipe: Recipe | str,
    overrides: Mapping[str, Any],
    max_train: int | None,
    device: str,
    done: Path,
) -> None:
    """Fine-tune with a fresh head and measure, into `done`; the training's state lies beside it while it lasts.

    `overrides`: of the plan, `seed` among them. `max_train`: training images at most, the same for all seeds.
    """
    state = done.with_suffix(".state")
    try:
        opened = open_dataset(dataset)
        detector = models_store.load_detector(checkpoint, device=device)
        ids = ids_of(opened, max_train=max_train)
        plan = plan_of(recipe, manifest=detector.manifest, images=len(ids.train), **overrides)
        with memory_taken() as memory:
            _, result = fine_tune(detector, opened, plan, ids, state, device=device)
        result["memory_mb"] = memory
        if result["map"] is None:
            result = {"error": "no_objects: its test images hold no object, so there is no mAP"}
    except REFUSALS as refusal:
        result = {"error": f"{refusal.code}: {refusal.detail}"}
    write_json(done, result)
    shutil.rmtree(state, ignore_errors=True)
