"""A database of the schema before jobs had children, with work of every kind at every stage, goes on to its end.

Its rows (tests/data/old_database.sql.gz) were made by the services and queue of that time: rankings queued, being scored,
read in shards, put in order, verified, concluded, failed, cancelled and being cancelled; searches in every stage, with
trainings that paused and one that went on; studies and lone verifications. Some jobs are in the hands of workers.
"""

import gzip
from collections import Counter
from pathlib import Path

import pytest
from sqlalchemy import select, text

from app.db import migrate
from app.db.engine import Database
from app.db.tables import Job, Ranking, Search, Study, Verification, Workspace
from app.queue import leases
from app.queue.states import ENDED, JobKind, JobState
from app.services import works
from tests.properties.test_work_machine import WHOLES, machine

ROWS = Path(__file__).parents[2] / "data" / "old_database.sql.gz"
REVISION = "0004"


@pytest.fixture
def old(database_url):
    migrate.upgrade(database_url, REVISION)
    database = Database(database_url)
    with database.engine.begin() as connection:
        for line in gzip.decompress(ROWS.read_bytes()).decode().splitlines():
            if line.startswith("INSERT"):
                connection.exec_driver_sql(line.replace("%", "%%") if "postgres" in database_url else line)
        if database.engine.dialect.name == "postgresql":
            connection.execute(text("SELECT setval('outbox_id_seq', 100000)"))
    yield database
    database.dispose()


def states(database: Database) -> dict[type, dict[str, str]]:
    with database.reading() as session:
        return {
            table: dict(session.execute(text(f"SELECT id, state FROM {table.__tablename__}")).tuples().all())
            for table in WHOLES
        }


def player(database: Database):
    """Good workers who answer every bell, and the rules that hold for every row."""
    one = machine(database)()
    one.claims, one.writes, one.bells, one.seen = [], {}, [], {}
    with database.reading() as session:
        one.workspace_id = session.scalars(select(Workspace.id)).one()
    return one


def test_it_holds_what_it_should(old):
    found = states(old)
    assert set(found[Ranking].values()) == {"queued", "running", "cancelling", *map(str, ENDED)}
    assert set(found[Search].values()) == {"queued", "running", *map(str, ENDED)}
    assert set(found[Study].values()) == {"queued", "running", *map(str, ENDED)}
    assert set(found[Verification].values()) == {"queued", "running", *map(str, ENDED)}


def test_everything_in_it_goes_on_to_its_end(old, database_url):
    before = states(old)
    with old.engine.connect() as connection:
        held = connection.execute(text("SELECT id, token FROM job WHERE token IS NOT NULL")).all()
    migrate.upgrade(database_url)
    migrate.check(database_url)
    assert states(old) == before, "what callers see is what it was"
    one = player(old)
    one.every_row_keeps_the_rules()
    with old.reading() as session:
        assert {(job.id, job.token) for job in (session.get(Job, row.id) for row in held)} == set(held)
    one.everything_comes_to_rest()
    one.every_row_keeps_the_rules()
    after = states(old)
    for table, rows in before.items():
        for id, state in rows.items():
            if state in ENDED and not (table is Verification and state == JobState.SUCCEEDED):
                assert after[table][id] == state, f"{id} had ended as {state}"
            assert after[table][id] in ENDED
            if state == JobState.CANCELLING:
                assert after[table][id] == JobState.CANCELLED
    with old.reading() as session:
        kinds = Counter(session.scalars(select(Job.kind).where(Job.state.not_in(list(map(str, ENDED))))))
    assert not kinds, "a lost job"


def test_what_had_ended_in_it_can_be_tried_again_and_deleted(old, database_url):
    migrate.upgrade(database_url)
    one = player(old)
    one.everything_comes_to_rest()
    for table, rows in states(old).items():
        for id, state in rows.items():
            with old.reading() as session:
                owner = session.get(table, id)
                is_part = any(getattr(owner, name, None) for name in ("ranking_id", "search_id", "study_id"))
            if state in (JobState.FAILED, JobState.CANCELLED) and not is_part:
                with old.unit_of_work() as session:
                    assert works.retry(session, one.workspace_id, table, id).state not in ENDED
    one.everything_comes_to_rest()
    one.every_row_keeps_the_rules()
    for table in (Search, Study, Ranking, Verification):
        for id in states(old)[table]:
            with old.reading() as session:
                row = session.get(table, id)
            if row is None or any(
                getattr(row, name, None) for name in ("ranking_id", "search_id", "study_id")
            ):
                continue
            with old.unit_of_work() as session:
                works.remove(session, one.workspace_id, table, id)
            one.nothing_is_left_of(row)
    assert not any(states(old).values())
    with old.reading() as session:
        left = set(session.scalars(select(Job.kind)))
    assert left == {JobKind.INGEST}


def test_a_worker_of_before_cannot_write_after_its_lease(old, database_url):
    migrate.upgrade(database_url)
    one = player(old)
    with old.reading() as session:
        job = session.scalars(select(Job).where(Job.token.is_not(None), Job.kind == "score")).first()
        claim = leases.Claim(
            leases.ClaimedJob(job.id, JobKind.SCORE, job.resource_id, {}, 1, job.workspace_id),
            job.token,
            "w",
            60,
        )
    one.everything_comes_to_rest()
    with pytest.raises(leases.LeaseLost), old.unit_of_work() as session:
        leases.finish(session, claim)
