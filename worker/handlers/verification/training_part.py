"""A verification as a part of a search: it trains up to a stop, its state is kept, and only the winner is evaluated on test.

`Verification.stop_at` says where; it is None for a training of its own. With `conclude` the training ends at the stop and its
state there is the result. With `timing` it trains a few iterations to measure their seconds, and throws them away.
"""

import json
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from app.db.documents import PartSeconds
from app.db.tables import Verification
from worker.attempt import Attempt
from worker.data.dataset import Dataset
from worker.training.pictures import Pictures
from worker.training.plan import Plan
from worker.training.state import STATE_FILE
from worker.training.trained import Trained
from worker.training.validate import evaluated

# enough to know the seconds of one
TIMED_IMAGES = 8


def concludes(row: Verification) -> bool:
    """Whether this job brings the verification to its end, with a look at the test images."""
    return row.stop_at is None or bool(row.stop_at.get("conclude"))


def only_times(row: Verification) -> bool:
    return row.stop_at is not None and bool(row.stop_at.get("timing"))


def splits_of(row: Verification, dataset: Dataset) -> dict[str, list[int]]:
    """Ids of the images to evaluate on. Where the request limits validation, a seeded part of it, the same for all."""
    val = _ids(dataset, "val")
    most = TIMED_IMAGES if only_times(row) else row.request.get("max_val_images")
    if most is not None and len(val) > most:
        order = np.random.default_rng(row.request["subset_seed"]).permutation(len(val))
        val = sorted(val[place] for place in order[:most].tolist())
    return {"val": val, "test": _ids(dataset, "test") if concludes(row) else []}


def concluded(
    trained: Trained, dataset: Dataset, plan: Plan, test_ids: Sequence[int], attempt: Attempt
) -> Trained:
    """Ends a paused training where it stands: its best weights so far are evaluated on test."""
    if trained.finished == "paused":
        trained.finished = "budget"
        if test_ids:
            trained.test = evaluated(
                trained.detector,
                dataset,
                test_ids,
                Pictures(),
                plan.image_size,
                threads=attempt.settings.decode_threads,
                check=attempt.check,
            )
    return trained


class Clock:
    """Seconds that workers spend on one part, those of attempts that were cut off included."""

    def __init__(self, row: Verification) -> None:
        self._began = self._training_from = time.perf_counter()
        self._before = row.seconds or 0.0
        self._kept = 0.0
        self._begins = True
        self._call_s = 0.0

    def goes_on_from(self, state: Path) -> None:
        """Training goes on from a state; its seconds beyond those of the part before belong to this part."""
        path = state / STATE_FILE
        self._begins = False
        if path.is_file():
            done = json.loads(path.read_text(encoding="utf-8"))["position"]["seconds"]
            self._kept = max(0.0, done - self._before)

    def training(self) -> None:
        """All is loaded."""
        self._training_from = time.perf_counter()

    def trained(self) -> None:
        """Training and its evaluations are over."""
        self._call_s = time.perf_counter() - self._training_from

    def read(self, trained: Trained) -> PartSeconds:
        """worker_seconds: all in. loading_s: until the first step; evaluating_s: beside the steps of training."""
        steps_s = trained.seconds - self._before - self._kept
        init_s = trained.start.get("seconds", 0.0) if self._begins else 0.0
        return {
            "worker_seconds": round(time.perf_counter() - self._began + self._kept, 3),
            "loading_s": round(self._training_from - self._began + init_s, 3),
            "evaluating_s": round(max(0.0, self._call_s - steps_s - init_s), 3),
        }


def _ids(dataset: Dataset, split: str) -> list[int]:
    return [image.id for image in dataset.images if image.split == split]
