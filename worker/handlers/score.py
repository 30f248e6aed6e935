"""Job `score`: features and scores of one candidate of a ranking, written as they come."""

import dataclasses
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from sqlalchemy.orm import Session

from app.db.tables import Candidate, Ranking
from app.db.tables import Score as ScoreRow
from app.queue import events
from worker.handlers import feature_files
from worker.handlers.calibration import calibration_of, score_row
from worker.handlers.candidate import opened
from worker.handlers.pool import per_candidate
from worker.handlers.scorable import Place, Scorable, of_regions, wanted_of
from worker.handlers.zero_point import ZeroPoint, zero_point
from worker.metrics import OF_SOURCE, Score
from worker.step import JobView, Step


def run(step: Step, job: JobView) -> Callable[[Session], None]:
    """Gets the candidate's features or statistics and scores each layer and level, then what the weights bring there.

    Scores are upserted layer by layer, so that they can be watched, and once more with their zero points; a second attempt
    writes the same rows. Returns the write of cost, timings and warnings. Raises CandidateFailed where this candidate cannot
    be scored, and NotFound.
    """
    started = time.perf_counter()
    with opened(step, job) as hand:
        wanted = wanted_of(step, hand, job)
        found = Scorable.of(wanted)
        reading_s = time.perf_counter() - started - hand.loading_s
        took, request = replace(found, features=None, statistics=None), hand.ranking.request
        timings = {
            "load": hand.loading_s, **found.seconds, "features": found.seconds.get("total", reading_s),
            "score": 0.0, "calibrate": 0.0, "zero_point": 0.0,
        }  # fmt: skip
        places = found.places(per_candidate(request["metrics"]))
        facts = {place: found.facts(place) for place in places}
        calibration = calibration_of(request)
        own = _scored(step, job, found, places, facts, calibration, timings)
        # its tables make room for those of the zero point
        del found
        if request.get("zero_point"):
            step.stage("zero_point")
            zero = zero_point(wanted, own, calibration)
            timings["zero_point"] = zero.seconds
            for place, scores in own.items():
                _write(step, job, place, scores, facts[place], zero)
        done_with = (
            [wanted.key(position) for position in range(wanted.shards)] if wanted.parts_are_spent() else []
        )
    timings["total"] = time.perf_counter() - started
    told = {name: round(seconds, 4) for name, seconds in timings.items()} | {
        "cached": took.cached, "precision": took.cost.precision, "shards": wanted.shards,
    }  # fmt: skip

    def finish(session: Session) -> None:
        row = session.get(Candidate, (job.resource_id, job.payload["checkpoint_id"]))
        if row is not None:
            row.cost = dataclasses.asdict(took.cost)
            row.timings, row.warnings = told, list(took.warnings)
        feature_files.forget(session, done_with)

    return finish


def _scored(
    step: Step,
    job: JobView,
    found: Scorable,
    places: dict[Place, list[str]],
    facts: dict[Place, dict[str, Any]],
    calibration: dict[str, int],
    timings: dict[str, float],
) -> dict[Place, dict[str, Score]]:
    """The candidate's own scores by place, written as they come; the seconds go into `timings`."""
    step.stage("scoring")
    own: dict[Place, dict[str, Score]] = {}
    for done, (place, metrics) in enumerate(places.items()):
        step.check()
        began = time.perf_counter()
        own[place] = found.scores(place, metrics, calibration)
        alone = sum(each.seconds for each in own[place].values())
        timings["score"] += alone
        timings["calibrate"] += max(time.perf_counter() - began - alone, 0.0)
        _write(step, job, place, own[place], facts[place])
        step.progress(done + 1, len(places), "layers", f"{place[0]} ({place[1]}) scored")
    return own


def _write(
    step: Step,
    job: JobView,
    place: Place,
    scores: dict[str, Score],
    facts: dict[str, Any],
    zero: ZeroPoint | None = None,
) -> None:
    layer, level = place
    zero = zero or ZeroPoint()
    with step.writing() as session:
        ranking = session.get(Ranking, job.resource_id)
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
                **{name: fact for name, fact in facts.items() if name != "regions" or of_regions(metric)},
            )
            write_score(session, ranking, row)


def write_score(session: Session, ranking: Ranking, row: ScoreRow) -> None:
    """Upserts the score of a locked ranking and tells its stream."""
    session.merge(row)
    about = {
        "checkpoint_id": row.checkpoint_id, "metric": row.metric, "layer": row.layer, "level": row.level,
        "value": row.value, "undefined": row.undefined, "zero_point": row.details["zero_point"], "gain": row.details["gain"],
    }  # fmt: skip
    events.append(session, ranking, "score", about)
