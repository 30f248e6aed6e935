"""Detectors trained here on one dataset and carried to all others, as arXiv 2306.15306 makes its source models.

Such a candidate is trained once, on every image of its dataset, by the training that fine-tunes candidates too; what
came out is a checkpoint like any other, and is never used on the dataset that it was trained on.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import models_store
from models_store.manifest import Manifest
from models_store.save import save_detector
from worker.data.dataset import Dataset, open_dataset
from worker.studies.errors import StudyRefused
from worker.studies.files import read_json, write_json
from worker.studies.runs.fine_tuning import fine_tune
from worker.studies.runs.parallel import Task
from worker.studies.runs.parts import REFUSALS
from worker.studies.work_folder import digest_of
from worker.training.inputs import Ids
from worker.training.plan import plan_of

# where a manifest's provenance says that a study trained it
CARRIED = "carried"
# what of the start decides what comes out, beside its weights
_BASE = ("architecture", "backbone", "input", "options", "initialised_keys", "initialisation_seed")


@dataclass(frozen=True)
class Carrying:
    """How one candidate is made. trained_on: name of its dataset; overrides: of the plan, `seed` among them. base: folder
    of the converted checkpoint that it starts from; dataset: that of the canonical form; state, result, made: where
    its training's state, its course and the checkpoint lie."""

    name: str
    trained_on: str
    recipe: str
    overrides: Mapping[str, Any]
    base: Path
    dataset: Path
    state: Path
    result: Path
    made: Path

    @property
    def digest(self) -> str:
        """Of all that the weights follow from. Not of the weights: another host rounds otherwise."""
        base = Manifest.read(self.base)
        facts = base.to_json()
        return digest_of(
            {
                "weights": base.weights_sha256,
                "base": {name: facts[name] for name in _BASE},
                "dataset": open_dataset(self.dataset).digest,
                "recipe": self.recipe,
                "overrides": self.overrides,
            }
        )


def carrying(
    candidate: Mapping[str, Any], recipe: str, overrides: Mapping[str, Any], work: Path
) -> Carrying | None:
    """How a candidate of a study file is trained, None for one that is taken as it is.

    recipe, overrides: of the study's own fine-tunings; the candidate's `training` says what is other.
    """
    if "trained_on" not in candidate:
        return None
    training = dict(candidate.get("training", {}))
    name, folder = candidate["name"], work / "carried"
    return Carrying(
        name,
        candidate["trained_on"],
        training.pop("recipe", recipe),
        {"seed": 0, **overrides, **training},
        folder / name / "base",
        work / "datasets" / candidate["trained_on"],
        folder / name / "state",
        folder / f"{name}.json",
        work / "candidates" / name,
    )


def task_of(asked: Carrying, device: str) -> Task:
    """Its training as a task. Raises StudyRefused where a detector of this name was trained otherwise."""
    if (asked.made / "manifest.json").exists():
        made = carried_from(Manifest.read(asked.made))
        if made is None or made["made_by"] != asked.digest:
            raise StudyRefused(
                "other_study",
                f"{asked.name} was trained otherwise, from other weights or on other images: give it another name, or "
                f"remove {asked.made}",
            )
    return Task(
        f"{asked.name} trained on {asked.trained_on}",
        train_carried,
        (asked, device),
        asked.made / "manifest.json",
    )


def train_carried(asked: Carrying, device: str) -> None:
    """Train on all images of the dataset, best weights by a tenth of them that is held out, into `asked.made`.

    What the detector or dataset does not support stands in `asked.result` under `error`, and nothing is made.
    """
    try:
        dataset = open_dataset(asked.dataset)
        detector = models_store.load_detector(asked.base, device=device)
        ids = Ids(tuple(image.id for image in dataset.images), (), ())
        plan = plan_of(asked.recipe, manifest=detector.manifest, images=len(ids.train), **asked.overrides)
        trained, result = fine_tune(detector, dataset, plan, ids, asked.state, device=device)
    except REFUSALS as refusal:
        write_json(asked.result, {"error": f"{refusal.code}: {refusal.detail}"})
        return
    lineage = {
        "dataset": {"digest": dataset.digest, "name": asked.trained_on},
        "recipe": plan.recipe.name,
        "seed": plan.seed,
        "iterations": trained.iterations,
        CARRIED: {"made_by": asked.digest},
    }
    asked.made.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=asked.made.parent) as beside:
        folder = Path(beside) / "made"
        save_detector(trained.detector, folder, class_names=dataset.categories, lineage=lineage)
        folder.rename(asked.made)
    write_json(asked.result, {**result, "trained_on": asked.trained_on})
    shutil.rmtree(asked.state, ignore_errors=True)


def must_be_made(asked: Carrying) -> None:
    """Raises StudyRefused `not_trained` where the training of a candidate failed."""
    if not (asked.made / "manifest.json").exists():
        raise StudyRefused(
            "not_trained",
            f"{asked.name} could not be trained on {asked.trained_on}: {read_json(asked.result)['error']}",
        )


def carried_from(manifest: Manifest) -> Mapping[str, Any] | None:
    """`made_by`, `name` and `digest` of the dataset where a study trained it, else None."""
    carried = manifest.provenance.get(CARRIED)
    return None if carried is None else {**carried, **manifest.provenance["dataset"]}


def identity(manifest: Manifest) -> str:
    """What a candidate is, by digest: of its weights, or of all that they were trained from."""
    carried = carried_from(manifest)
    return manifest.weights_sha256 if carried is None else carried["made_by"]


def trained_there(manifest: Manifest, dataset: Dataset | str) -> bool:
    """Whether a study trained it on that dataset, or on one of that digest."""
    carried = carried_from(manifest)
    digest = dataset if isinstance(dataset, str) else dataset.digest
    return carried is not None and carried["digest"] == digest
