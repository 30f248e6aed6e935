import pytest

from tests.faults.deployment import deployed


@pytest.fixture(params=["sqlite+files", "postgres+redis"])
def deployment(request, tmp_path):
    """The embedded deployment, and the one with servers."""
    if request.param == "sqlite+files":
        urls = (request.getfixturevalue("sqlite_url"), "")
    else:
        urls = (request.getfixturevalue("postgres_url"), request.getfixturevalue("redis_url"))
    with deployed(tmp_path, *urls) as one:
        yield one


@pytest.fixture
def embedded(tmp_path, sqlite_url):
    """The embedded deployment alone, for what does not depend on the broker."""
    with deployed(tmp_path, sqlite_url, "") as one:
        yield one
