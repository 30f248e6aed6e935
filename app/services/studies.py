"""Studies: making, finding, stopping, trying again, removing."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session, defer

from app.db.engine import database_now
from app.db.tables import Dataset, Job, Ranking, Study
from app.errors import Conflict, InvalidRequest, NotFound
from app.ids import new_id
from app.queue import control, events, jobs
from app.queue import verifications as rows
from app.queue.states import ENDED, JobState
from app.schemas.rankings import RankingCreate
from app.schemas.studies import StudyCreate, StudyQuery
from app.services import rankings, wholes
from app.services.datasets import ready, with_boxes
from app.services.faults import Fault, refuse
from app.services.listing import page
from app.services.records import owned
from app.settings import Settings

MOST_TRAININGS = 1000
# fields of a request that its rankings have under the same name
OF_RANKINGS = ("name", "metrics", "layers", "level", "max_images", "calibrate", "zero_point")


def create(session: Session, workspace_id: str, asked: StudyCreate, settings: Settings) -> Study:
    """A study with all its parts. Raises InvalidRequest naming each field at fault, Conflict for what cannot be used."""
    terms = wholes.terms_of(asked)
    faults = wholes.terms_faults(terms, settings.verify_time_limit_s / 60) + _twice(asked)
    total = len(asked.dataset_ids) * len(asked.checkpoint_ids) * len(asked.seeds)
    if total > MOST_TRAININGS:
        message = f"{total} trainings (datasets x candidates x seeds) are more than the {MOST_TRAININGS} of one study"
        faults.append({"pointer": "/checkpoint_ids", "message": message})
    _datasets(session, workspace_id, asked.dataset_ids, faults)
    refuse(faults)
    ranked = []
    for place, dataset_id in enumerate(asked.dataset_ids):
        with _pointing_at(place):
            wanted = rankings.normalised(_ranking_request(asked, dataset_id), settings)
            ranked.append(rankings.create(session, workspace_id, wanted, max_attempts=settings.max_attempts))
    terms = wholes.filled(terms, wholes.checkpoints_of(session, asked.checkpoint_ids))
    study = Study(
        id=new_id("st"),
        workspace_id=workspace_id,
        state=JobState.QUEUED,
        request=_request(asked, ranked[0].request, terms),
        created_at=database_now(session),
    )
    session.add(study)
    session.flush()
    for ranking in ranked:
        ranking.study_id = study.id
    _add_trainings(session, study, asked, terms, settings)
    events.append(session, study, "state", {"state": study.state})
    return study


def _add_trainings(
    session: Session, study: Study, asked: StudyCreate, terms: dict[str, Any], settings: Settings
) -> None:
    position = 0
    shared = {"name": None, "keep_weights": asked.keep_weights, "reuse": asked.reuse}
    for seed in asked.seeds:  # a whole seed before the next: one that is cut short knows something of everybody
        for dataset_id in asked.dataset_ids:
            for checkpoint_id in asked.checkpoint_ids:
                about = {"dataset_id": dataset_id, "checkpoint_id": checkpoint_id, "seed": seed}
                rows.add(
                    session,
                    workspace_id=study.workspace_id,
                    request=terms | shared | about,
                    owner=study,
                    position=position,
                    max_attempts=settings.max_attempts,
                )
                position += 1


def _ranking_request(asked: StudyCreate, dataset_id: str) -> RankingCreate:
    """What each ranking is asked for; what is left out has the default there."""
    given = {name: getattr(asked, name) for name in OF_RANKINGS if name in asked.model_fields_set}
    if "score_image_size" in asked.model_fields_set:
        given["image_size"] = asked.score_image_size
    given |= {"calibrate": asked.calibrate, "seed": asked.score_seed}
    return RankingCreate(dataset_id=dataset_id, checkpoint_ids=asked.checkpoint_ids, **given)


def _request(asked: StudyCreate, ranked: dict[str, Any], terms: dict[str, Any]) -> dict[str, Any]:
    return terms | {
        "dataset_ids": asked.dataset_ids,
        "checkpoint_ids": asked.checkpoint_ids,
        "seeds": asked.seeds,
        "score_seed": asked.score_seed,
        "keep_weights": asked.keep_weights,
        "reuse": asked.reuse,
        **{name: ranked[name] for name in OF_RANKINGS},
        "score_image_size": ranked["image_size"],
    }


def find(session: Session, workspace_id: str, id: str) -> Study:
    return owned(session, Study, workspace_id, id)


def listed(session: Session, workspace_id: str, asked: StudyQuery) -> tuple[list[Study], str | None]:
    # correlations of every metric are large, and no list shows them
    query = select(Study).where(Study.workspace_id == workspace_id).options(defer(Study.result))
    if asked.state is not None:
        query = query.where(Study.state == asked.state)
    if asked.dataset_id is not None:
        on_it = select(Ranking.study_id).where(
            Ranking.dataset_id == asked.dataset_id, Ranking.study_id.is_not(None)
        )
        query = query.where(Study.id.in_(on_it))
    return page(session, query, Study, asked)


def cancel(session: Session, workspace_id: str, id: str) -> Study:
    """Asks all its jobs to stop; harmless for one that has ended."""
    owned(session, Study, workspace_id, id)
    return control.cancel_whole(session, Study, id)


def retry(session: Session, workspace_id: str, id: str) -> Study:
    """Tries again what failed or was cancelled in it, and writes the report anew. Raises Conflict where nothing is."""
    owned(session, Study, workspace_id, id)
    study = jobs.lock_resource(session, Study, id)
    if study.state not in ENDED:
        raise Conflict(f"the study {id} is {study.state}; what failed in it can be tried again when it has ended")
    again = wholes.failed_jobs(session, study)
    own = session.get(Job, study.job_id) if study.job_id else None
    if not again and own is not None and own.state in (JobState.FAILED, JobState.CANCELLED):
        again = [own.id]
    if not again:
        raise Conflict(f"nothing in the study {id} failed or was cancelled, so there is nothing to try again")
    for job_id in again:
        control.retry(session, job_id)
    return study


def remove(session: Session, workspace_id: str, id: str) -> None:
    """Deletes a study that has ended, with its parts and files; fine-tuned checkpoints stay. Raises Conflict."""
    wholes.remove(session, owned(session, Study, workspace_id, id, lock=True))


def _twice(asked: StudyCreate) -> list[Fault]:
    # the rankings look at the checkpoints
    return [
        {"pointer": f"/{field}/{index}", "message": f"{value} is named twice"}
        for field, values in (("dataset_ids", asked.dataset_ids), ("seeds", asked.seeds))
        for index, value in enumerate(values)
        if value in values[:index]
    ]


def _datasets(session: Session, workspace_id: str, ids: list[str], faults: list[Fault]) -> None:
    for place, id in enumerate(ids):
        try:
            dataset = owned(session, Dataset, workspace_id, id)
        except NotFound as missing:
            faults.append({"pointer": f"/dataset_ids/{place}", "message": missing.detail})
            continue
        with _pointing_at(place):
            ready(dataset)
            with_boxes(dataset, "what is found is compared with boxes")


@contextmanager
def _pointing_at(place: int) -> Iterator[None]:
    """What is wrong with the dataset of one ranking, as it stands in the request of the study."""
    try:
        yield
    except (Conflict, InvalidRequest) as refusal:
        for error in refusal.errors:
            if error.get("pointer") == "/dataset_id":
                error["pointer"] = f"/dataset_ids/{place}"
        raise
