"""Which score orders the candidates: one metric at one layer and level for all of them."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Collection, Sequence
from statistics import median

from worker.features.layers import DEFAULT_LAYERS, LAYER_HELP, LEVELS, SOURCE_LAYER
from worker.ranking.records import GAIN, VALUE, Candidate, RankBy, Scored

# First the score of what a detector has to learn, which ordered real candidates best (docs/studies/real). Where it is not
# asked for the published score for detection, then what is left of it when there is one category only, then those that
# tolerate candidates of different feature width. The last two do not, and come last.
PREFERRED_METRICS = (
    "detection_evidence_single",
    "detection_evidence",
    "tlogme",
    "logme_boxes",
    "logme",
    "h_score_regularized",
    "transrate",
    "h_score",
)

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

# The backbone maps with their strides in pixels.
STRIDES = {"backbone.c2": 4, "backbone.c3": 8, "backbone.c4": 16, "backbone.c5": 32}
# Asked for in place of a layer's name: the backbone map that fits the size of the objects.
SIZE_MATCHED = "size_matched"
# The maps it chooses from, and how many of their cells an object's side is to span. Finer and coarser maps order real
# candidates worse, whatever the size of the objects (docs/studies/real).
MATCHED_MAPS = ("backbone.c3", "backbone.c4")
SIZE_PER_STRIDE = 2.0

# The layer where a request names none: None is the order above, SIZE_MATCHED the map that fits.
DEFAULT_LAYER: str | None = SIZE_MATCHED


def default_layers() -> tuple[str, ...]:
    """What is read of a candidate where no layers are named."""
    return MATCHED_MAPS if DEFAULT_LAYER == SIZE_MATCHED else DEFAULT_LAYERS


def is_size_matched(asked: RankBy) -> bool:
    """Whether the layer is to fit the size of the objects, as asked for or by default."""
    return (asked.layer or DEFAULT_LAYER) == SIZE_MATCHED


def resolved(candidates: Sequence[Candidate], asked: RankBy) -> RankBy:
    """`asked` with the name of a layer where it is to fit the size of the objects, None where no map can be matched."""
    if not is_size_matched(asked):
        return asked
    plain = dataclasses.replace(asked, layer=None)
    return dataclasses.replace(asked, layer=size_matched_layer(candidates, plain))


def size_matched_layer(candidates: Sequence[Candidate], asked: RankBy | None = None) -> str | None:
    """The backbone map on which the typical object spans SIZE_PER_STRIDE cells, or comes nearest to it.

    The typical object is the median over candidates of each one's median. Of MATCHED_MAPS only those come in question where
    every candidate has a value that fits `asked` and weights that were trained; who has no value anywhere has no say.
    Distances are of logarithms, the finer map where two are as near. None where there is no such map, or no object's size
    is known.
    """
    having = [found for candidate in candidates if (found := _maps(candidate, asked or RankBy()))]
    sizes = [candidate.object_pixels for candidate in candidates if candidate.object_pixels]
    common = set.intersection(*having) if having else set()
    if not common or not sizes:
        return None
    return nearest_map(common, median(sizes) / SIZE_PER_STRIDE)


def nearest_map(maps: Collection[str], stride: float) -> str:
    """Of backbone maps in STRIDES that whose stride is nearest by its logarithm; the finer where two are as near."""
    return min(maps, key=lambda layer: (abs(math.log(STRIDES[layer] / stride)), STRIDES[layer]))


def choose(candidates: Sequence[Candidate], asked: RankBy) -> tuple[str, str, str] | None:
    """(metric, layer, level) to order by, None when no candidate has a score that fits `asked`.

    Among the combinations that fit, the first in preference that is defined for every candidate with scores;
    when there is none, the one defined for most, the earlier in preference where several are. Values at
    untrained layers count after all others. A combination that is asked for completely is taken as it is.
    """
    asked = resolved(candidates, asked)
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


def quantity(candidates: Sequence[Candidate], place: tuple[str, str, str] | None, asked: RankBy) -> str:
    """VALUE or GAIN, whichever is asked for; by default the gain, where every candidate with a value at `place` has one."""
    if asked.quantity is not None:
        return asked.quantity
    having = [scored for candidate in candidates if (scored := at(candidate, place)) and is_defined(scored)]
    return GAIN if having and all(is_defined(scored.measured_by(GAIN)) for scored in having) else VALUE


def at(candidate: Candidate, place: tuple[str, str, str] | None) -> Scored | None:
    """The candidate's score at a (metric, layer, level)."""
    return next((each for each in candidate.scores if (each.metric, each.layer, each.level) == place), None)


def is_defined(scored: Scored) -> bool:
    """Whether there is a finite number to order by."""
    return scored.value is not None and math.isfinite(scored.value)


def _maps(candidate: Candidate, asked: RankBy) -> set[str]:
    """The trained maps at which the candidate has a value that fits."""
    return {
        scored.layer
        for scored in candidate.scores
        if scored.layer in MATCHED_MAPS and scored.layer not in candidate.untrained
        if is_defined(scored) and _fits(scored, asked)
    }


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
