"""The bench on which handlers are tried."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from handler_bench import Bench
from small_service import made


@pytest.fixture
def bench(tmp_path: Path, sqlite_url: str) -> Iterator[Bench]:
    made = Bench(tmp_path, sqlite_url)
    yield made
    made.database.dispose()


@pytest.fixture(scope="session")
def small_service(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of a bench with datasets and candidates that train in seconds; to be copied."""
    return made(tmp_path_factory.mktemp("small") / "original")
