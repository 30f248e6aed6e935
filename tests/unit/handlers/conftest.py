"""The bench on which handlers are tried."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from handler_bench import Bench


@pytest.fixture
def bench(tmp_path: Path, sqlite_url: str) -> Iterator[Bench]:
    made = Bench(tmp_path, sqlite_url)
    yield made
    made.database.dispose()
