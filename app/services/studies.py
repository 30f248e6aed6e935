"""Studies: making them."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import ColumnElement, select
from sqlalchemy.orm import Session

from app.db.engine import database_now
from app.db.tables import Dataset, Job, Ranking, Study
from app.errors import Conflict, Fault, InvalidRequest, NotFound, refuse, twice
from app.ids import new_id
from app.queue import tree
from app.queue import verifications as rows
from app.queue.states import JobKind, JobState
from app.schemas.rankings import RankingCreate
from app.schemas.studies import StudyCreate
from app.services import ranking_requests, rankings, trainings
from app.services.datasets import ready, with_boxes
from app.services.listing import Listing
from app.services.records import owned
from app.settings import Settings

MOST_TRAININGS = 1000
# fields of a request that its rankings have under the same name
OF_RANKINGS = ("name", "metrics", "layers", "level", "max_images", "calibrate", "zero_point")


def create(session: Session, workspace_id: str, asked: StudyCreate, settings: Settings) -> Study:
    """A study with all its parts.

    Raises InvalidRequest naming each field at fault, Conflict for what cannot be used.
    """
    terms = trainings.terms_of(asked)
    faults = trainings.comparable_faults(terms, settings)
    # the rankings look at the checkpoints
    faults += twice("/dataset_ids", asked.dataset_ids) + twice("/seeds", asked.seeds)
    total = len(asked.dataset_ids) * len(asked.checkpoint_ids) * len(asked.seeds)
    if total > MOST_TRAININGS:
        message = (
            f"{total} trainings (datasets x candidates x seeds) "
            f"are more than the {MOST_TRAININGS} of one study"
        )
        faults.append({"pointer": "/checkpoint_ids", "message": message})
    _datasets(session, workspace_id, asked.dataset_ids, faults)
    refuse(faults)
    study = Study(
        id=new_id("st"),
        workspace_id=workspace_id,
        state=JobState.QUEUED,
        request={},
        created_at=database_now(session),
    )
    job = tree.begin(session, study, JobKind.STUDY, max_attempts=settings.max_attempts)
    ranked = []
    for place, dataset_id in enumerate(asked.dataset_ids):
        with _pointing_at(place):
            wanted = ranking_requests.normalised(_ranking_request(asked, dataset_id), settings)
            ranked.append(rankings.create(session, workspace_id, wanted, parent=job))
    terms = trainings.comparable(terms, trainings.checkpoints_of(session, asked.checkpoint_ids))
    study.request = _request(asked, ranked[0].request, terms)
    _add_trainings(session, job, asked, terms)
    session.flush()
    return study


def _add_trainings(session: Session, job: Job, asked: StudyCreate, terms: dict[str, Any]) -> None:
    position = 0
    shared = {"name": None, "keep_weights": asked.keep_weights, "reuse": asked.reuse}
    # a whole seed before the next: one that is cut short knows something of everybody
    for seed in asked.seeds:
        for dataset_id in asked.dataset_ids:
            for checkpoint_id in asked.checkpoint_ids:
                about = {"dataset_id": dataset_id, "checkpoint_id": checkpoint_id, "seed": seed}
                rows.add(
                    session,
                    workspace_id=job.workspace_id,
                    request=terms | shared | about,
                    parent=job,
                    position=position,
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


def _on_dataset(dataset_id: str) -> ColumnElement[bool]:
    return Study.id.in_(
        select(Ranking.study_id).where(Ranking.dataset_id == dataset_id, Ranking.study_id.is_not(None))
    )


# correlations of every metric are large
LISTING = Listing(Study, "st", {"dataset_id": _on_dataset}, unread=("result",))


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
