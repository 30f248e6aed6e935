"""LogME on regions: whether the features tell objects from background, and how a rough box is to be corrected.

A detector's heads look at regions it proposes, not at true boxes. So the rows are regions sampled from the
annotations: true boxes moved and scaled at random, with the deltas that bring them back, and background boxes. The
evidence is the published LogME (You et al., ICML 2021) of what the heads learn there: the class or background, the four
deltas, and the IoU with the object, which is what the order of the detections depends on. Which rows and targets are
used is ours.

Regions of one object resemble each other and share their class, but count as independent draws. Features that are smooth
over a jitter thus seem to know the class even if they do not: with 60 objects of 3 classes and D = 256, random features
that share 90 % of their variance over the jitters of an object reach -0.42 on `logme_regions` and 1.6 of 3 on
`h_score_regions`, where unrelated rows reach -0.65 and 0.01; with 300 objects -0.60 and 0.5. One class and the IoU suffer
too. Read the gain over a zero point, which suffers as well, or the metrics of single regions: they take the first jittered region of each object, and as
much background of each image, so that a smooth feature gains nothing, from fewer rows. Deltas are drawn for every
region by itself: theirs do not suffer.
"""

from __future__ import annotations

import numpy as np

from worker.metrics.arrays import Flags
from worker.metrics.base import Undefined, Value
from worker.metrics.changes import OF_EVIDENCE, OF_SINGLE
from worker.metrics.evidence import Evidence
from worker.metrics.logme import (
    EVIDENCE,
    PAPER,
    UNITS,
    evidences,
    logme,
    mean_evidence,
    present,
)
from worker.metrics.metric import Metric
from worker.metrics.prepared import Prepared
from worker.metrics.regions import DELTAS, require_background, varying
from worker.metrics.targets import Targets


def logme_regions(prepared: Prepared, targets: Targets) -> Value:
    """LogME of the classes and background: mean over the C + 1 one-against-rest columns of all regions.

    With one class the two columns are complements, whose evidences differ only by what an intercept would give;
    their mean is as good as either. With many, background has one column in C + 1, yet weighs more: every class column
    holds all background regions among the rest that its class is to be told from.
    """
    require_background(targets)
    return logme(prepared, targets)


def logme_deltas(prepared: Prepared, targets: Targets) -> Value:
    """LogME of the deltas: mean over dx, dy, dw, dh of the evidence on the jittered regions.

    Nothing is standardised: another unit of a delta adds the same constant for every candidate. A delta that is the same
    for all regions (of a jitter without scaling, say) has nothing to tell and is left out with a note.
    """
    used, notes = delta_evidences(prepared, targets)
    value, more = mean_evidence(used)
    return Value(value, notes + more)


def logme_iou(prepared: Prepared, targets: Targets) -> Value:
    """LogME of the IoU of every region with its true box, or of a background region with the nearest."""
    require_background(targets)
    targets.check_boxes("ious", "regions")
    if not varying(targets).all():
        raise Undefined("all regions have the same IoU: there is nothing to tell apart")
    return mean_evidence(present(evidences(prepared, targets, "boxes")))


def delta_evidences(prepared: Prepared, targets: Targets) -> tuple[list[Evidence], tuple[str, ...]]:
    """The evidence of every delta that varies, and a note on those that do not; raises Undefined where none does."""
    prepared.check()
    targets.check_boxes("deltas", "regions")
    alive = varying(targets)
    if not alive.any():
        raise Undefined("all jittered regions have the same deltas: there is nothing to correct")
    found = evidences(prepared, targets, "boxes")
    return present([found[k] for k in np.flatnonzero(alive)]), constant_note(alive)


def constant_note(alive: Flags) -> tuple[str, ...]:
    """A note on the deltas (4,) that are the same for all regions."""
    left = [name for name, varies in zip(DELTAS, alive, strict=True) if not varies]
    return (f"{', '.join(left)} are the same for all jittered regions and were left out",) if left else ()


NEEDS = frozenset({"features", "regions"})
SOURCE = f"{PAPER}; on sampled regions: detrank"

METRICS = (
    Metric(
        name="logme_regions",
        title="LogME on regions",
        needs=NEEDS,
        summary="How well a Bayesian linear model on the features tells classes and background apart in rough boxes.",
        formula=f"mean over classes and background c of L(1[y = c]); {EVIDENCE}",
        paper=SOURCE,
        null="near the mean over columns of -log(2 pi e p (1 - p)) / 2, p their share of the regions: -0.73 for one class "
        "and as much background (-1.07 where the features have no offset), 0.03 for 10 classes, 1.10 for 80; "
        "hardly depends on D; higher for features that are smooth over a jitter",
        unchanged=OF_EVIDENCE,
        compute=logme_regions,
        rederived=True,
        statistics=True,
        rows="regions",
    ),
    Metric(
        name="logme_regions_single",
        title="LogME on single regions",
        needs=NEEDS,
        summary="LogME on regions with one rough box of each object: smooth features do not gain by counting it often.",
        formula=f"mean over classes and background c of L(1[y = c]), one jittered region per object; {EVIDENCE}",
        paper=SOURCE,
        null="as of `logme_regions`, whatever the smoothness of the features",
        unchanged=OF_EVIDENCE & OF_SINGLE,
        compute=logme_regions,
        rederived=True,
        statistics=True,
        rows="single",
    ),
    Metric(
        name="logme_deltas",
        title="LogME on deltas",
        needs=NEEDS,
        summary="How well a Bayesian linear model on the features says where the object lies in a rough box.",
        formula=f"mean over dx, dy, dw, dh of L; {EVIDENCE}",
        paper=SOURCE,
        null="the evidence of the deltas' second moments alone, the mean of -log(2 pi e E[d^2]) / 2; set by the jitter, hardly by D",
        unchanged=OF_EVIDENCE,
        law=UNITS,
        compute=logme_deltas,
        rederived=True,
        statistics=True,
        rows="jittered",
    ),
    Metric(
        name="logme_iou",
        title="LogME on IoU",
        needs=NEEDS,
        summary="How well a Bayesian linear model on the features says how good a box is.",
        formula=f"L of the IoU; {EVIDENCE}",
        paper=SOURCE,
        null="between -log(2 pi e E[IoU^2]) / 2 and -log(2 pi e var IoU) / 2, as the features have an offset; hardly depends on D",
        unchanged=OF_EVIDENCE,
        law=UNITS,
        compute=logme_iou,
        rederived=True,
        statistics=True,
        rows="regions",
    ),
)
