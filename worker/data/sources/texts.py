"""Many short texts in two arrays: a million names take the bytes of their letters, and open without a loop."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, eq=False)
class Texts:
    """`letters` uint8 (k,), UTF-8 one after another; `ends` int64 (n,), where each ends."""

    letters: np.ndarray
    ends: np.ndarray

    @classmethod
    def of(cls, texts: Iterable[str]) -> Texts:
        parts = [text.encode("utf-8", "surrogateescape") for text in texts]
        ends = np.cumsum(np.fromiter(map(len, parts), np.int64, len(parts)), dtype=np.int64)
        return cls(np.frombuffer(b"".join(parts), np.uint8), ends)

    def __len__(self) -> int:
        return len(self.ends)

    def __getitem__(self, index: int) -> str:
        begin = int(self.ends[index - 1]) if index else 0
        return self.letters[begin : int(self.ends[index])].tobytes().decode("utf-8", "surrogateescape")
