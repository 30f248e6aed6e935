"""R(Z) = 1/2 logdet(I + Z'Z / (n epsilon)) (Ma et al. 2007), from whichever Gram matrix is smaller."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.linalg import lapack

from worker.metrics.arrays import Floats


@dataclass(frozen=True)
class CodingRateOptions:
    """Settings of TransRate. epsilon: the squared distortion of the coding rate (Huang et al. 2022)."""

    epsilon: float = 1e-4


def coding_rate(gram: Floats, objects: int, epsilon: float) -> float:
    """Coding rate in nats of `objects` rows, given Z'Z or ZZ' (lower triangle is read; overwritten)."""
    gram *= 1.0 / (objects * epsilon)
    np.einsum("ii->i", gram)[:] += 1.0
    factor, info = lapack.dpotrf(gram, lower=1, clean=0, overwrite_a=1)
    if info:
        raise ArithmeticError(f"the coding rate's matrix is not positive definite (minor {info})")
    return float(np.log(factor.diagonal()).sum())
