"""One database of each kind for all tests here, emptied before each: making one takes a second."""

import pytest

from app.db.engine import Database
from tests.queue_records import add_workspace, emptied, lasting_postgres


@pytest.fixture(scope="session")
def lasting_sqlite_database(tmp_path_factory):
    one = Database(f"sqlite:///{tmp_path_factory.mktemp('queue') / 'detrank.db'}")
    yield one
    one.dispose()


@pytest.fixture(scope="session")
def lasting_postgres_database(lasting_postgres_url):
    yield from lasting_postgres(lasting_postgres_url, "queue_tests")


@pytest.fixture(params=["sqlite", "postgres"])
def database(request):
    """Either database, with empty tables."""
    return emptied(request.getfixturevalue(f"lasting_{request.param}_database"))


@pytest.fixture
def workspace_id(database):
    with database.unit_of_work() as session:
        return add_workspace(session)
