"""H-score: how much of the features' covariance lies between the classes.

Source: Bao et al., "An Information-Theoretic Approach to Transferability in Task Transfer Learning",
ICIP 2019. With S the scatter and d_c the sum of class c's centred features, the published
tr(pinv(cov X) cov E[X|y]) is the sum over classes of d_c' pinv(S) d_c / n_c: the N - 1 cancel.
"""

from __future__ import annotations

import numpy as np

from worker.metrics.base import Undefined, Value
from worker.metrics.changes import EVERY
from worker.metrics.metric import Metric
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


def h_score_adjusted(prepared: Prepared, targets: Targets) -> Value:
    """H-score with what chance alone reaches taken out: 0 on average for noise, at most C - 1."""
    value, notes = h_score(prepared, targets)
    n, classes = prepared.objects, len(targets.classes)
    rank = prepared.whitening.rank
    share = 1.0 - (1.0 - value / (classes - 1)) * (n - 1) / (n - 1 - rank)
    return Value((classes - 1) * share, notes)


METRICS = (
    Metric(
        name="h_score",
        title="H-score",
        needs=frozenset({"features", "labels"}),
        summary="How much of the features' variance lies between the classes, in units of the whole.",
        formula="tr( cov(X)^-1 cov(E[X|y]) ), between 0 and min(C - 1, D)",
        paper="Bao et al.: An Information-Theoretic Approach to Transferability in Task Transfer Learning, ICIP 2019",
        null="(C - 1) D / (N - 1): grows with D, so candidates of different D cannot be compared by it",
        unchanged=EVERY,
        compute=h_score,
        statistics=True,
    ),
    Metric(
        name="h_score_adjusted",
        title="H-score, adjusted for chance",
        needs=frozenset({"features", "labels"}),
        summary="The H-score less what noise of the same D would reach, as adjusted R^2 is to R^2.",
        formula="(C - 1) [ 1 - (1 - H / (C - 1)) (N - 1) / (N - 1 - D) ]",
        paper="detrank, after Bao et al., ICIP 2019",
        null="0 on average for every D",
        unchanged=EVERY,
        compute=h_score_adjusted,
        rederived=True,
        statistics=True,
    ),
)
