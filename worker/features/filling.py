"""Tables whose rows come in any order and by and by."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Generic, TypeVar

import numpy as np

Place = TypeVar("Place", bound=Hashable)


class Filling(Generic[Place]):
    """Tables (rows, D) float32 by place, filled from vectors of some rows each."""

    def __init__(self, rows: int) -> None:
        self._times = np.zeros(rows, dtype=np.int64)
        self._tables: dict[Place, np.ndarray] = {}

    def add(self, rows: np.ndarray, vectors: Mapping[Place, np.ndarray]) -> None:
        """vectors: (n, D) for the `rows` (n,)."""
        np.add.at(self._times, rows, 1)
        for place, values in vectors.items() if len(rows) else ():
            shape = (len(self._times), values.shape[1])
            self._tables.setdefault(place, np.empty(shape, np.float32))[rows] = values

    def complete(self, wrong: str) -> dict[Place, np.ndarray]:
        """The tables; raises AssertionError, saying how many rows are `wrong`, unless each came once."""
        missed = int((self._times != 1).sum())
        if missed:
            raise AssertionError(f"{missed} of {len(self._times)} {wrong}")
        return self._tables
