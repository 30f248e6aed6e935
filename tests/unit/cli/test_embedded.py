"""Finding the service of a data folder, and refusing what must not be started."""

import json
from pathlib import Path

import pytest

from app.embedded.announcing import AlreadyRunning, announce, announced
from detrank import StartFailed, embedded
from detrank.embedded import find


def test_a_service_is_found_while_it_lives_and_not_afterwards(tmp_path: Path) -> None:
    assert find(tmp_path) is None
    with announced(tmp_path):
        assert find(tmp_path) is None
        announce(tmp_path, "http://127.0.0.1:1")
        assert find(tmp_path) == "http://127.0.0.1:1"
    assert find(tmp_path) is None
    assert not (tmp_path / "service.json").exists()


def test_what_a_crash_left_behind_is_not_taken_for_a_service(tmp_path: Path) -> None:
    (tmp_path / "service.lock").touch()
    (tmp_path / "service.json").write_text(json.dumps({"url": "http://127.0.0.1:1"}))
    assert find(tmp_path) is None


def test_half_a_file_is_not_a_service(tmp_path: Path) -> None:
    with announced(tmp_path):
        (tmp_path / "service.json").write_text('{"url": "htt')
        assert find(tmp_path) is None


def test_a_second_service_on_the_same_folder_is_refused(tmp_path: Path) -> None:
    with announced(tmp_path):
        announce(tmp_path, "http://127.0.0.1:1")
        with (
            pytest.raises(AlreadyRunning, match=r"already runs on .*http://127\.0\.0\.1:1.*--data-dir"),
            announced(tmp_path),
        ):
            pass
        assert find(tmp_path) == "http://127.0.0.1:1"


def test_a_service_that_cannot_start_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "detrank.db").mkdir()
    monkeypatch.setattr(embedded, "START_TIMEOUT_S", 60.0)
    for name in ("DETRANK_DATABASE_URL", "DETRANK_BROKER_URL"):
        monkeypatch.delenv(name, raising=False)
    with (
        pytest.raises(StartFailed, match=r"unable to open database file[\s\S]*service\.log"),
        embedded.started(tmp_path),
    ):
        pass
    assert find(tmp_path) is None
