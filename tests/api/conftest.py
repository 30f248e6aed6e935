"""One service for each database, behind a real socket; a workspace of its own for each test."""

import uuid
from collections.abc import Iterator

import pytest
from running import Running, Workspace, running, workspace

from app.db.migrate import upgrade
from app.settings import Settings


@pytest.fixture(scope="session", params=["sqlite", "postgres"])
def service(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    home = tmp_path_factory.mktemp("service")
    if request.param == "sqlite":
        url = f"sqlite:///{home / 'detrank.db'}"
    else:
        url = request.getfixturevalue("lasting_postgres_url")
    upgrade(url)
    # the broker is a folder that nobody reads: tests move the jobs themselves
    settings = Settings(
        data_dir=home,
        database_url=url,
        auth="keys",
        min_free_disk_bytes=0,
        max_upload_bytes=1 << 20,
        max_json_bytes=1 << 16,
    )
    with running(settings) as service:
        yield service


@pytest.fixture
def space(service: Running) -> Iterator[Workspace]:
    with workspace(service, uuid.uuid4().hex) as made:
        yield made


@pytest.fixture
def other(service: Running) -> Iterator[Workspace]:
    """Somebody else."""
    with workspace(service, uuid.uuid4().hex) as made:
        yield made
