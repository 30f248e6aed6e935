"""Which pictures a pretraining may see: none that validation or test measure on, under whatever name they are there."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from worker.data.dataset import Dataset, Image

MEASURED_ON = ("val", "test")


def digest_of(path: Path) -> str:
    """SHA-256 of a picture's file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digests_measured_on(datasets: Iterable[Dataset], check: Callable[[], None] = lambda: None) -> set[str]:
    """Digests of the pictures that any of these datasets evaluates on."""
    found = set()
    for dataset in datasets:
        for image in dataset.images:
            if image.split in MEASURED_ON:
                check()
                found.add(digest_of(image.path))
    return found


def allowed(
    images: Sequence[Image], measured_on: set[str], check: Callable[[], None] = lambda: None
) -> list[Image]:
    """The pictures whose content nobody evaluates on."""
    kept = []
    for image in images:
        check()
        if digest_of(image.path) not in measured_on:
            kept.append(image)
    return kept
