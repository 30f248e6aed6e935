"""Job `score`: features and scores of one candidate of a ranking, written as they come."""

import dataclasses
import time
from collections.abc import Callable

from sqlalchemy.orm import Session

from app.db.tables import Candidate, Ranking
from app.db.tables import Score as ScoreRow
from app.queue import events
from worker.handlers import feature_files
from worker.handlers.calibration import calibration_of, score_row
from worker.handlers.candidate import opened
from worker.handlers.pool import per_candidate
from worker.handlers.scorable import Place, Scorable, wanted_of
from worker.metrics import Score
from worker.step import JobView, Step


def run(step: Step, job: JobView) -> Callable[[Session], None]:
    """Gets the candidate's features or statistics and scores each layer and level.

    Scores are upserted layer by layer, so that they can be watched; a second attempt writes the same rows. Returns the
    write of cost, timings and warnings. Raises CandidateFailed where this candidate cannot be scored, and NotFound.
    """
    started = time.perf_counter()
    with opened(step, job) as hand:
        wanted = wanted_of(step, hand, job)
        found = Scorable.of(wanted)
        request, loading_s = hand.ranking.request, hand.loading_s
        done_with = (
            [wanted.key(position) for position in range(wanted.shards)] if wanted.parts_are_spent() else []
        )
    reading_s = time.perf_counter() - started - loading_s
    step.stage("scoring")
    places = found.places(per_candidate(request["metrics"]))
    scoring_s = calibrating_s = 0.0
    for done, (place, metrics) in enumerate(places.items()):
        step.check()
        began = time.perf_counter()
        scores = found.scores(place, metrics, calibration_of(request))
        alone = sum(each.seconds for each in scores.values())
        scoring_s += alone
        calibrating_s += max(time.perf_counter() - began - alone, 0.0)
        _write_scores(step, job, found, place, scores)
        step.progress(done + 1, len(places), "layers", f"{place[0]} ({place[1]}) scored")

    timings = {
        "load": round(loading_s, 4),
        **{name: round(seconds, 4) for name, seconds in found.seconds.items() if name != "total"},
        "features": round(found.seconds.get("total", reading_s), 4),
        "score": round(scoring_s, 4),
        "calibrate": round(calibrating_s, 4),
        "total": round(time.perf_counter() - started, 4),
        "cached": found.cached,
        "precision": found.cost.precision,
        "shards": wanted.shards,
    }

    def finish(session: Session) -> None:
        row = session.get(Candidate, (job.resource_id, job.payload["checkpoint_id"]))
        if row is not None:
            row.cost = dataclasses.asdict(found.cost)
            row.timings, row.warnings = timings, list(found.warnings)
        feature_files.forget(session, done_with)

    return finish


def _write_scores(step: Step, job: JobView, found: Scorable, place: Place, scores: dict[str, Score]) -> None:
    layer, level = place
    with step.writing() as session:
        ranking = session.get(Ranking, job.resource_id)
        for metric, each in scores.items():
            row = score_row(
                each,
                ranking_id=job.resource_id,
                checkpoint_id=job.payload["checkpoint_id"],
                metric=metric,
                layer=layer,
                level=level,
                **found.facts(place),
            )
            write_score(session, ranking, row)


def write_score(session: Session, ranking: Ranking, row: ScoreRow) -> None:
    """Upserts the score of a locked ranking and tells its stream."""
    session.merge(row)
    about = {
        "checkpoint_id": row.checkpoint_id, "metric": row.metric, "layer": row.layer, "level": row.level,
        "value": row.value, "undefined": row.undefined,
    }  # fmt: skip
    events.append(session, ranking, "score", about)
