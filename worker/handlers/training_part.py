"""A verification as a part of a search: trained up to a stop and kept as it stands, looked at on test only when it has won.

`Verification.stop_at`: {"iterations": n, "seconds": s or None, "conclude": bool, "timing": bool}, or None for a training of
its own. With `conclude` what stands there is the result, whether or not the plan has come to its end. With `timing` a few
iterations are trained to know how long they take, and thrown away.
"""

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from app.db.tables import Verification
from worker.data.dataset import Dataset
from worker.step import Step
from worker.training import Plan, Trained
from worker.training.pictures import Pictures
from worker.training.state import STATE_FILE
from worker.training.validate import evaluated

# enough to know the seconds of one
TIMED_IMAGES = 8


def concludes(row: Verification) -> bool:
    """Whether this job brings the verification to its end, with a look at the test images."""
    return row.stop_at is None or bool(row.stop_at.get("conclude"))


def only_times(row: Verification) -> bool:
    return row.stop_at is not None and bool(row.stop_at.get("timing"))


def splits_of(row: Verification, dataset: Dataset) -> dict[str, list[int]]:
    """Ids of the images that are evaluated on. Of validation a seeded part, the same for all, where the request limits it."""
    val = _ids(dataset, "val")
    most = TIMED_IMAGES if only_times(row) else row.request.get("max_val_images")
    if most is not None and len(val) > most:
        order = np.random.default_rng(row.request["subset_seed"]).permutation(len(val))
        val = sorted(val[place] for place in order[:most].tolist())
    return {"val": val, "test": _ids(dataset, "test") if concludes(row) else []}


def concluded(
    trained: Trained, dataset: Dataset, plan: Plan, test_ids: Sequence[int], step: Step
) -> Trained:
    """A training that paused, ended there: its best weights so far are looked at on test."""
    if trained.finished == "paused":
        trained.finished = "budget"
        if test_ids:
            trained.test = evaluated(
                trained.detector, dataset, test_ids, Pictures(), plan.image_size,
                threads=step.settings.decode_threads, check=step.check,
            )  # fmt: skip
    return trained


class Clock:
    """Seconds that a worker spends on one part, with what counted of attempts that were cut off."""

    def __init__(self, row: Verification) -> None:
        self._began = self._training_from = time.perf_counter()
        self._before = row.seconds or 0.0
        self._kept = 0.0
        self._call_s = 0.0

    def goes_on_from(self, state: Path) -> None:
        """Training goes on from a state: what is in it beyond the part before was done in this one."""
        path = state / STATE_FILE
        if path.is_file():
            done = json.loads(path.read_text(encoding="utf-8"))["position"]["seconds"]
            self._kept = max(0.0, done - self._before)

    def training(self) -> None:
        """All is loaded."""
        self._training_from = time.perf_counter()

    def trained(self) -> None:
        """Training and its evaluations are over."""
        self._call_s = time.perf_counter() - self._training_from

    def read(self, trained: Trained) -> dict[str, Any]:
        """worker_seconds: all in. loading_s: until training began; evaluating_s: beside the steps of training."""
        steps_s = trained.seconds - self._before - self._kept
        return {
            "worker_seconds": round(time.perf_counter() - self._began + self._kept, 3),
            "loading_s": round(self._training_from - self._began, 3),
            "evaluating_s": round(max(0.0, self._call_s - steps_s), 3),
        }


def _ids(dataset: Dataset, split: str) -> list[int]:
    return [image.id for image in dataset.images if image.split == split]
