"""LogME: the log evidence of a Bayesian linear model from features to targets, per object.

y = X w + e with w ~ N(0, I / alpha) and e ~ N(0, I / beta); alpha and beta maximise the evidence by a fixed
point. Source: You, Liu, Wang, Long, "LogME: Practical Assessment of Pre-trained Models for Transfer
Learning", ICML 2021, arXiv 2102.11005, Algorithm 1, with the authors' later start and stop (alpha = beta = 1,
11 steps, 1 %). Neither features nor targets are centred.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from worker.metrics.base import Metric, Undefined, Value
from worker.metrics.options import Options
from worker.metrics.prepared import Prepared
from worker.metrics.spectrum import Spectrum
from worker.metrics.targets import Kind, Targets

CAPPED = "the features fit a target exactly: its evidence has no upper limit and was capped at rounding"


@dataclass(frozen=True)
class Evidence:
    """Maximised log evidence per object of one target column, and the ratio alpha/beta that gave it.

    ratio is the regulariser of the last posterior mean, (X'X + ratio)^-1 X'y.
    """

    value: float
    ratio: float
    capped: bool


def evidence(spectrum: Spectrum, b: np.ndarray, square: float, options: Options) -> Evidence:
    """Evidence of one column with projection b (size,) and y'y = square > 0.

    The residual and the posterior's norm belong to the last ratio, alpha and beta to the one after it: that
    is where the published fixed point stops.
    """
    t, n = spectrum.raw, spectrum.objects
    s = t.eigenvalues
    floor = square * n * np.finfo(np.float64).eps
    ratio = 1.0
    for _ in range(options.logme_iterations):
        x = t.solve(ratio, b)
        xx = float(x @ x)
        if spectrum.dual:
            norm, residual = float(x @ t.times(x)), ratio**2 * xx
        else:
            norm, residual = xx, square - float(b @ x) - ratio * xx
        capped = residual <= floor
        residual = max(residual, floor)
        spread = s + ratio
        used = float((s / spread).sum())
        left = float((ratio / spread).sum()) + (n - len(s))
        if norm <= 0.0 or used <= 0.0:
            raise Undefined("the features are orthogonal to a target: its evidence has no maximum")
        alpha, beta = used / norm, left / residual
        last, ratio = ratio, alpha / beta
        if abs(ratio - last) / last < options.logme_tolerance:
            break
    value = (
        0.5 * len(s) * np.log(alpha)
        + 0.5 * n * np.log(beta)
        - 0.5 * float(np.log(alpha + beta * s).sum())
        - 0.5 * beta * residual
        - 0.5 * alpha * norm
        - 0.5 * n * np.log(2.0 * np.pi)
    ) / n
    return Evidence(float(value), last, capped)


def evidences(prepared: Prepared, targets: Targets, kind: Kind) -> list[Evidence | None]:
    """Evidence of every column of a kind; None for a column of zeros. Boxes must have been checked."""
    prepared.require_signal()

    def compute() -> list[Evidence | None]:
        columns = prepared.project(targets, kind)
        raw = np.asfortranarray(columns.raw)
        return [
            evidence(prepared.spectrum, raw[:, k], square, prepared.options) if square else None
            for k, square in enumerate(columns.squares)
        ]

    return prepared.kept(targets, ("evidences", kind), compute)


def mean_evidence(found: list[Evidence]) -> Value:
    """Mean of the evidences, with a note where one was capped."""
    notes = (CAPPED,) if any(e.capped for e in found) else ()
    return Value(float(np.mean([e.value for e in found])), notes)


def logme(prepared: Prepared, targets: Targets) -> Value:
    """LogME of the labels: mean over the classes that have objects of the one-against-rest evidence."""
    targets.several_classes()
    return mean_evidence(evidences(prepared, targets, "classes"))


def logme_boxes(prepared: Prepared, targets: Targets) -> Value:
    """LogME of the boxes: mean over x1, y1, x2, y2 of the evidence."""
    targets.check_boxes()
    found = evidences(prepared, targets, "boxes")
    for name, e in zip(("x1", "y1", "x2", "y2"), found, strict=True):
        if e is None:
            raise Undefined(f"{name} is 0 for every box: its evidence has no maximum")
    value, notes = mean_evidence(found)
    return Value(value, notes + targets.box_range_note())


INVARIANT = "any common scale or rotation of the features; not a shift. Targets divided by s add log s"
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
        invariant=INVARIANT,
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
        invariant=INVARIANT,
        compute=logme_boxes,
        statistics=True,
    ),
)
