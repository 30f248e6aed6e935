"""Where tests find what they need: shared data, and Postgres, Redis and RabbitMQ on their standard local ports.

`DETRANK_TEST_DATA`, `DETRANK_TEST_DATABASE_URL`, `DETRANK_TEST_REDIS_URL` and `DETRANK_TEST_AMQP_URL` point elsewhere;
`DETRANK_REQUIRE_SERVICES=1` turns a missing service from a skip into a failure.

`every.toml` says which cases `make test` and `make test-slow` leave to `make test-every`.
"""

import functools
import os
import socket
import ssl
import tomllib
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from fnmatch import fnmatchcase
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from hypothesis import HealthCheck, settings
from sqlalchemy import create_engine, text
from sqlalchemy.engine import make_url

ROOT = Path(__file__).resolve().parent.parent
UNMET = pytest.StashKey[dict[str, set[str]]]()

# the same examples on every machine, however slow; HYPOTHESIS_PROFILE=default looks for new ones
settings.register_profile(
    "repeatable", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "repeatable"))

# a twelfth of the time of those that ask over HTTP: each client would read the certificates of all authorities anew
ssl.create_default_context = functools.cache(ssl.create_default_context)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark with `every` the cases that `every.toml` does not keep; unit/test_every.py asks whether each entry fits something."""
    table = tomllib.loads((ROOT / "tests" / "every.toml").read_text())
    unmet = config.stash[UNMET] = {}
    for item in items:
        file = item.path.relative_to(ROOT / "tests").as_posix()
        name, _, case = item.name.removesuffix("]").partition("[")
        for test, kept in table.get(file, {}).items():
            missing = unmet.setdefault(f"{file}::{test}", {*kept, test})
            if not fnmatchcase(name, test):
                continue
            fitting = {pattern for pattern in kept if fnmatchcase(case, pattern)}
            missing -= {*fitting, test}
            if not fitting:
                item.add_marker("every")


@pytest.fixture(scope="session")
def unmet_of_every(pytestconfig: pytest.Config) -> dict[str, set[str]]:
    """Each test that `every.toml` names in a collected file: which of its name and its cases are not there."""
    return pytestconfig.stash[UNMET]


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real datasets and weights; never part of the repository."""
    folder = Path(os.environ.get("DETRANK_TEST_DATA") or ROOT.parent / "shared" / "data")
    if not folder.is_dir():
        pytest.skip(f"no test data at {folder}; set DETRANK_TEST_DATA")
    return folder


def _service(variable: str, default: str, name: str) -> str:
    url = os.environ.get(variable) or default
    parts = urlsplit(url)
    port = parts.port or urlsplit(default).port
    try:
        socket.create_connection((parts.hostname or "127.0.0.1", port), timeout=2).close()
    except OSError as failure:
        message = f"no {name} at {parts.hostname}:{port} ({failure}); set {variable}"
        if os.environ.get("DETRANK_REQUIRE_SERVICES") == "1":
            pytest.fail(message)
        pytest.skip(message)
    return url


@contextmanager
def _new_database() -> Iterator[str]:
    server = _service(
        "DETRANK_TEST_DATABASE_URL", "postgresql+psycopg://postgres@127.0.0.1:5432/postgres", "Postgres"
    )
    name = f"detrank_test_{uuid.uuid4().hex[:12]}"
    engine = create_engine(server, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name}"))
    yield make_url(server).set(database=name).render_as_string(hide_password=False)
    with engine.connect() as connection:
        connection.execute(text(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)"))
    engine.dispose()


@pytest.fixture
def postgres_url() -> Iterator[str]:
    """A new, empty Postgres database, dropped afterwards."""
    with _new_database() as url:
        yield url


@pytest.fixture(scope="session")
def lasting_postgres_url() -> Iterator[str]:
    """A Postgres database, empty at first, for all tests of this run that use it."""
    with _new_database() as url:
        yield url


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'detrank.db'}"


@pytest.fixture(params=["sqlite", "postgres"])
def database_url(request: pytest.FixtureRequest) -> str:
    """Each of the two databases in turn, empty: no tables yet."""
    return request.getfixturevalue(f"{request.param}_url")


@pytest.fixture(scope="session")
def redis_url() -> str:
    return _service("DETRANK_TEST_REDIS_URL", "redis://127.0.0.1:6379/0", "Redis")


@pytest.fixture(scope="session")
def amqp_url() -> str:
    return _service("DETRANK_TEST_AMQP_URL", "amqp://guest:guest@127.0.0.1:5672//", "RabbitMQ")
