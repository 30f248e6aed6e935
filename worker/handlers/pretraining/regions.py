"""Regions of a dataset in storage: searched once for each part of it, found again by whoever needs them."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from worker.attempt import Attempt
from worker.data.dataset import Dataset
from worker.handlers.ranking import feature_files
from worker.pretraining.proposals import key_of, load, part_of, proposed, save


def searched(
    attempt: Attempt,
    dataset: Dataset,
    strategy: str,
    part: int,
    parts: int,
    folder: Path,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> None:
    """Searches the pictures of one part, unless somebody has, and keeps what is found. Raises BadPicture."""
    key = key_of(dataset.digest, strategy, part, parts)
    if feature_files.is_there(attempt, key):
        attempt.log("the regions of these pictures have been searched before")
        return
    images = part_of(dataset.images, part, parts)
    found = {}
    for image, boxes in proposed(images, strategy, threads=attempt.settings.decode_threads):
        found[image.id] = boxes
        progress(len(found), len(images))
    path = folder / f"regions-{part}.safetensors"
    save(path, found)
    feature_files.keep(attempt, key, path)


def gathered(
    attempt: Attempt, dataset: Dataset, strategy: str, parts: int, folder: Path
) -> dict[int, np.ndarray]:
    """Regions of every picture by image id; a part that storage no longer has is searched again."""
    found: dict[int, np.ndarray] = {}
    for part in range(parts):
        key = key_of(dataset.digest, strategy, part, parts)
        path = feature_files.fetch(attempt, key, folder)
        if path is None:
            attempt.log(f"part {part} of the regions is gone and searched again", "warning")
            searched(attempt, dataset, strategy, part, parts, folder)
            path = feature_files.fetch(attempt, key, folder)
        if path is None:
            raise AssertionError("what was just kept is not there")
        found |= load(path)
    return found
