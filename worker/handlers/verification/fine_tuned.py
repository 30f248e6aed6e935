"""What a training leaves behind: its weights as a checkpoint, with their lineage and their plain form, and its pictures."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import models_store
from app.db.documents import PREDICTIONS, PlainForm, StoredFile
from models_store.errors import Unusable
from models_store.manifest import WEIGHTS_FILE
from models_store.plain import to_plain_folder
from models_store.save import save_detector
from worker.attempt import Attempt
from worker.data.dataset import Dataset
from worker.data.subsets import Subset
from worker.evaluation.pictures import show_best_and_worst
from worker.evaluation.plots import learning_curve, precision_recall
from worker.evaluation.shown_boxes import boxes_of_images
from worker.handlers.plans import MOST_LOOKED_AT
from worker.handlers.results import keep_file
from worker.handlers.verification.inputs import Records
from worker.training.examples import with_validation
from worker.training.pictures import Pictures
from worker.training.plan import Plan
from worker.training.trained import Trained
from worker.training.validate import predictions_of


@dataclass(frozen=True)
class Registered:
    """Everything is in storage; `plain` is what app/services/plain_weights.py makes a zip of."""

    manifest: models_store.Manifest
    weights_sha256: str
    plain: PlainForm
    pictures: list[StoredFile]
    plots: list[StoredFile]


def store(
    attempt: Attempt,
    records: Records,
    dataset: Dataset,
    subset: Subset,
    plan: Plan,
    trained: Trained,
    lesson: dict[str, Any] | None,
    folder: Path,
) -> Registered:
    """Stores weights and pictures. `lesson`: what a teacher came to, None where nobody taught. Raises Unusable for weights that hold NaN."""
    saved = folder / "saved"
    manifest = save_detector(
        trained.detector,
        saved,
        class_names=dataset.categories,
        lineage=_lineage(records, subset, plan, trained, lesson),
        image_size=plan.image_size,
    )
    attempt.check()
    weights = keep_file(attempt, saved / WEIGHTS_FILE, "application/octet-stream")
    return Registered(
        manifest,
        weights,
        _plain(saved, folder / "plain", weights),
        _pictures(attempt, dataset, subset, plan, trained, folder),
        _plots(attempt, trained, folder),
    )


def _lineage(
    records: Records, subset: Subset, plan: Plan, trained: Trained, lesson: dict[str, Any] | None
) -> dict[str, Any]:
    row, checkpoint, dataset = records.verification, records.checkpoint, records.dataset
    return {
        "verification_id": row.id,
        "parent": {"checkpoint_id": checkpoint.id, "name": checkpoint.name},
        "dataset": {"id": dataset.id, "name": dataset.name, "digest": dataset.digest},
        "subset": {
            "id": row.subset_id,
            "kind": subset.kind,
            "value": subset.value,
            "seed": subset.seed,
            "images": len(subset.image_ids),
        },
        "recipe": plan.recipe.name,
        "seed": plan.seed,
        "data_dependent_init": plan.data_dependent_init,
        # what fresh layers began with: the plan's band, how far they were from the aim, whether they were scaled
        "init_band": plan.init_band,
        "init_distance": trained.start.get("distance"),
        "init_scaled": bool(trained.start.get("factors")),
        "iterations": trained.iterations,
        "best_iteration": trained.best.get("iteration"),
        "map": {"val": trained.val.map, "test": trained.test and trained.test.map},
        **({} if lesson is None else {"taught": lesson | _another(row)}),
    }


def _another(row: Any) -> dict[str, Any]:
    """The dataset of pictures without labels, where that is another one."""
    id = row.request.get("unlabelled_dataset_id")
    return {} if id is None else {"unlabelled_dataset_id": id}


def _plain(saved: Path, out: Path, weights_sha256: str) -> PlainForm:
    """The library, the name of the weights there, and the text of every other file; or why there is no plain form."""
    try:
        use = to_plain_folder(saved, out)
    except Unusable as refusal:
        return {"unavailable": refusal.detail}
    weights = use.files[0]
    with (out / weights).open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != weights_sha256:
        # what `save_detector` wrote is what its library takes, so that the same bytes are kept once
        return {"unavailable": f"{use.library} needs other weights than those that are kept"}
    texts = {
        path.name: path.read_text(encoding="utf-8") for path in sorted(out.iterdir()) if path.name != weights
    }
    return {"library": use.library, "weights": weights, "texts": texts}


def _pictures(
    attempt: Attempt, dataset: Dataset, subset: Subset, plan: Plan, trained: Trained, folder: Path
) -> list[StoredFile]:
    """The best and the worst of at most MOST_LOOKED_AT test images (without any: validation images), beside the truth.

    With them a document of what was found on each of the images looked at.
    """
    ids = [image.id for image in dataset.images if image.split == "test"]
    if not ids:
        own = [image.id for image in dataset.images if image.split == "val"]
        _, ids, _ = with_validation(subset.image_ids, own, plan.seed)
    ids = ids[:: -(-len(ids) // MOST_LOOKED_AT)]
    wanted = set(ids)
    found = predictions_of(
        trained.detector,
        [image for image in dataset.images if image.id in wanted],
        Pictures(),
        plan.image_size,
        threads=attempt.settings.decode_threads,
        check=attempt.check,
    )
    files = []
    for shown in show_best_and_worst(dataset, ids, found):
        path = folder / f"{shown.kind}-{shown.image_id}.png"
        path.write_bytes(shown.png)
        about = {
            name: getattr(shown, name)
            for name in ("kind", "image_id", "f1", "hits", "false", "missed", "threshold")
        }
        files.append(_file(attempt, path, f"image {shown.image_id}, one of the {shown.kind}", about))
    path = folder / PREDICTIONS
    path.write_text(json.dumps(boxes_of_images(dataset, ids, found), separators=(",", ":")))
    files.append(_file(attempt, path, "what was found on each picture", {}, "application/json"))
    return files


def _plots(attempt: Attempt, trained: Trained, folder: Path) -> list[StoredFile]:
    drawn: list[tuple[Path, str, dict[str, Any]]] = [
        (learning_curve(trained.curves, folder / "learning.png", best=trained.best), "learning curves", {})
    ]
    for split, evaluation in (("test", trained.test), ("val", trained.val)):
        if evaluation is not None:
            path = precision_recall(evaluation, folder / f"precision-recall-{split}.png")
            drawn.append((path, f"precision against recall on {split}", {"split": split}))
    return [_file(attempt, *each) for each in drawn]


def _file(
    attempt: Attempt, path: Path, title: str, about: dict[str, Any], media_type: str = "image/png"
) -> StoredFile:
    kept = keep_file(attempt, path, media_type)
    return {"sha256": kept, "file_name": path.name, "media_type": media_type, "title": title, "about": about}
