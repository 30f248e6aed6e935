"""Scores of a zero point, kept beside the features that they are of: no candidate and no other ranking computes them again."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from worker.features import cache as store
from worker.features.reading import Reading
from worker.handlers.ranking.features import Wanted
from worker.handlers.ranking.scorable import Place
from worker.metrics import METRICS_VERSION, Score
from worker.metrics.jackknife import jackknife_interval

Scores = Mapping[Place, Mapping[str, Score]]


def key_of_scores(
    reading: Reading,
    places: Mapping[Place, Sequence[str]],
    calibration: Mapping[str, int],
    judged: Mapping[Place, Sequence[str]],
    *,
    from_statistics: bool,
) -> str:
    """Digest of all that the scores at these places depend on. judged: the metrics that have intervals there.

    from_statistics: the features were not kept.
    """
    return store.key_of(
        {
            "scores": METRICS_VERSION,
            "of": reading.key,
            "at": [[*place, list(names), list(judged[place])] for place, names in sorted(places.items())],
            "calibration": dict(calibration),
            "from_statistics": from_statistics,
        }
    )


def find(wanted: Wanted, key: str) -> dict[Place, dict[str, Score]] | None:
    """The scores under this key; None where none are kept."""
    kept = wanted.kept(key)
    if kept is None:
        return None
    replicates, facts = kept
    found: dict[Place, dict[str, Score]] = {}
    for number, row in enumerate(facts["scores"]):
        place = row["layer"], row["level"]
        found.setdefault(place, {})[row["metric"]] = _score(row, replicates.get(str(number)))
    return found


def keep(wanted: Wanted, key: str, scores: Scores) -> None:
    """Keeps the scores, without nulls, which zero points have none of."""
    rows: list[dict[str, Any]] = []
    replicates: dict[str, np.ndarray] = {}
    for (layer, level), of_place in scores.items():
        for metric, score in of_place.items():
            row: dict[str, Any] = {"layer": layer, "level": level, "metric": metric}
            row |= {"value": score.value, "undefined": score.undefined, "seconds": score.seconds}
            if score.interval is not None:
                replicates[str(len(rows))] = np.array(score.interval.replicates, dtype=np.float64)
                row["confidence"] = score.interval.level
            rows.append(row | {"notes": list(score.notes)})
    wanted.keep(key, replicates, {"scores": rows})


def _score(row: dict[str, Any], replicates: np.ndarray | None) -> Score:
    value, interval = row["value"], None
    if replicates is not None:
        interval = jackknife_interval(value, replicates, row["confidence"])
    return Score(value, row["undefined"], row["seconds"], tuple(row["notes"]), interval=interval)
