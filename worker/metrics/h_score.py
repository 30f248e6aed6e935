"""H-score: how much of the features' covariance lies between the classes.

Source: Bao et al., "An Information-Theoretic Approach to Transferability in Task Transfer Learning",
ICIP 2019. With S the scatter and d_c the sum of class c's centred features, the published
tr(pinv(cov X) cov E[X|y]) is the sum over classes of d_c' pinv(S) d_c / n_c: the N - 1 cancel.
"""

from __future__ import annotations

import numpy as np

from worker.metrics.base import Metric, Undefined, Value
from worker.metrics.prepared import Prepared
from worker.metrics.targets import Targets


def h_score(prepared: Prepared, targets: Targets) -> Value:
    """H-score; undefined for N <= D + 1, where it is C - 1 whatever the features."""
    targets.several_classes()
    prepared.check()
    n, d = prepared.objects, prepared.dim
    if n <= d + 1:
        raise Undefined(
            f"{n} objects for {d} feature dimensions: with N <= D + 1 the H-score is C - 1 = "
            f"{len(targets.classes) - 1} whatever the features; use more than {d + 1} objects, or h_score_regularized"
        )
    prepared.require_variance()
    whitened = prepared.whitening(prepared.cross(targets, "classes").T)
    return Value(float((np.square(whitened).sum(axis=0) / targets.counts).sum()), prepared.whitening.notes())


METRICS = (
    Metric(
        name="h_score",
        title="H-score",
        needs=frozenset({"features", "labels"}),
        summary="How much of the features' variance lies between the classes, in units of the whole.",
        formula="tr( cov(X)^-1 cov(E[X|y]) ), between 0 and min(C - 1, D)",
        paper="Bao et al.: An Information-Theoretic Approach to Transferability in Task Transfer Learning, ICIP 2019",
        null="(C - 1) D / (N - 1): grows with D, so candidates of different D cannot be compared by it",
        invariant="any invertible affine map of the features",
        compute=h_score,
        statistics=True,
    ),
)
