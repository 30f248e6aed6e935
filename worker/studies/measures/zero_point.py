"""What a candidate's architecture scores with its initial random weights, and what its own weights add to that: the gain."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from models_store.manifest import Manifest
from worker.features.spec import Spec
from worker.metrics import METRICS, OF_SOURCE
from worker.studies.measures.gains import gain_place
from worker.studies.measures.observations import Observation, Place
from worker.studies.measures.scoring import Row, ScoringSpec
from worker.studies.work_folder import digest_of

# Of the initial weights: none that a study's own untrained candidates are likely to have, whose gain would be 0 by
# definition and not by measurement.
SEED = 1000
# what `models_store.untrained` builds from, and which layers are then read
_FACTS = ("architecture", "backbone", "input", "options", "layers", "initialised_keys", "initialisation_seed")


def architecture_digest(manifest: Manifest, seed: int = SEED) -> str:
    """The same for all candidates that share a zero point."""
    facts = manifest.to_json()
    return digest_of({"seed": seed, **{name: facts[name] for name in _FACTS}})


def asked_of_zero(asked: ScoringSpec) -> ScoringSpec:
    """What of `asked` a zero point has: nothing relative to a pool, and no classes of its own to tell of."""
    spec: Spec = replace(asked.spec, source_probabilities=False)
    return ScoringSpec(spec, with_zero_point(asked.metrics), asked.by_size)


def with_zero_point(metrics: Iterable[str]) -> tuple[str, ...]:
    return tuple(name for name in metrics if not METRICS[name].pool_relative and name not in OF_SOURCE)


def with_gains(each: Observation, zero: Mapping[str, Any]) -> Observation:
    """The observation with score - zero point beside every score that has a zero point. `zero`: the result of its part."""
    if "error" in zero:
        why = f"its zero point could not be scored: {zero['error']}"
        gains = {gain_place(p): why for p in (*each.scores, *each.undefined) if with_zero_point(p[:1])}
        return replace(each, undefined={**each.undefined, **gains})
    rows: dict[Place, Row] = {(row["metric"], row["layer"], row["level"]): row for row in zero["rows"]}
    scores, undefined = dict(each.scores), dict(each.undefined)
    for place, row in rows.items():
        if place in each.undefined:
            undefined[gain_place(place)] = each.undefined[place]
        elif row["value"] is None and place in each.scores:
            undefined[gain_place(place)] = f"its zero point is undefined: {row['undefined']}"
        elif place in each.scores:
            scores[gain_place(place)] = each.scores[place] - row["value"]
    return replace(each, scores=scores, undefined=undefined)
