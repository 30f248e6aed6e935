"""One score for a detector's two tasks: what is in a rough box, and how to correct it.

Sums over the two kinds of rows with the weights of a detector's own loss, classification and box loss one to one (Ren et
al., Faster R-CNN, NeurIPS 2015; the published code adds the two terms), not tuned on any pool. `detection_evidence` adds
nats per row and target column, as TLogME averages its two terms. `detection_h_score` adds shares of what a perfect linear
readout would reach, each at most N/(N - 1).

`joint_evidence` adds up instead of averaging: it is the log evidence of the linear-Gaussian model of a whole one-stage head,
which has one output per class on every region (background is where all are zero; a column of its own would count one
class twice) and four deltas on the regions that belong to an object. Outputs are independent given the
features, as in the head's loss, so the class part weighs more the more classes there are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from worker.metrics.base import Rows, Value
from worker.metrics.changes import OF_EVIDENCE, OF_SHRUNK_COVARIANCE, OF_SINGLE
from worker.metrics.evidence import Evidence
from worker.metrics.logme import CAPPED, EVIDENCE, UNITS, evidences, present
from worker.metrics.metric import Metric, Sum
from worker.metrics.prepared import Prepared
from worker.metrics.region_evidence import METRICS as ON_REGIONS
from worker.metrics.region_evidence import NEEDS, SOURCE, delta_evidences
from worker.metrics.region_h_score import NULL, PAPER, h_score_deltas, h_score_regions, independent
from worker.metrics.regions import require_background
from worker.metrics.targets import Targets

LOGME_REGIONS, LOGME_SINGLE, LOGME_DELTAS, _ = ON_REGIONS


def class_nats(prepared: Prepared, targets: Targets) -> Value:
    """Sum over the classes, background not among them, of the evidence, in nats per region."""
    require_background(targets)
    _, *found = evidences(prepared, targets, "classes")
    return _total(present(found))


def delta_nats(prepared: Prepared, targets: Targets) -> Value:
    """Sum over the deltas of the evidence, in nats per jittered region."""
    found, notes = delta_evidences(prepared, targets)
    value, more = _total(found)
    return Value(value, notes + more)


def _total(found: list[Evidence]) -> Value:
    notes = (CAPPED,) if any(e.capped for e in found) else ()
    return Value(float(np.sum([e.value for e in found])), notes)


def class_share(prepared: Prepared, targets: Targets) -> Value:
    """`h_score_regions` as a share of its C directions, for C classes and background."""
    value, notes = h_score_regions(prepared, targets)
    return Value(value / (len(targets.classes) - 1), notes)


def delta_share(prepared: Prepared, targets: Targets) -> Value:
    """`h_score_deltas` as a share of the directions in which the deltas vary, four as a rule."""
    value, notes = h_score_deltas(prepared, targets)
    return Value(value / independent(targets).shape[1], notes)


def one_to_one(targets: Mapping[Rows, Targets]) -> tuple[float, ...]:
    """One each, as in a detector's loss."""
    return 1.0, 1.0


def by_rows(targets: Mapping[Rows, Targets]) -> tuple[float, ...]:
    """One, and the jittered share of the regions; the same share in every replicate of an interval."""
    return 1.0, float(targets["jittered"].counts.sum() / targets["regions"].counts.sum())


def _term(name: str, compute: Callable[[Prepared, Targets], Value], rows: Rows) -> Metric:
    """A term that is no metric by itself."""
    return Metric(name, name, NEEDS, "", "", "", "", frozenset(), compute, rows=rows)


DELTA_SHARE = _term("detection_h_score of deltas", delta_share, "jittered")

METRICS = (
    Metric(
        name="detection_evidence",
        title="Detection evidence",
        needs=NEEDS,
        summary="LogME of classes with background and LogME of deltas, added: recognition and localisation in rough boxes.",
        formula="logme_regions + logme_deltas",
        paper=SOURCE,
        null="the sum of the two terms' nulls",
        unchanged=OF_EVIDENCE,
        law=UNITS,
        rederived=True,
        statistics=True,
        rows="regions",
        sum_of=Sum((LOGME_REGIONS, LOGME_DELTAS), one_to_one),
    ),
    Metric(
        name="detection_evidence_single",
        title="Detection evidence on single regions",
        needs=NEEDS,
        summary="Detection evidence whose class term has one rough box of each object, so that smooth features do not gain.",
        formula="logme_regions_single + logme_deltas",
        paper=SOURCE,
        null="the sum of the two terms' nulls",
        unchanged=OF_EVIDENCE & OF_SINGLE,
        law=UNITS,
        rederived=True,
        statistics=True,
        rows="regions",
        sum_of=Sum((LOGME_SINGLE, LOGME_DELTAS), one_to_one),
    ),
    Metric(
        name="detection_h_score",
        title="Detection H-score",
        needs=NEEDS,
        summary="Regularised H-scores of classes with background and of deltas, each as a share of its directions, added.",
        formula="h_score_regions / C + h_score_deltas / 4, C the classes without background",
        paper=PAPER,
        null=NULL,
        unchanged=OF_SHRUNK_COVARIANCE,
        rederived=True,
        statistics=True,
        rows="regions",
        sum_of=Sum(
            (
                _term("detection_h_score of classes", class_share, "regions"),
                DELTA_SHARE,
            ),
            one_to_one,
        ),
    ),
    Metric(
        name="detection_h_score_single",
        title="Detection H-score on single regions",
        needs=NEEDS,
        summary="Detection H-score whose class term has one rough box of each object, so that smooth features do not gain.",
        formula="h_score_regions_single / C + h_score_deltas / 4, C the classes without background",
        paper=PAPER,
        null=NULL,
        unchanged=OF_SHRUNK_COVARIANCE & OF_SINGLE,
        rederived=True,
        statistics=True,
        rows="regions",
        sum_of=Sum(
            (_term("detection_h_score_single of classes", class_share, "single"), DELTA_SHARE), one_to_one
        ),
    ),
    Metric(
        name="joint_evidence",
        title="Joint evidence",
        needs=NEEDS,
        summary="The log evidence, in nats per region, of all that a one-stage head has to say: classes and deltas together.",
        formula="sum over classes c of L(1[y = c]) on all regions"
        f" + (jittered share of the regions) * sum over dx, dy, dw, dh of L on the jittered; {EVIDENCE}",
        paper=SOURCE,
        null="the sum of the nulls of its columns; grows with the number of classes, hardly with D",
        unchanged=OF_EVIDENCE,
        law=UNITS,
        rederived=True,
        statistics=True,
        rows="regions",
        sum_of=Sum(
            (
                _term("joint_evidence of classes", class_nats, "regions"),
                _term("joint_evidence of deltas", delta_nats, "jittered"),
            ),
            by_rows,
        ),
    ),
)
