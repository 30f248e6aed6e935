"""Pictures of one target size together, without holding the dataset in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np

_MAX_WAITING_BYTES = 512 * 2**20


@dataclass(frozen=True)
class DecodedImage:
    """A decoded image, the rows of its objects in the feature table, and their boxes; the same of its regions.

    pixels: (H, W, 3) uint8 RGB; rows: (n,) int64; boxes: (n, 4) float64 xyxy in pixels of this image;
    region_rows (m,) and regions (m, 4) likewise.
    """

    image_id: int
    pixels: np.ndarray
    rows: np.ndarray
    boxes: np.ndarray
    region_rows: np.ndarray = field(default_factory=lambda: np.empty(0, dtype=np.int64))
    regions: np.ndarray = field(default_factory=lambda: np.empty((0, 4)))


def grouped(
    pictures: Iterable[DecodedImage],
    target_size: Callable[[int, int], tuple[int, int]],
    batch_size: Callable[[tuple[int, int]], int],
    max_waiting_bytes: int = _MAX_WAITING_BYTES,
) -> Iterator[list[DecodedImage]]:
    """Batches of at most `batch_size(size)` pictures that are resized to the same height and width.

    Pictures wait for others of their size; when more than `max_waiting_bytes` wait, the largest group goes
    ahead unfilled. The batches depend on the order of `pictures` only.
    """
    waiting: dict[tuple[int, int], list[DecodedImage]] = {}
    held = 0
    for picture in pictures:
        size = target_size(*picture.pixels.shape[:2])
        group = waiting.setdefault(size, [])
        group.append(picture)
        held += picture.pixels.nbytes
        full = len(group) >= batch_size(size)
        if not full and held > max_waiting_bytes:
            size = max(waiting, key=lambda key: sum(one.pixels.nbytes for one in waiting[key]))
            group = waiting[size]
        if full or held > max_waiting_bytes:
            del waiting[size]
            held -= sum(one.pixels.nbytes for one in group)
            yield group
    yield from waiting.values()
