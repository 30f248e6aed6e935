"""What a little training says that no score of features can: a short fine-tuning, and the first evaluation of a whole one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import permutations
from typing import Any

import numpy as np

from worker.studies.measures.agreement import weighted_tau
from worker.studies.measures.correlation import FEWEST
from worker.studies.measures.observations import Observation, Place

TRAINED = "fine-tuning"  # stands for the layer of a signal
PROBE_MAP: Place = ("probe_map", TRAINED, "test images")
PROBE_VAL_MAP: Place = ("probe_val_map", TRAINED, "validation images")
PROBE_LOSS: Place = ("probe_loss", TRAINED, "training images")
EARLY_MAP: Place = ("early_map", TRAINED, "validation images")
PROBES = (PROBE_MAP, PROBE_VAL_MAP, PROBE_LOSS)
HELP: Mapping[Place, str] = {
    PROBE_MAP: "mAP of a short fine-tuning on the test images, which the truth is measured on too",
    PROBE_VAL_MAP: "mAP of a short fine-tuning on the validation images",
    PROBE_LOSS: "negative training loss at the end of a short fine-tuning",
    EARLY_MAP: "mAP at the first evaluation of the whole fine-tuning on the validation images, of one seed against the truth of another",
}


@dataclass(frozen=True)
class Early:
    """value: mAP on the validation images at the first evaluation of a fine-tuning; seconds: of training until then."""

    value: float
    seconds: float


def early_of(result: Mapping[str, Any]) -> Early | None:
    """None for a fine-tuning that failed or was evaluated at its end only."""
    curve = [point for point in result.get("val_curve", ()) if point.get("map") is not None]
    if len(curve) < 2 or not result.get("iterations"):
        return None
    return Early(curve[0]["map"], result["seconds"] * curve[0]["iteration"] / result["iterations"])


def with_probe(each: Observation, probe: Mapping[str, Any]) -> Observation:
    """The observation with the scores that its short fine-tuning gives."""
    if "error" in probe:
        why = f"its short fine-tuning failed: {probe['error']}"
        return replace(each, undefined={**each.undefined, **dict.fromkeys(PROBES, why)})
    curve, loss = probe["val_curve"], probe["loss"]
    found = {
        PROBE_MAP: probe["map"],
        PROBE_VAL_MAP: curve[-1]["map"] if curve else None,
        PROBE_LOSS: None if loss is None else -loss,
    }
    return replace(
        each,
        scores={**each.scores, **{place: value for place, value in found.items() if value is not None}},
        undefined={
            **each.undefined,
            **{place: "it was not measured" for place, value in found.items() if value is None},
        },
    )


def tau_between_seeds(
    group: Sequence[Observation], signal: Callable[[Observation, int], float | None]
) -> float | None:
    """Weighted tau of `signal`(observation, seed) with the mAP of another seed, mean over ordered pairs of seeds.

    A signal of a training shares its noise with that training's mAP, so it is held against another's. None with one seed,
    or where a candidate has no value.
    """
    seeds = sorted(set.intersection(*(set(o.map_by_seed) for o in group))) if group else []
    found = []
    for a, b in permutations(seeds, 2):
        values = [signal(o, a) for o in group]
        if len(values) < FEWEST or None in values:
            return None
        truth = [o.map_by_seed[b] for o in group]
        found.append(
            weighted_tau(np.array([values], dtype=np.float64), np.array([truth], dtype=np.float64))[0]
        )
    return float(np.mean(found)) if found and np.isfinite(found).all() else None
