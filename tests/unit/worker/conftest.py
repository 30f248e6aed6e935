from types import SimpleNamespace

import pytest

from app.db.engine import Database
from app.db.tables import Event, Job
from app.queue import leases
from app.settings import Settings
from tests.queue_records import add_ingest, add_workspace, emptied
from worker.attempt import Attempt


@pytest.fixture
def settings(tmp_path):
    return Settings(data_dir=tmp_path / "data", database_url="", broker_url="", retry_s=0.0, stop_grace_s=0.4)


@pytest.fixture
def database(settings):
    one = emptied(Database(settings.resolved_database_url))
    yield one
    one.dispose()


@pytest.fixture
def bench(database, settings):
    """A job to claim, and what to look at it with."""

    class Bench(SimpleNamespace):
        def add(self, **options) -> str:
            with database.unit_of_work() as session:
                return add_ingest(session, workspace_id, **options).id

        def claim(self, job_id=None, lease_s=60.0) -> leases.Claim:
            with database.unit_of_work() as session:
                return leases.claim(session, job_id or self.job_id, "w", lease_s=lease_s)

        def attempt(self, claim=None, **options) -> Attempt:
            return Attempt(claim or self.claim(), database, settings, None, **options)

        def do(self, action, *arguments):
            with database.unit_of_work() as session:
                return action(session, *arguments)

        def job(self, job_id=None) -> Job:
            with database.reading() as session:
                return session.get(Job, job_id or self.job_id)

        def events(self, kind, job_id=None) -> list[dict]:
            with database.reading() as session:
                rows = (
                    session.query(Event)
                    .filter_by(stream_id=job_id or self.job_id, kind=kind)
                    .order_by(Event.seq)
                )
                return [row.data for row in rows]

    with database.unit_of_work() as session:
        workspace_id = add_workspace(session)
    bench = Bench(database=database, settings=settings)
    bench.job_id = bench.add()
    return bench
