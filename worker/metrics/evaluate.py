"""One metric on prepared features: its value, or why it has none."""

from __future__ import annotations

import time

import numpy as np

from worker.metrics.base import Score, Undefined, Value
from worker.metrics.metric import Metric
from worker.metrics.prepared import Prepared
from worker.metrics.regions import WITH_BACKGROUND
from worker.metrics.targets import Targets


def evaluate(metric: Metric, prepared: Prepared, targets: Targets) -> Score:
    """One metric's Score; never raises for what the data cannot support."""
    start = time.perf_counter()
    try:
        value, notes = attempt(metric, prepared, targets)
        undefined = None
    except Undefined as reason:
        value, undefined, notes = None, str(reason), ()
    # on regions, background is class 0 and class id c is c + 1
    notes += targets.absent_note(first=int(metric.rows in WITH_BACKGROUND))
    return Score(value, undefined, time.perf_counter() - start, notes)


def attempt(metric: Metric, prepared: Prepared, targets: Targets) -> Value:
    """The metric's finite Value; raises Undefined otherwise."""
    if metric.compute is None:
        raise Undefined(
            f"it is relative to the pool of candidates: score its terms ({', '.join(metric.terms)}) for each "
            "candidate and combine them with pool_scores"
        )
    try:
        with np.errstate(all="ignore"):
            value, notes = metric.compute(prepared, targets)
    except (ArithmeticError, np.linalg.LinAlgError) as error:
        raise Undefined(f"the features are out of the range of double precision: {error}") from error
    if not np.isfinite(value):
        raise Undefined("the features are out of the range of double precision: the result is not finite")
    return Value(float(value), notes)


def value_or_nan(metric: Metric, prepared: Prepared, targets: Targets) -> float:
    """The metric's value, NaN where it has none: for the many evaluations behind a null or an interval."""
    try:
        return attempt(metric, prepared, targets).value
    except Undefined:
        return np.nan
