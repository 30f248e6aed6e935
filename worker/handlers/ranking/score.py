"""Job `score`: features and scores of one candidate of a ranking, written as they come."""

import time
from collections.abc import Callable, Sequence
from dataclasses import replace

from sqlalchemy.orm import Session

from app.db import documents
from app.db.documents import ScoreFacts
from app.db.tables import Candidate, Ranking
from worker.attempt import Attempt, ClaimedJob
from worker.features.cost import Cost
from worker.handlers.ranking import feature_files
from worker.handlers.ranking.calibration import calibration_of, score_row
from worker.handlers.ranking.candidate import opened
from worker.handlers.ranking.costs import inference_of, training_of
from worker.handlers.ranking.judged import judged_of
from worker.handlers.ranking.pool import per_candidate
from worker.handlers.ranking.scorable import Place, Scorable, of_regions, wanted_of
from worker.handlers.ranking.score_rows import write_score
from worker.handlers.ranking.zero_point import ZeroPoint, zero_point
from worker.metrics import OF_SOURCE, Score


def run(attempt: Attempt, job: ClaimedJob) -> Callable[[Session], None]:
    """Gets the candidate's features or statistics and scores each layer and level, then what the weights bring there.

    Scores are upserted layer by layer, so that they can be watched, and once more with their zero points; a second attempt
    writes the same rows. At the end it is measured what the candidate costs to run and to train. Returns the write of cost,
    timings and warnings. Raises CandidateFailed where this candidate cannot
    be scored, and NotFound.
    """
    started = time.perf_counter()
    with opened(attempt, job) as hand:
        wanted = wanted_of(attempt, hand, job)
        found = Scorable.of(wanted)
        reading_s = time.perf_counter() - started - hand.loading_s
        # What the checkpoint's file could not tell may be read wrongly: its ranking says so, too.
        unread = hand.reading.detector.manifest.warnings
        missing = [hand.left_out] if hand.left_out else []
        took, request = found.account, hand.ranking.request
        timings = {
            "load": hand.loading_s,
            **took.seconds,
            "features": took.seconds.get("total", reading_s),
            "score": 0.0,
            "calibrate": 0.0,
            "zero_point": 0.0,
            "zero_point_forward": 0.0,
            "cost": 0.0,
        }
        places = found.places(per_candidate(request["metrics"]))
        facts = {place: found.facts(place) for place in places}
        calibration = calibration_of(request)
        own = _scored(attempt, job, found, places, facts, calibration, judged_of(request), timings)
        # its tables make room for those of the zero point
        del found
        if request.get("zero_point"):
            attempt.stage("zero_point")
            zero = zero_point(wanted, own, calibration)
            timings["zero_point"], timings["zero_point_forward"] = zero.seconds, zero.forward_s
            for place, scores in own.items():
                _write(attempt, job, place, scores, facts[place], zero)
        attempt.stage("measuring")
        began = time.perf_counter()
        inference = inference_of(attempt, hand)
        training = training_of(attempt, hand, job.payload["checkpoint_id"], inference, began - started)
        timings["cost"] = time.perf_counter() - began
        done_with = (
            [wanted.key(position) for position in range(wanted.shards)] if wanted.parts_are_spent() else []
        )
    timings["total"] = time.perf_counter() - started
    told = {name: round(seconds, 4) for name, seconds in timings.items()} | {
        "cached": took.cached,
        "precision": took.cost.precision,
        "shards": wanted.shards,
    }

    def finish(session: Session) -> None:
        row = session.get(Candidate, (job.resource_id, job.payload["checkpoint_id"]))
        if row is not None:
            row.cost = {**_kept(took.cost), "inference": inference, "training": training}
            row.timings, row.warnings = told, [*unread, *took.warnings, *missing]
        feature_files.forget(session, done_with)

    return finish


def _scored(
    attempt: Attempt,
    job: ClaimedJob,
    found: Scorable,
    places: dict[Place, list[str]],
    facts: dict[Place, ScoreFacts],
    calibration: dict[str, int],
    judged: Sequence[str] | None,
    timings: dict[str, float],
) -> dict[Place, dict[str, Score]]:
    """The candidate's own scores by place, written as they come; the seconds go into `timings`."""
    attempt.stage("scoring")
    own: dict[Place, dict[str, Score]] = {}
    for done, (place, metrics) in enumerate(places.items()):
        attempt.check()
        began = time.perf_counter()
        own[place] = _judged(found, place, metrics, calibration, judged)
        alone = sum(each.seconds for each in own[place].values())
        timings["score"] += alone
        timings["calibrate"] += max(time.perf_counter() - began - alone, 0.0)
        _write(attempt, job, place, own[place], facts[place])
        attempt.progress(done + 1, len(places), "layers", f"{place[0]} ({place[1]}) scored")
    return own


def _judged(
    found: Scorable,
    place: Place,
    metrics: list[str],
    calibration: dict[str, int],
    judged: Sequence[str] | None,
) -> dict[str, Score]:
    """Scores at a place, of which all or the first of `judged` that has a value have null and interval."""
    if judged is None:
        return found.scores(place, metrics, calibration)
    scores = found.scores(place, metrics, {})
    first = next((name for name in judged if name in scores and scores[name].value is not None), None)
    return scores if first is None else scores | found.scores(place, [first], calibration)


def _write(
    attempt: Attempt,
    job: ClaimedJob,
    place: Place,
    scores: dict[str, Score],
    facts: ScoreFacts,
    zero: ZeroPoint | None = None,
) -> None:
    layer, level = place
    zero = zero or ZeroPoint()
    without_regions = facts.copy()
    without_regions.pop("regions", None)
    with attempt.writing() as session:
        ranking = session.get_one(Ranking, job.resource_id)
        for metric, each in scores.items():
            note = None if metric in OF_SOURCE else zero.note(place, metric)
            row = score_row(
                replace(each, notes=(*each.notes, *([note] if note else []))),
                ranking_id=job.resource_id,
                checkpoint_id=job.payload["checkpoint_id"],
                metric=metric,
                layer=layer,
                level=level,
                zero=None if metric in OF_SOURCE else zero.score(place, metric),
                facts=facts if of_regions(metric) else without_regions,
            )
            write_score(session, ranking, row)


def _kept(cost: Cost) -> documents.Cost:
    return {
        "parameters": cost.parameters,
        "ms_per_image": cost.ms_per_image,
        "peak_memory_bytes": cost.peak_memory_bytes,
        "device": cost.device,
        "image_hw": list(cost.image_hw),
        "measures": cost.measures,
        "precision": cost.precision,
    }
