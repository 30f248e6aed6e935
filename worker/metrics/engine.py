"""The work that grows with N, as whoever does it offers it: `scan` with numpy, `torch_scan` on a device."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np

from worker.metrics.arrays import Floats, Ints
from worker.metrics.base import FeatureSet
from worker.metrics.columns import TargetColumns
from worker.metrics.options import Options
from worker.metrics.targets import Targets


class Scatter(NamedTuple):
    """matrix (D, D): (X-m)'(X-m), lower triangle. cubic (D,): sum over rows of |x - m|^2 (x - m).

    quartic: sum over rows of |x - m|^4. cross (K, D): columns'(X-m).
    """

    matrix: Floats
    cubic: Floats
    quartic: float
    cross: Floats


class Engine(Protocol):
    """A module with these functions. x (N, D): the features in the engine's own form; mean (D,): what to centre by."""

    def extremes(self, x: Any, block: int) -> tuple[int, float]:
        """How many rows hold NaN or infinity, and the largest absolute value in the others."""

    def column_means(self, x: Any, block: int) -> Floats:
        """(D,) float64 means of the columns."""

    def centred(self, x: Any, mean: Floats) -> Floats:
        """(N, D) float64 rows minus mean."""

    def centred_with_kernel(self, x: Any, mean: Floats) -> tuple[Floats, Floats]:
        """The centred rows (N, D) and their products (N, N), lower triangle."""

    def rows(self, x: Any, rows: Ints) -> np.ndarray:
        """Some rows as they are."""

    def energies(self, x: Any, block: int) -> Floats:
        """(N,) log sum exp of every row, in single precision where the features have no more; not finite where an entry is not."""

    def row_sum(self, x: Any, rows: Ints) -> Floats:
        """(D,) float64 sum of some rows."""

    def scatter(self, x: Any, mean: Floats, columns: TargetColumns, options: Options) -> Scatter:
        """Scatter around mean, and its products with target columns."""

    def scatter_with_rates(
        self, x: Any, mean: Floats, columns: TargetColumns, targets: Targets, options: Options
    ) -> tuple[Scatter, Floats]:
        """The scatter and the coding rate (C,) of every class."""

    def class_rates(self, x: Any, mean: Floats, targets: Targets, options: Options) -> Floats:
        """(C,) coding rates of the classes, without the scatter."""

    def cross_products(self, x: Any, mean: Floats, columns: TargetColumns, block: int) -> Floats:
        """(K, D) = columns'(x - mean)."""

    def map_rows(self, x: Any, mean: Floats, function: Callable[[Floats], Floats], block: int) -> Floats:
        """`function` of the centred rows, block by block, its results stacked."""


@dataclass(frozen=True, eq=False)
class Source:
    """One candidate where an engine can read it.

    x (N, D): the features of the objects in the engine's own form; region_x (R, D): those of the regions, None without.
    features: everything else.
    """

    engine: Engine
    features: FeatureSet
    x: Any
    region_x: Any = None
