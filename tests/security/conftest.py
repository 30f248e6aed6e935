"""A service without keys, as it runs on somebody's own machine."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from running import Running, running

from app.settings import Settings


def open_settings(folder: Path) -> Settings:
    return Settings(
        data_dir=folder / "home", min_free_disk_bytes=0, max_upload_bytes=1 << 20, max_json_bytes=1 << 16
    )


@pytest.fixture
def open_service(tmp_path: Path) -> Iterator[Running]:
    with running(open_settings(tmp_path)) as service:
        yield service


@pytest.fixture
def open_url(open_service: Running) -> str:
    return open_service.url


@pytest.fixture
def open_home(open_service: Running) -> Path:
    return open_service.settings.home
