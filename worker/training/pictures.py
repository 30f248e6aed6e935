"""Pictures decoded once and kept in memory within a bound: an epoch after the first decodes nothing."""

from __future__ import annotations

import contextlib
import threading
from types import TracebackType

import numpy as np

from worker.data.batches import read_checked
from worker.data.dataset import Image
from worker.data.pixels import KeptPixels

KEPT_BYTES = 2 << 30


class Pictures:
    """`read(image)` gives uint8 (h, w, 3) RGB, not to be written to; safe to call from several threads.

    What does not fit into `max_bytes` of memory comes from `kept`, where it is; what `kept` has not is added to it and is
    there for the next training. Use it in a `with`.
    """

    def __init__(self, max_bytes: int = KEPT_BYTES, kept: KeptPixels | None = None) -> None:
        self.max_bytes = max_bytes
        self.bytes = 0
        self._disk = kept
        self._kept: dict[int, np.ndarray] = {}
        self._lock = threading.Lock()
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Pictures:
        if self._disk is not None:
            self._stack.enter_context(self._disk)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def read(self, image: Image) -> np.ndarray:
        """Raises BadPicture, and ValueError where the file has not the size that the dataset says."""
        known = self._kept.get(image.id)
        if known is not None:
            return known
        pixels = None if self._disk is None else self._disk.get(image.id, image.height, image.width)
        if pixels is None:
            pixels = read_checked(image)
            if self._disk is not None:
                self._disk.add(image.id, pixels)
        with self._lock:
            if image.id not in self._kept and self.bytes + pixels.nbytes <= self.max_bytes:
                self._kept[image.id] = pixels
                self.bytes += pixels.nbytes
        return pixels
