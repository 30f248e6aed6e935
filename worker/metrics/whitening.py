"""The inverse square root of a scatter matrix, also where some directions carry no variance."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.linalg import eigh, lapack

from worker.metrics.arrays import Flags, Floats


@dataclass(frozen=True, eq=False)
class Whitening:
    """S^-1/2 of a scatter S (D, D) on the `rank` directions that vary.

    kept (D,): columns that are not constant. deviations: what to divide them by first.
    factor: lower Cholesky factor, or (D', rank) where it is singular.
    """

    kept: Flags
    deviations: Floats
    factor: Floats
    triangular: bool
    rank: int

    @classmethod
    def of(cls, scatter: Floats, mean: Floats, objects: int, tolerance: float | None) -> Whitening:
        """Factor the lower triangle of `scatter`, of `objects` rows with mean (D,).

        The rank is judged on the correlation matrix, so that the columns' scales do not matter.
        """
        eps = np.finfo(np.float64).eps
        limit = max(objects, len(mean)) * eps if tolerance is None else tolerance
        diagonal = scatter.diagonal()
        kept = diagonal > objects * np.square(4 * eps * mean)
        varying = scatter if kept.all() else np.asfortranarray(scatter[np.ix_(kept, kept)])
        variances = diagonal[kept]
        factor, info = lapack.dpotrf(varying, lower=1, clean=0)
        if info == 0 and (np.square(factor.diagonal()) > limit * variances).all():
            return cls(kept, np.ones(len(variances)), factor, True, len(factor))
        deviations = np.sqrt(variances)
        correlation = varying / deviations / deviations[:, None]
        values, vectors = eigh(correlation, lower=True, driver="evd", overwrite_a=True, check_finite=False)
        good = values > limit * values[-1]
        return cls(kept, deviations, vectors[:, good] / np.sqrt(values[good]), False, int(good.sum()))

    def __call__(self, v: Floats) -> Floats:
        """(rank, K) whitened columns of v (D, K): their squared lengths are v' pinv(S) v."""
        scaled = v[self.kept] / self.deviations[:, None]
        if not self.triangular:
            return np.asarray(self.factor.T @ scaled)
        out: Floats
        out, info = lapack.dtrtrs(self.factor, scaled, lower=1)
        if info:
            raise ArithmeticError(f"singular Cholesky factor at {info}")
        return out

    def notes(self) -> tuple[str, ...]:
        """What was left out, in words."""
        constant, dependent = int((~self.kept).sum()), int(self.kept.sum()) - self.rank
        out: tuple[str, ...] = ()
        if constant:
            out += (f"{constant} constant feature columns were left out",)
        if dependent:
            out += (f"the features span {self.rank} of {len(self.kept)} dimensions; the rest was left out",)
        return out
