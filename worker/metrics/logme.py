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

BLOCK = 1 << 17  # numbers of a block of columns: it should stay in the processor's cache


@dataclass(frozen=True)
class Evidence:
    """Maximised log evidence per object of one target column, and the ratio alpha/beta that gave it.

    ratio is the regulariser of the last posterior mean, (X'X + ratio)^-1 X'y.
    """

    value: float
    ratio: float
    capped: bool


def evidence(spectrum: Spectrum, b: np.ndarray, squares: np.ndarray, options: Options) -> list[Evidence]:
    """Evidence of every column, given as rows b (K, size) of projections and their y'y (K,) > 0.

    The residual and the posterior's norm belong to the last ratio, alpha and beta to the one after it: that
    is where the published fixed point stops. Columns that have stopped leave the iteration.
    """
    t, n, d = spectrum.raw, spectrum.objects, len(spectrum.raw.diagonal)
    ratios, capped = np.ones(len(b)), np.zeros(len(b), dtype=bool)
    alphas, betas, norms, residuals = np.empty((4, len(b)))
    going = np.arange(len(b))
    for step in range(options.logme_iterations):
        if step:
            ratios[going] = alphas[going] / betas[going]
        ratio, column, square = ratios[going], b[going], squares[going]
        x = t.solve_each(ratio, column)
        xx = np.einsum("ij,ij->i", x, x)
        if spectrum.dual:
            norm, residual = np.einsum("ij,ij->i", x, t.times(x)), ratio**2 * xx
        else:
            norm, residual = xx, square - np.einsum("ij,ij->i", column, x) - ratio * xx
        floor = square * n * np.finfo(np.float64).eps
        capped[going] = residual <= floor
        residual = np.maximum(residual, floor)
        used, inverse = t.traces(ratio)
        if (norm <= 0.0).any() or (used <= 0.0).any():
            raise Undefined("the features are orthogonal to a target: its evidence has no maximum")
        alpha, beta = used / norm, (ratio * inverse + (n - d)) / residual
        alphas[going], betas[going], norms[going], residuals[going] = alpha, beta, norm, residual
        going = going[np.abs(alpha / beta - ratio) >= options.logme_tolerance * ratio]
        if not len(going):
            break
    # d log(alpha) - log det(alpha + beta T), written so that only the ratio meets the matrix.
    spread = d * np.log(alphas / betas) - t.logdets(alphas / betas)
    values = spread + n * np.log(betas / (2.0 * np.pi)) - betas * residuals - alphas * norms
    values /= 2.0 * n
    return [Evidence(*e) for e in zip(values.tolist(), ratios.tolist(), capped.tolist(), strict=True)]


def evidences(prepared: Prepared, targets: Targets, kind: Kind) -> list[Evidence | None]:
    """Evidence of every column of a kind; None for a column of zeros. Boxes must have been checked."""
    prepared.require_signal()

    def compute() -> list[Evidence | None]:
        columns, spectrum = prepared.project(targets, kind), prepared.spectrum
        out: list[Evidence | None] = [None] * len(columns.squares)
        alive = np.flatnonzero(columns.squares)
        together = max(1, BLOCK // len(columns.raw))
        for start in range(0, len(alive), together):
            chosen = alive[start : start + together]
            found = evidence(spectrum, columns.raw.T[chosen], columns.squares[chosen], prepared.options)
            for k, e in zip(chosen, found, strict=True):
                out[k] = e
        return out

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
