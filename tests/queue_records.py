"""Records that tests of jobs begin with."""

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

from sqlalchemy import create_engine, delete, text, update
from sqlalchemy.engine import make_url
from sqlalchemy.orm import Session

from app.db.engine import Database, database_now
from app.db.tables import Base, Candidate, Checkpoint, Dataset, Job, Ranking, Workspace
from app.ids import new_id
from app.queue import tree
from app.queue.states import JobKind


def lasting_postgres(url: str, schema: str) -> Iterator[Database]:
    """A database of one's own inside the one at `url`: a schema."""
    owner = create_engine(url)
    with owner.begin() as connection:
        connection.execute(text(f"CREATE SCHEMA {schema}"))
    own = make_url(url).update_query_dict({"options": f"-csearch_path={schema}"})
    one = Database(own.render_as_string(hide_password=False))
    yield one
    one.dispose()
    owner.dispose()


def emptied(database: Database) -> Database:
    """The database with all tables and no rows."""
    Base.metadata.create_all(database.engine)
    with database.engine.begin() as connection:
        for table in reversed(Base.metadata.sorted_tables):
            connection.execute(delete(table))
    return database


def add_workspace(session: Session) -> str:
    id = new_id("ws")
    session.add(Workspace(id=id, name=id, created_at=database_now(session)))
    session.flush()
    return id


def add_dataset(session: Session, workspace_id: str, state: str = "processing") -> Dataset:
    now = database_now(session)
    dataset = Dataset(
        id=new_id("ds"),
        workspace_id=workspace_id,
        name="d",
        state=state,
        request={},
        created_at=now,
        updated_at=now,
    )
    session.add(dataset)
    session.flush()
    return dataset


def add_ingest(
    session: Session, workspace_id: str, *, max_attempts: int = 3, payload: dict[str, Any] | None = None
) -> Job:
    """A new dataset and the job that prepares it."""
    dataset = add_dataset(session, workspace_id)
    job = tree.add(
        session,
        JobKind.INGEST,
        dataset.id,
        workspace_id=workspace_id,
        payload=payload,
        max_attempts=max_attempts,
    )
    dataset.job_id = job.id
    return job


def add_ranking(
    session: Session,
    workspace_id: str,
    payloads: list[dict[str, Any]],
    *,
    shards: int = 1,
    parent: Job | None = None,
) -> Ranking:
    """A ranking of as many candidates as there are payloads, each with its job; the first is read in so many `shards`.

    `parent`: the locked job of the search or study whose part it is.
    """
    now = database_now(session)
    dataset = add_dataset(session, workspace_id, "ready")
    ranking = Ranking(
        id=new_id("rk"),
        workspace_id=workspace_id,
        dataset_id=dataset.id,
        state="queued",
        request={},
        created_at=now,
    )
    session.add(ranking)
    session.flush()
    if parent is not None:
        setattr(ranking, f"{parent.kind}_id", parent.resource_id)
    own = tree.add(session, JobKind.RANK, ranking.id, workspace_id=workspace_id, parent=parent)
    ranking.job_id = own.id
    for position, payload in enumerate(payloads):
        checkpoint = Checkpoint(
            id=new_id("ckpt"),
            workspace_id=workspace_id,
            name="c",
            state="ready",
            request={},
            created_at=now,
            updated_at=now,
        )
        session.add(checkpoint)
        session.flush()
        about = {"checkpoint_id": checkpoint.id, **payload}
        in_parts = shards if shards > 1 and not position else 0
        if in_parts:
            about["shards"] = shards
        job = tree.add(
            session, JobKind.SCORE, ranking.id, workspace_id=workspace_id, parent=own, payload=about
        )
        for shard in range(in_parts):
            part = about | {"shard": shard}
            tree.add(session, JobKind.SHARD, ranking.id, workspace_id=workspace_id, parent=job, payload=part)
        session.add(
            Candidate(
                ranking_id=ranking.id,
                checkpoint_id=checkpoint.id,
                position=position,
                state="queued",
                job_id=job.id,
            )
        )
    session.flush()
    return ranking


def let_lapse(database: Database, job_id: str) -> None:
    """As if the job's worker had been silent for longer than its lease."""
    with database.unit_of_work() as session:
        past = database_now(session) - timedelta(seconds=1)
        held = update(Job).where(Job.id == job_id, Job.lease_until.is_not(None))
        session.execute(held.values(lease_until=past))
