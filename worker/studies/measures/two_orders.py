"""How far two orders of the same candidates agree, such as one from pseudo boxes and one from true boxes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from worker.studies.measures.agreement import kendall, spearman
from worker.studies.measures.correlation import FEWEST, limits_of

BOOTSTRAP = 1000
MEASURES = {"kendall": kendall, "spearman": spearman}


def agreement_of(first: Mapping[str, float], second: Mapping[str, float], *, seed: int = 0) -> dict[str, Any]:
    """{"n", "measures": {"kendall", "spearman": {"value", "low", "high", "undefined"}}, "only_one": [...]}

    first, second: by candidate, a value that is higher for a better place; those in both are compared, `only_one` names the rest.
    The limits are 95 % percentiles over BOOTSTRAP resamples of the candidates.
    """
    both = sorted(set(first) & set(second))
    columns = [np.array([each[id] for id in both], np.float64) for each in (first, second)]
    undefined = None
    if len(both) < FEWEST:
        undefined = f"{len(both)} candidates have a place in both, at least {FEWEST} are needed"
    elif any(np.ptp(column) == 0 for column in columns):
        undefined = "one of them puts all candidates in one place"
    rows = np.random.default_rng(seed).integers(max(1, len(both)), size=(BOOTSTRAP, len(both)))
    measures: dict[str, dict[str, Any]] = {}
    for name, measure in MEASURES.items():
        value: dict[str, Any] = {"value": None, "low": None, "high": None, "undefined": undefined}
        if undefined is None:
            value["value"] = float(measure(columns[0][None], columns[1][None])[0])
            value["low"], value["high"] = limits_of(measure(columns[0][rows], columns[1][rows]))
        measures[name] = value
    return {"n": len(both), "measures": measures, "only_one": sorted(set(first) ^ set(second))}
