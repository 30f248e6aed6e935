"""What the answers to a review say of all pseudo boxes: precision and recall, each with an interval.

Precision: the shares of the strata, weighted by how many boxes each has; its limits join Wilson's of each stratum, corrected
for drawing from few, by the squares of their distances (MOVER: Zou and Donner, Statistics in Medicine 27, 2008; of strata Yan
and Su, Statistics in Biopharmaceutical Research 2, 2010). Objects without a box: their mean over pictures drawn at random,
with the wider of Student's and the Poisson limits, for they crowd in some pictures. Recall: right boxes over right boxes and
missed objects; its limits take both at their ends, so it is wide rather than wrong.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any

from app.db.documents import Review

Z = 1.959964
IOU = 0.5
# Student's 97.5 % quantile by degrees of freedom; from 30 on as of the normal distribution, a little wider
_T = (
    *(12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228),
    *(2.201, 2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086),
    *(2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042),
)


@dataclass(frozen=True)
class Estimate:
    """A value with its 95 % limits, of `n` answers; in `undefined` why there is none."""

    n: int
    value: float | None = None
    low: float | None = None
    high: float | None = None
    undefined: str | None = None


def estimates_of(review: Review) -> dict[str, Estimate]:
    """`precision` and `recall` at IoU 0.5, `right`, how many of all pseudo boxes are, `missed`, how many objects have none."""
    precision, missed = _precision(review), _missed(review)
    total = sum(each["boxes"] for each in review["strata"])
    right = Estimate(precision.n, undefined=precision.undefined)
    if precision.value is not None:
        low, high = precision.low or 0.0, precision.high or 0.0
        right = Estimate(precision.n, total * precision.value, total * low, total * high)
    return {
        "precision": precision,
        "recall": _recall(right, missed),
        "right": right,
        "missed": missed,
    }


def is_right(item: dict[str, Any]) -> bool | None:
    """Whether a box is of its class and lies on an object by half; None where nobody has said."""
    decision = item.get("decision")
    if decision is None:
        return None
    if decision != "correct":
        return bool(decision == "accept")
    corrected = item["corrected"]
    return corrected["category"] == item["category"] and _iou(corrected["bbox"], item["bbox"]) >= IOU


def wilson(right: int, n: int, of: int) -> tuple[float, float]:
    """95 % limits of a share of which `right` of `n` answers, drawn from `of`, say yes (Wilson 1927)."""
    share = right / n
    if n >= of:
        return share, share
    counted = n * (of - 1) / (of - n)
    centre = share + Z * Z / (2 * counted)
    half = Z * math.sqrt(share * (1 - share) / counted + Z * Z / (4 * counted * counted))
    scale = 1 + Z * Z / counted
    return max(0.0, (centre - half) / scale), min(1.0, (centre + half) / scale)


def poisson(count: int) -> tuple[float, float]:
    """Exact 95 % limits of the mean of a count (Garwood, Biometrika 28, 1936)."""
    low = 0.0 if count == 0 else _mean_where(lambda mean: 1 - _at_most(count - 1, mean), 0.025, rising=True)
    return low, _mean_where(lambda mean: _at_most(count, mean), 0.025, rising=False)


def _precision(review: Review) -> Estimate:
    value = below = above = 0.0
    said = [(each, is_right(each)) for each in review["items"]]
    n = sum(right is not None for _, right in said)
    total = sum(each["boxes"] for each in review["strata"])
    for stratum, about in enumerate(review["strata"]):
        answers = [right for each, right in said if each["stratum"] == stratum and right is not None]
        if not answers:
            why = f"no box with a score of {about['low']:.2f} to {about['high']:.2f} has been looked at: decide on one"
            return Estimate(n, undefined=why)
        weight, share = about["boxes"] / total, fmean(answers)
        low, high = wilson(sum(answers), len(answers), about["boxes"])
        value += weight * share
        below += (weight * (share - low)) ** 2
        above += (weight * (high - share)) ** 2
    if not review["strata"]:
        return Estimate(n, undefined="there is no pseudo box")
    return Estimate(n, value, max(0.0, value - math.sqrt(below)), min(1.0, value + math.sqrt(above)))


def _missed(review: Review) -> Estimate:
    """In all pictures together."""
    counts = [each["missed"] for each in review["pictures"] if each.get("missed") is not None]
    n, of = len(counts), review["all_pictures"]
    if n < 2:
        return Estimate(
            n, undefined="in fewer than two pictures somebody has counted the objects without a box"
        )
    mean = fmean(counts)
    half = _T[min(n - 1, len(_T)) - 1] * stdev(counts) / math.sqrt(n)
    exact = [end / n for end in poisson(sum(counts))]
    return Estimate(n, of * mean, of * max(0.0, min(mean - half, exact[0])), of * max(mean + half, exact[1]))


def _recall(right: Estimate, missed: Estimate) -> Estimate:
    n = min(right.n, missed.n)
    if right.value is None or missed.value is None:
        return Estimate(n, undefined=right.undefined or missed.undefined)
    ends = [
        (right.value, missed.value),
        (right.low or 0.0, missed.high or 0.0),
        (right.high or 0.0, missed.low or 0.0),
    ]
    shares = [found / (found + without) if found + without else None for found, without in ends]
    if shares[0] is None:
        return Estimate(n, undefined="no box is right and no object is missed: there is none to find")
    return Estimate(n, shares[0], shares[1], shares[2])


def _iou(a: Sequence[float], b: Sequence[float]) -> float:
    """Of xywh boxes."""
    shared = 1.0
    for axis in (0, 1):
        low, high = max(a[axis], b[axis]), min(a[axis] + a[axis + 2], b[axis] + b[axis + 2])
        shared *= max(0.0, high - low)
    union = a[2] * a[3] + b[2] * b[3] - shared
    return shared / union if union > 0 else 0.0


def _at_most(count: int, mean: float) -> float:
    """P(X <= count) of a Poisson variable."""
    return math.fsum(math.exp(k * math.log(mean) - mean - math.lgamma(k + 1)) for k in range(count + 1))


def _mean_where(chance: Any, wanted: float, *, rising: bool) -> float:
    low, high = 1e-9, 1.0
    while (chance(high) < wanted) == rising:
        high *= 2
    for _ in range(80):
        middle = (low + high) / 2
        if (chance(middle) < wanted) == rising:
            low = middle
        else:
            high = middle
    return high
