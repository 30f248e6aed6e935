"""The regularised H-score on regions, of classes with background and of continuous targets.

For continuous targets the class means, E[X|y], are replaced by the linear conditional expectation: with centred
targets Y (N, K), Xhat = Y (Y'Y)^-1 Y'X. For one-hot targets that is the class means, so the published score
(Ibrahim, Ponomareva, Mazumder, arXiv 2110.06893) is the special case. tr(Sa^-1 (1 - a) cov(Xhat)) then needs only the
K x D products Y'X: it is N/(N - 1) tr((Y'Y)^-1 Y'X (S + shift I)^-1 X'Y), without shrinkage the sum of the squared
canonical correlations between features and targets.
"""

from __future__ import annotations

import numpy as np

from worker.metrics.arrays import Floats
from worker.metrics.base import Undefined, Value
from worker.metrics.changes import OF_SHRUNK_COVARIANCE, OF_SINGLE
from worker.metrics.h_score_regularized import ALL_SHRUNK, h_score_regularized, shrunk
from worker.metrics.metric import Metric
from worker.metrics.prepared import Prepared
from worker.metrics.region_evidence import NEEDS, constant_note
from worker.metrics.regions import require_background, varying
from worker.metrics.targets import Targets

# Targets whose correlation matrix has an eigenvalue below this are dependent: rounding leaves 1e-13 at most.
DEPENDENT = 1e-10


def h_score_regions(prepared: Prepared, targets: Targets) -> Value:
    """Regularised H-score of the classes and background, between 0 and C (C + 1 classes in all)."""
    require_background(targets)
    return h_score_regularized(prepared, targets)


def h_score_deltas(prepared: Prepared, targets: Targets) -> Value:
    """Regularised H-score of dx, dy, dw, dh on the jittered regions, between 0 and 4.

    Least squares on the directions in which the deltas vary: one that is the same for all regions is left out with a
    note, and of dependent ones only the directions they span count.
    """
    prepared.check()
    targets.check_boxes("deltas", "regions")
    alive = varying(targets)
    if not alive.any():
        raise Undefined("all jittered regions have the same deltas: there is nothing to correct")
    value, notes = continuous_h_score(prepared, targets, "jittered regions")
    return Value(value, constant_note(alive) + notes)


def h_score_iou(prepared: Prepared, targets: Targets) -> Value:
    """Regularised H-score of the IoU over all regions, between 0 and 1."""
    require_background(targets)
    targets.check_boxes("ious", "regions")
    if not varying(targets).all():
        raise Undefined("all regions have the same IoU: there is nothing to tell apart")
    return continuous_h_score(prepared, targets, "regions")


def continuous_h_score(prepared: Prepared, targets: Targets, rows: str) -> Value:
    """tr(Sa^-1 (1 - a) cov(Xhat)) of the continuous targets, of which some must vary; `rows` in words."""
    n, k = prepared.objects, len(varying(targets))
    if n <= k + 1:
        raise Undefined(
            f"{n} {rows} for {k} targets: any features would fit them; more than {k + 1} are needed"
        )
    found = shrunk(prepared, targets, "boxes")
    if found is None:
        return Value(0.0, (ALL_SHRUNK,))
    b, x = found
    whitened = independent(targets)
    explained = whitened.T @ (b.T @ x) @ whitened
    return Value(float(n / (n - 1) * explained.trace()))


def independent(targets: Targets) -> Floats:
    """W (K, rank) such that Y W has orthonormal columns, for the centred continuous targets Y (N, K)."""
    alive = varying(targets)
    _, scatter = targets.box_moments
    deviations = np.sqrt(scatter.diagonal()[alive])
    values, vectors = np.linalg.eigh(scatter[np.ix_(alive, alive)] / np.outer(deviations, deviations))
    good = values > DEPENDENT
    out = np.zeros((len(alive), int(good.sum())))
    out[alive] = vectors[:, good] / np.sqrt(values[good]) / deviations[:, None]
    return out


FORMULA = "Sa = (1 - a) S/N + a tr(S)/(N D) I, a the Ledoit-Wolf weight"
PAPER = (
    "Ibrahim, Ponomareva, Mazumder: Newer is not always better, arXiv 2110.06893; on sampled regions: detrank"
)
NULL = (
    "near 0 for noise of any D; more where few directions hold the variance and there are few regions: read z"
)

METRICS = (
    Metric(
        name="h_score_regions",
        title="Regularised H-score on regions",
        needs=NEEDS,
        summary="How much of the features' variance in rough boxes lies between the classes and background.",
        formula=f"tr( Sa^-1 (1 - a) cov(E[X|y]) ), y a class or background, {FORMULA}",
        paper=PAPER,
        null=NULL,
        unchanged=OF_SHRUNK_COVARIANCE,
        compute=h_score_regions,
        rederived=True,
        statistics=True,
        rows="regions",
    ),
    Metric(
        name="h_score_regions_single",
        title="Regularised H-score on single regions",
        needs=NEEDS,
        summary="The H-score on regions with one rough box of each object: smooth features do not gain by counting it often.",
        formula=f"tr( Sa^-1 (1 - a) cov(E[X|y]) ), y a class or background, one jittered region per object, {FORMULA}",
        paper=PAPER,
        null=NULL,
        unchanged=OF_SHRUNK_COVARIANCE & OF_SINGLE,
        compute=h_score_regions,
        rederived=True,
        statistics=True,
        rows="single",
    ),
    Metric(
        name="h_score_deltas",
        title="Regularised H-score of deltas",
        needs=NEEDS,
        summary="How much of the features' variance in rough boxes goes with where the object lies in them.",
        formula=f"tr( Sa^-1 (1 - a) cov(Xhat) ), Xhat = Y (Y'Y)^-1 Y'X, Y the centred deltas, {FORMULA}",
        paper=PAPER,
        null=NULL,
        unchanged=OF_SHRUNK_COVARIANCE,
        law="an invertible affine map of the deltas changes nothing either",
        compute=h_score_deltas,
        rederived=True,
        statistics=True,
        rows="jittered",
    ),
    Metric(
        name="h_score_iou",
        title="Regularised H-score of IoU",
        needs=NEEDS,
        summary="How much of the features' variance in rough boxes goes with how good the box is.",
        formula=f"tr( Sa^-1 (1 - a) cov(Xhat) ), Xhat = Y (Y'Y)^-1 Y'X, Y the centred IoU, {FORMULA}",
        paper=PAPER,
        null=NULL,
        unchanged=OF_SHRUNK_COVARIANCE,
        compute=h_score_iou,
        rederived=True,
        statistics=True,
        rows="regions",
    ),
)
