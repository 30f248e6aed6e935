"""Second, third and fourth moments of features around a point, and what they become around another."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.linalg import blas

from worker.metrics.arrays import Floats


@dataclass(frozen=True, eq=False)
class Moments:
    """Of `objects` rows u relative to some point: scatter (D, D) = sum u u' (lower triangle),
    cubic (D,) = sum |u|^2 u, quartic = sum |u|^4."""

    objects: int
    scatter: Floats
    cubic: Floats
    quartic: float

    def _terms(self, e: Floats) -> tuple[Floats, float]:
        """What the cubic and the quartic gain when rows with zero mean and this scatter move by e."""
        ee = float(e @ e)
        trace = float(self.scatter.trace())
        se = blas.dsymv(1.0, self.scatter, e, lower=1)
        cubic = 2.0 * se + (trace + self.objects * ee) * e
        return cubic, 4.0 * float(e @ se) + self.objects * ee**2 + 2.0 * ee * trace

    def around(self, e: Floats) -> Moments:
        """From their mean to the point `mean - e`."""
        cubic, quartic = self._terms(e)
        return Moments(
            self.objects,
            _rank_one(self.scatter, self.objects, e),
            self.cubic + cubic,
            self.quartic + quartic + 4.0 * float(e @ self.cubic),
        )

    def at_mean(self, e: Floats) -> Moments:
        """From a point to their mean, which lies at that point + e. Undoes `around(e)`."""
        scatter = _rank_one(self.scatter, -self.objects, e)
        cubic, quartic = Moments(self.objects, scatter, self.cubic, 0.0)._terms(e)
        centred = self.cubic - cubic
        return Moments(self.objects, scatter, centred, self.quartic - quartic - 4.0 * float(e @ centred))

    def plus(self, other: Moments, sign: int = 1) -> Moments:
        """With the rows of another set around the same point added (or, sign -1, taken out)."""
        return Moments(
            self.objects + sign * other.objects,
            self.scatter + sign * other.scatter,
            self.cubic + sign * other.cubic,
            self.quartic + sign * other.quartic,
        )


def _rank_one(matrix: Floats, factor: float, v: Floats) -> Floats:
    """matrix + factor v v' (lower triangle), in a new array."""
    updated: Floats = blas.dsyr(float(factor), v, lower=1, a=np.asfortranarray(matrix))
    return updated
