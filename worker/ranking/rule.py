"""Which score orders the candidates: one metric at one layer and level for all of them."""

from __future__ import annotations

import math
from collections.abc import Sequence

from worker.features.layers import DEFAULT_LAYERS, LAYER_HELP, LEVELS, SOURCE_LAYER
from worker.ranking.records import Candidate, RankBy, Scored

# First the published score for detection, then what is left of it when there is one category only, then
# those that tolerate candidates of different feature width. The last two do not, and come last.
PREFERRED_METRICS = ("tlogme", "logme_boxes", "logme", "h_score_regularized", "transrate", "h_score")

# The default place first, then the other backbone maps by how close their stride is, then the rest.
PREFERRED_LAYERS = tuple(
    dict.fromkeys(
        (
            *DEFAULT_LAYERS,
            "backbone.c4",
            "backbone.c5",
            "backbone.c3",
            "backbone.c2",
            *LAYER_HELP,
            SOURCE_LAYER,
        )
    )
)


def choose(candidates: Sequence[Candidate], asked: RankBy) -> tuple[str, str, str] | None:
    """(metric, layer, level) to order by, None when no candidate has a score that fits `asked`.

    Among the combinations that fit, the first in preference that is defined for every candidate with scores;
    when there is none, the one defined for most, the earlier in preference where several are. Values at
    untrained layers count after all others. A combination that is asked for completely is taken as it is.
    """
    if asked.metric and asked.layer and asked.level:
        return asked.metric, asked.layer, asked.level
    defined: dict[tuple[str, str, str], tuple[int, int]] = {}
    for candidate in candidates:
        for scored in candidate.scores:
            if _fits(scored, asked):
                place = (scored.metric, scored.layer, scored.level)
                trained, values = defined.get(place, (0, 0))
                has_value = is_defined(scored)
                trusted = has_value and scored.layer not in candidate.untrained
                defined[place] = (trained + trusted, values + has_value)
    if not defined:
        return None
    places = sorted(defined, key=_preference)
    return max(places, key=lambda place: defined[place])


def is_defined(scored: Scored) -> bool:
    """Whether there is a finite number to order by."""
    return scored.value is not None and math.isfinite(scored.value)


def _fits(scored: Scored, asked: RankBy) -> bool:
    return all(
        wanted in (None, found)
        for wanted, found in (
            (asked.metric, scored.metric),
            (asked.layer, scored.layer),
            (asked.level, scored.level),
        )
    )


def _preference(place: tuple[str, str, str]) -> tuple[int, int, int, tuple[str, str, str]]:
    metric, layer, level = place
    return _index(PREFERRED_LAYERS, layer), _index(LEVELS, level), _index(PREFERRED_METRICS, metric), place


def _index(preferred: Sequence[str], name: str) -> int:
    return preferred.index(name) if name in preferred else len(preferred)
