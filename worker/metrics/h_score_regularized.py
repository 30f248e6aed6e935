"""H-score with the covariance shrunk towards a multiple of the identity (Ledoit and Wolf 2004).

Source: Ibrahim, Ponomareva, Mazumder, "Newer is not always better", arXiv 2110.06893. The shrinkage weight is
the one of Ledoit and Wolf, "A well-conditioned estimator for large-dimensional covariance matrices", 2004,
section 3.3. The published code divides the scatter by N in the shrunk covariance and by N - 1 between classes.
"""

from __future__ import annotations

import numpy as np

from worker.metrics.arrays import Floats
from worker.metrics.base import Value
from worker.metrics.changes import OF_SHRUNK_COVARIANCE
from worker.metrics.metric import Metric
from worker.metrics.prepared import Prepared
from worker.metrics.targets import Kind, Targets

ALL_SHRUNK = "the shrinkage weight is 1: nothing but noise was found in the covariance"


def ledoit_wolf(trace: float, squared_norm: float, quartic: float, objects: int, dim: int) -> float:
    """Shrinkage weight in [0, 1] of a scatter, from its trace, squared Frobenius norm and sum |x - m|^4."""
    mu = trace / (objects * dim)
    second = squared_norm / objects**2
    beta = (quartic / objects - second) / (dim * objects)
    delta = (second - 2.0 * mu * trace / objects + dim * mu**2) / dim
    beta = min(beta, delta)
    return 0.0 if beta <= 0.0 else beta / delta


def shrunk(prepared: Prepared, targets: Targets, kind: Kind) -> tuple[Floats, Floats] | None:
    """b and x, both (size, K), with b'x = Y'X (S + shift I)^-1 X'Y (K, K) for centred features X and target columns Y,
    where the shrunk covariance is (1 - a)/N (S + shift I). None where a is 1."""
    prepared.require_variance()
    found: tuple[Floats, Floats] | None
    found = prepared.kept(targets, ("shrunk", kind), lambda: _shrunk(prepared, targets, kind))
    return found


def _shrunk(prepared: Prepared, targets: Targets, kind: Kind) -> tuple[Floats, Floats] | None:
    d = prepared.dim
    t = prepared.spectrum.centred
    weight = ledoit_wolf(t.trace, t.squared_norm, prepared.quartic, prepared.objects, d)
    if weight >= 1.0:
        return None
    b = prepared.project(targets, kind).centred
    shift = weight * t.trace / (d * (1.0 - weight))
    if shift <= 0.0:
        shift = t.trace * np.finfo(np.float64).eps
    x = t.solve(shift, b)
    return b, t.times(x.T).T if prepared.dual else x


def h_score_regularized(prepared: Prepared, targets: Targets) -> Value:
    """Regularised H-score; defined for any N and D as long as the features vary."""
    targets.several_classes()
    found = shrunk(prepared, targets, "classes")
    if found is None:
        return Value(0.0, (ALL_SHRUNK,))
    n = prepared.objects
    explained = np.einsum("ij,ij->j", *found)
    return Value(float(n / (n - 1) * (explained / targets.counts).sum()))


METRICS = (
    Metric(
        name="h_score_regularized",
        title="Regularised H-score",
        needs=frozenset({"features", "labels"}),
        summary="The H-score with a well-conditioned covariance: usable across candidates of different D.",
        formula=(
            "tr( Sa^-1 (1 - a) cov(E[X|y]) ), Sa = (1 - a) S/N + a tr(S)/(N D) I, a the Ledoit-Wolf weight"
        ),
        paper="Ibrahim, Ponomareva, Mazumder: Newer is not always better, arXiv 2110.06893",
        null="near 0 for noise of any D; more where few directions hold the variance and N is small: read z",
        unchanged=OF_SHRUNK_COVARIANCE,
        compute=h_score_regularized,
        statistics=True,
    ),
)
