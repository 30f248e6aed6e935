"""Target columns: what the linear metrics regress on, stored by row because most entries are zero."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import sparse

from worker.metrics.arrays import Floats, Ints

DENSE_UP_TO = (
    128  # more columns than this are multiplied as a sparse matrix: one addition per entry, not per column
)


@dataclass(frozen=True, eq=False)
class TargetColumns:
    """K columns over N objects with w entries per object: column index[i, j] of row i holds weight[i, j].

    index (N, w) int64, weight (N, w) float64, count K. No row names a column twice.
    """

    index: Ints
    weight: Floats
    count: int

    @property
    def sums(self) -> Floats:
        """(K,) 1'y of each column."""
        return np.asarray(np.bincount(self.index.ravel(), self.weight.ravel(), self.count), np.float64)

    @property
    def squares(self) -> Floats:
        """(K,) y'y of each column."""
        return np.asarray(
            np.bincount(self.index.ravel(), np.square(self.weight).ravel(), self.count), np.float64
        )

    def rows(self, part: slice | Ints) -> TargetColumns:
        return TargetColumns(self.index[part], self.weight[part], self.count)

    def dense(self) -> Floats:
        """(N, K) float64."""
        out = np.zeros((len(self.index), self.count))
        np.put_along_axis(out, self.index, self.weight, axis=1)
        return out

    def products(self, block: Floats) -> Floats:
        """(K, D) = y' block, for block (N, D)."""
        present = np.flatnonzero(np.bincount(self.index.ravel(), minlength=self.count))
        if 2 * len(present) <= self.count:  # rows sorted by class: most columns are empty here
            out = np.zeros((self.count, block.shape[1]))
            place = np.zeros(self.count, dtype=np.int64)
            place[present] = np.arange(len(present))
            if len(present):
                out[present] = TargetColumns(place[self.index], self.weight, len(present)).products(block)
            return out
        if self.count <= DENSE_UP_TO:
            return self.dense().T @ block
        n, w = self.index.shape
        rows = sparse.csr_matrix(
            (self.weight.ravel(), self.index.ravel(), np.arange(0, n * w + 1, w)), (n, self.count)
        )
        return np.asarray(rows.T @ block)


def no_columns(n: int) -> TargetColumns:
    return TargetColumns(np.empty((n, 0), np.int64), np.empty((n, 0)), 0)


def beside(parts: Sequence[TargetColumns]) -> TargetColumns:
    """All columns of several sets over the same objects, in order."""
    starts = np.cumsum([0] + [p.count for p in parts])
    return TargetColumns(
        np.hstack([p.index + start for p, start in zip(parts, starts, strict=False)]),
        np.hstack([p.weight for p in parts]),
        int(starts[-1]),
    )
