"""Pictures and plots of a pretraining, in storage while it goes on."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from app.db import tables
from app.db.documents import StoredFile
from worker.attempt import Attempt
from worker.data.batches import read_checked
from worker.data.dataset import Dataset
from worker.handlers.results import keep_file
from worker.pretraining.loop import WatchedPictures, in_pixels, regions_of
from worker.pretraining.pictures import beside_each_other, curves_plot
from worker.pretraining.pretrain import PretrainedDetector
from worker.pretraining.recipe import PretrainingPlan

SHOWN = 3


class Album:
    """After an epoch: the regions of some watched pictures beside what is found there, on the row at once."""

    def __init__(
        self,
        attempt: Attempt,
        row_id: str,
        dataset: Dataset,
        plan: PretrainingPlan,
        found: Mapping[int, np.ndarray] | None,
        folder: Path,
    ) -> None:
        self._attempt, self._id, self._plan, self._found = attempt, row_id, plan, found
        self._images = {image.id: image for image in dataset.images}
        self._folder = folder

    def looked(self, epoch: float, watched: WatchedPictures) -> None:
        files = []
        for prediction in sorted(watched.predictions, key=lambda each: each.image_id)[:SHOWN]:
            image = self._images[prediction.image_id]
            relative = regions_of(self._plan.regions, self._found, image, self._plan.training.seed, epoch=0)
            path = self._folder / f"epoch-{epoch:g}-image-{image.id}.png"
            beside_each_other(read_checked(image), in_pixels(relative, image), prediction, path)
            title = f"image {image.id} after epoch {epoch:g}: regions, and what is found"
            files.append(_file(self._attempt, path, title, {"epoch": epoch, "image_id": image.id}))
        names = {file["file_name"] for file in files}
        with self._attempt.writing() as session:
            row = session.get_one(tables.Pretraining, self._id)
            row.pictures = [each for each in row.pictures or [] if each["file_name"] not in names] + files
            row.version += 1


def plots(attempt: Attempt, made: PretrainedDetector, folder: Path) -> list[StoredFile]:
    path = curves_plot(made.curves, made.start["recall"], folder / "learning.png")
    return [_file(attempt, path, "losses and class-agnostic recall", {})]


def _file(attempt: Attempt, path: Path, title: str, about: dict[str, Any]) -> StoredFile:
    kept = keep_file(attempt, path, "image/png")
    return {"sha256": kept, "file_name": path.name, "media_type": "image/png", "title": title, "about": about}
