"""One fine-tuning of a study: its mAP, how it went, and its detector."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from models_store.detector import Detector
from worker.data.dataset import Dataset
from worker.training.fine_tune import train
from worker.training.inputs import Host, Ids
from worker.training.plan import Plan
from worker.training.trained import Trained


def ids_of(dataset: Dataset, *, max_train: int | None = None, seed: int = 0) -> Ids:
    """A dataset's splits. One without a test split is tested on its validation split, and validates on a part of train.

    max_train: the first so many images of a seeded order, so that a smaller number is contained in a larger.
    """
    split = {
        name: tuple(i.id for i in dataset.images if i.split == name) for name in ("train", "val", "test")
    }
    chosen = split["train"]
    if max_train is not None and len(chosen) > max_train:
        order = np.random.default_rng(seed).permutation(len(chosen))[:max_train]
        chosen = tuple(chosen[index] for index in sorted(order.tolist()))
    if split["test"]:
        return Ids(chosen, split["val"], split["test"])
    return Ids(chosen, (), split["val"])


def fine_tune(
    detector: Detector, dataset: Dataset, plan: Plan, ids: Ids, folder: Path, *, device: str = "cpu"
) -> tuple[Trained, dict[str, Any]]:
    """Train with a fresh head, evaluate, and the result as plain JSON.

    `folder` holds the state while it lasts: after an interruption the training goes on from there. In the result `map`
    is of the best epoch by validation, measured once on test; `map_published` is the highest of all epochs on the
    images that chose it, as the published benchmark takes it. Raises what `train` raises.
    """
    # classes of equal names would otherwise keep the source's own predictor, as for two sets of digits
    detector.replace_head(len(dataset.categories), plan.seed)
    trained = train(
        detector,
        dataset,
        plan,
        ids,
        folder,
        Host(device, decode_threads=1),
    )
    test = trained.test
    result = {
        "map": None if test is None else test.box["map"],
        "ap50": None if test is None else test.box["ap50"],
        "map_published": trained.best.get("map"),
        "best": trained.best,
        "iterations": trained.iterations,
        "seconds": round(trained.seconds, 2),
        "finished": trained.finished,
        "val_curve": [
            {"iteration": p["iteration"], **{k: p["val"][k] for k in ("map", "ap50")}}
            for p in trained.curves
            if p.get("val")
        ],
        "loss": trained.curves[-1]["loss"] if trained.curves else None,
        "images": {"train": len(ids.train), "val": len(ids.val), "test": len(ids.test)},
        "warnings": trained.warnings,
        "start": trained.start,
    }
    return trained, result
