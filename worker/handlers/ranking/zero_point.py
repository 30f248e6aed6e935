"""The zero point of a candidate: what its architecture scores with its initial weights, on the same rows at the same places."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import models_store
from models_store.untrained import is_untrained
from worker.features.errors import Unextractable
from worker.features.reading import reading_of
from worker.features.statistics import design_of
from worker.handlers.ranking import kept_scores
from worker.handlers.ranking.features import Wanted
from worker.handlers.ranking.scorable import Place, Scorable
from worker.metrics import OF_SOURCE, Score

SEED = 0
# Residual networks whose norms do nothing yet give values that float16 does not hold.
PRECISION = "float32"
# Errors of an architecture that was never meant to be read with initial weights. Errors of the job, its database and
# storage are not among them: the job is tried again after those.
UNREADABLE = (
    models_store.Unusable,
    Unextractable,
    RuntimeError,
    ValueError,
    TypeError,
    ArithmeticError,
    LookupError,
    AssertionError,
    MemoryError,
)


@dataclass(frozen=True)
class ZeroPoint:
    """scores: by place and metric. why: there are none at all. forward_s: of `seconds` those of forward passes."""

    scores: Mapping[Place, Mapping[str, Score]] = field(default_factory=dict)
    why: str | None = None
    seconds: float = 0.0
    forward_s: float = 0.0

    def score(self, place: Place, metric: str) -> Score | None:
        return self.scores.get(place, {}).get(metric)

    def note(self, place: Place, metric: str) -> str | None:
        """Why a score has no zero point, None where it has one or none was looked for."""
        found = self.score(place, metric)
        why = self.why or (found.undefined if found is not None else None)
        return f"no zero point: {why}" if why else None


def zero_point(
    wanted: Wanted, own: Mapping[Place, Mapping[str, Score]], calibration: Mapping[str, int]
) -> ZeroPoint:
    """Reads the untrained detector of a candidate as the candidate was read, and scores it where `own` scores stand.

    calibration: of `own`; intervals over the same images give that of the gain, nulls are the candidate's. It is read as a
    whole, whatever the shards of the candidate, and kept like any other, and so are its scores: all candidates of one
    architecture share it, in every ranking that reads the same. One that cannot be read is no failure of the candidate: the answer says why. Raises only what stops the job.
    """
    began = time.perf_counter()
    places = {
        place: kept
        for place, scores in own.items()
        if (kept := [name for name in scores if name not in OF_SOURCE])
    }
    try:
        found, forward_s = _scores(
            wanted,
            places,
            own,
            {name: value for name, value in calibration.items() if name != "permutations"},
        )
    except UNREADABLE as failure:
        architecture = wanted.hand.reading.detector.manifest.architecture
        reason = getattr(failure, "detail", None) or f"{type(failure).__name__}: {failure}"
        why = f"the untrained {architecture} could not be read: {reason}"[:500]
        return ZeroPoint(why=why, seconds=time.perf_counter() - began)
    return ZeroPoint(found, seconds=time.perf_counter() - began, forward_s=forward_s)


def _scores(
    wanted: Wanted,
    places: Mapping[Place, Sequence[str]],
    own: Mapping[Place, Mapping[str, Score]],
    calibration: Mapping[str, int],
) -> tuple[dict[Place, dict[str, Score]], float]:
    """The scores, and the seconds of forward passes that they took."""
    attempt, hand, reading = wanted.attempt, wanted.hand, wanted.hand.reading
    initial = hand.models.initial(
        reading.detector.manifest, SEED, device=hand.device, max_bytes=attempt.settings.model_cache_bytes
    )
    if is_untrained(reading.detector, initial):
        return {place: {name: own[place][name] for name in names} for place, names in places.items()}, 0.0
    spec = replace(reading.spec, source_probabilities=False)
    zero = reading_of(initial, reading.dataset, spec, device=reading.device, precision=PRECISION)
    metrics = list(dict.fromkeys(name for names in places.values() for name in names))
    of_zero = replace(
        wanted,
        hand=replace(hand, reading=zero),
        shards=1,
        design=None if wanted.design is None else design_of(zero, metrics, **calibration),
        what="zero point: ",
    )
    # an interval of the gain takes both: whose own score has none needs none of the zero point
    judged = {place: [name for name in names if own[place][name].interval] for place, names in places.items()}
    key = kept_scores.key_of_scores(
        zero, places, calibration, judged, from_statistics=wanted.design is not None
    )
    if (there := kept_scores.find(of_zero, key)) is not None:
        return there, 0.0
    found = Scorable.of(of_zero)
    scores = {}
    for place, names in places.items():
        attempt.check()
        others = [name for name in names if name not in judged[place]]
        scores[place] = found.scores(place, others, {}) | found.scores(place, judged[place], calibration)
    kept_scores.keep(of_zero, key, scores)
    return scores, found.account.seconds.get("forward", 0.0)
