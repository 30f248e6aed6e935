"""LogME: the log evidence of a Bayesian linear model from features to targets, per object.

y = X w + e with w ~ N(0, I / alpha) and e ~ N(0, I / beta), at the alpha and beta that maximise the evidence. Neither
features nor targets are centred. Source: You, Liu, Wang, Long, "LogME: Practical Assessment of Pre-trained Models for
Transfer Learning", ICML 2021, arXiv 2102.11005.

The authors seek the maximum by a fixed point (Algorithm 1) that starts at alpha = beta = 1 and stops after 11 steps or at
1 %. Where it arrives, the values are the same; it does not always. It stops short where weights shrink slowly: by 6e-9 to
2e-6 on the reference sets with N > D, by 3e-4 (classes) and 9e-4 (boxes) on the one with N < D, by up to 1e-2 in the mean
of permuted targets (`benchmarks/evidence.py`). And the start knows no scale: multiplied by 1e-8, the features of 300
objects in 20 dimensions and 5 classes score 0.075 there instead of 0.161, because 1 then lies where all weights are zero.
The maximum has neither fault; several may exist (features with a large offset have one for the offset and one for what
varies around it), and the highest counts. Run on until it stands still, the fixed point agrees to 1e-6 (tests).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Sequence

import numpy as np

from worker.metrics.base import Undefined, Value
from worker.metrics.changes import OF_EVIDENCE
from worker.metrics.evidence import Evidence, EvidenceSearch, lowest_decade
from worker.metrics.metric import Metric
from worker.metrics.prepared import Asked, Prepared
from worker.metrics.targets import Kind, Targets

CAPPED = "the features fit a target exactly: its evidence has no upper limit and was capped at rounding"

BLOCK = 1 << 17  # numbers of a block of columns: it should stay in the processor's cache


def evidences(prepared: Prepared, targets: Targets, kind: Kind) -> list[Evidence | None]:
    """Evidence of every column of a kind; None for a column of zeros. Boxes must have been checked."""
    prepared.require_signal()

    def compute(several: Sequence[Asked]) -> list[list[Evidence | None]]:
        return _evidences(several, kind)

    found: list[Evidence | None] = prepared.kept_together(targets, ("evidences", kind), compute)
    return found


def _evidences(several: Sequence[Asked], kind: Kind) -> list[list[Evidence | None]]:
    """Of the columns of each, in one search for all whose features have the same size and the same least ratio."""
    out: list[list[Evidence | None]] = [[] for _ in several]
    alike: dict[Hashable, list[int]] = defaultdict(list)
    for index, (prepared, _) in enumerate(several):
        spectrum = prepared.spectrum
        alike[spectrum.dual, len(spectrum.raw.diagonal), lowest_decade(spectrum)].append(index)
    for chosen in alike.values():
        for index, found in zip(chosen, _searched([several[i] for i in chosen], kind), strict=True):
            out[index] = found
    return out


def _searched(several: Sequence[Asked], kind: Kind) -> list[list[Evidence | None]]:
    bases = list(dict.fromkeys(prepared for prepared, _ in several))
    if len(bases) == 1:
        search = bases[0].memo("evidence", lambda: EvidenceSearch([bases[0].spectrum]))
    else:
        search = EvidenceSearch([prepared.spectrum for prepared in bases])
    columns = [prepared.project(targets, kind) for prepared, targets in several]
    raw = np.hstack([each.raw for each in columns])
    squares = np.concatenate([each.squares for each in columns])
    counts = [len(each.squares) for each in columns]
    of = np.repeat([bases.index(prepared) for prepared, _ in several], counts)
    out: list[Evidence | None] = [None] * len(squares)
    alive = np.flatnonzero(squares)
    together = max(1, BLOCK // len(raw))
    for start in range(0, len(alive), together):
        chosen = alive[start : start + together]
        found = search.maximised(raw.T[chosen], squares[chosen], of[chosen])
        for k, e in zip(chosen, found, strict=True):
            out[k] = e
    ends = np.cumsum(counts).tolist()
    return [out[begin:end] for begin, end in zip([0, *ends], ends, strict=False)]


def present(found: Sequence[Evidence | None]) -> list[Evidence]:
    """The evidences of the columns that are not zeros."""
    return [e for e in found if e is not None]


def mean_evidence(found: list[Evidence]) -> Value:
    """Mean of the evidences, with a note where one was capped."""
    notes = (CAPPED,) if any(e.capped for e in found) else ()
    return Value(float(np.mean([e.value for e in found])), notes)


def logme(prepared: Prepared, targets: Targets) -> Value:
    """LogME of the labels: mean over the classes that have objects of the one-against-rest evidence."""
    targets.several_classes()
    return mean_evidence(present(evidences(prepared, targets, "classes")))


def logme_boxes(prepared: Prepared, targets: Targets) -> Value:
    """LogME of the boxes: mean over x1, y1, x2, y2 of the evidence."""
    targets.check_boxes()
    found = evidences(prepared, targets, "boxes")
    for name, e in zip(("x1", "y1", "x2", "y2"), found, strict=True):
        if e is None:
            raise Undefined(f"{name} is 0 for every box: its evidence has no maximum")
    value, notes = mean_evidence(present(found))
    return Value(value, notes + targets.box_range_note())


UNITS = "targets divided by s add log s"
NULL = "near the evidence of the class frequencies alone (-1.07 for 2 balanced classes, -0.27 for 10, 0.78 for 80), almost whatever D"
PAPER = "You, Liu, Wang, Long: LogME, ICML 2021, arXiv 2102.11005"
EVIDENCE = (
    "L(y) = [ D/2 log a + N/2 log b - 1/2 logdet(a I + b X'X) - b/2 |Xm - y|^2 - a/2 |m|^2"
    " - N/2 log 2pi ] / N at its maximum over a, b, with m = (X'X + a/b I)^-1 X'y"
)

METRICS = (
    Metric(
        name="logme",
        title="LogME",
        needs=frozenset({"features", "labels"}),
        summary="How well a Bayesian linear model on the features explains the class of each object.",
        formula=f"mean over classes c of L(1[y = c]); {EVIDENCE}",
        paper=PAPER,
        null=NULL,
        unchanged=OF_EVIDENCE,
        compute=logme,
        statistics=True,
    ),
    Metric(
        name="logme_boxes",
        title="LogME on boxes",
        needs=frozenset({"features", "boxes"}),
        summary="How well a Bayesian linear model on the features explains where the objects are.",
        formula=f"mean over x1, y1, x2, y2 of L; {EVIDENCE}",
        paper=PAPER,
        null="the evidence of the boxes' second moment alone; depends on the dataset, hardly on D",
        unchanged=OF_EVIDENCE,
        law=UNITS,
        compute=logme_boxes,
        statistics=True,
    ),
)
