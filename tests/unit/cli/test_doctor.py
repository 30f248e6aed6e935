"""`detrank doctor`, and settings that cannot be meant."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from app import deployment_urls
from app.db.engine import make_engine
from app.settings import Settings, WrongSettings, get_settings


def detrank(*words: str, home: Path, **settings: str) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("DETRANK_")}
    return subprocess.run(
        [sys.executable, "-m", "app.cli", *words],
        env=kept | {"DETRANK_DATA_DIR": str(home), "DETRANK_MIN_FREE_DISK_BYTES": "0"} | settings,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_it_looks_at_every_part_and_names_the_broken_one(tmp_path: Path) -> None:
    found = detrank(
        "doctor", "--no-device", "--json", home=tmp_path, DETRANK_BROKER_URL="redis://127.0.0.1:1/0"
    )
    assert found.returncode == 1, found.stderr
    checks = json.loads(found.stdout)["checks"]
    assert checks["broker"].startswith("does not answer")
    assert "detrank migrate" in checks["schema"]
    assert (checks["database"], checks["disk"], checks["storage"]) == ("ok", "ok", "ok")
    assert "broker" in found.stderr
    assert "Traceback" not in found.stderr


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("DETRANK_DATABASE_URL", "mysql://secret@host/x"),
        ("DETRANK_BROKER_URL", "localhost:6379"),
        ("DETRANK_STORAGE_URL", "bucket/prefix"),
    ],
)
def test_a_url_that_cannot_be_meant_is_one_line(tmp_path: Path, name: str, value: str) -> None:
    found = detrank("migrate", home=tmp_path, **{name: value})
    assert found.returncode == 2
    (line,) = found.stderr.strip().splitlines()
    assert name in line
    assert value not in line, "a password may be in it"


def test_a_database_that_is_away_is_one_line(tmp_path: Path) -> None:
    url = "postgresql+psycopg://nobody@127.0.0.1:1/x"
    found = detrank("migrate", home=tmp_path, DETRANK_DATABASE_URL=url)
    assert found.returncode == 2
    assert "Traceback" not in found.stderr
    assert "DETRANK_DATABASE_URL names does not answer" in found.stderr


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("DATABASE_URL", "postgresql://me:secret/word@host/x", "in a password write / as %2F"),
        ("DATABASE_URL", "postgresql://me:secret@host:54x/x", "no port from 0 to 65535"),
        ("DATABASE_URL", "postgresql://me:secret@/x", "names no host"),
        ("DATABASE_URL", "postgresql+asyncpg://me:secret@host/x", "write postgresql+psycopg://"),
        ("DATABASE_URL", "sqlite://secret.db", "three slashes"),
        ("BROKER_URL", "redis://:secret@host:99999/0", "no port from 0 to 65535"),
        ("BROKER_URL", "amqp://", "names no host"),
        ("STORAGE_URL", "file://secret/storage", "three slashes"),
        ("STORAGE_URL", "s3://", "names no bucket"),
        ("STORAGE_URL", "gs://secret", "pip install 'gcsfs'"),
        ("TRACES_URL", "secret:4318", "begins with none of http://, https://"),
        ("LOG_LEVEL", "secret", "'DEBUG', 'INFO', 'WARNING' or 'ERROR'"),
        ("DEVICE", "gpu-secret", "none of auto, cpu, cuda"),
        ("CORS_ORIGINS", "https://secret.example", "cors_origins"),
        ("RANKINGS_KEPT_S", "-1", "greater than or equal to 0"),
    ],
)
def test_what_cannot_be_meant_is_said_without_its_value(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, words: str
) -> None:
    monkeypatch.setattr(deployment_urls, "find_spec", lambda package: None if package == "gcsfs" else package)
    monkeypatch.setenv(f"DETRANK_{name}", value)
    get_settings.cache_clear()
    try:
        with pytest.raises(WrongSettings) as refusal:
            get_settings()
    finally:
        get_settings.cache_clear()
    said = str(refusal.value)
    assert name in said.upper()
    assert words in said
    assert "secret" not in said
    assert "\n" not in said


@pytest.mark.parametrize("scheme", ["postgres", "postgresql", "postgresql+psycopg"])
def test_a_database_is_asked_by_the_driver_that_is_installed(scheme: str) -> None:
    settings = Settings(database_url=f"{scheme}://me@host/x")
    assert settings.resolved_database_url == "postgresql+psycopg://me@host/x"
    make_engine(settings.resolved_database_url).dispose()


def test_every_broken_part_is_named_with_its_setting_and_the_reason(tmp_path: Path) -> None:
    url = "postgresql://nobody@127.0.0.1:1/x"
    storage = f"file://{tmp_path}/file/storage"
    (tmp_path / "file").write_text("x")
    found = detrank(
        "doctor",
        "--no-device",
        "--json",
        home=tmp_path,
        DETRANK_DATABASE_URL=url,
        DETRANK_STORAGE_URL=storage,
    )
    assert found.returncode == 1, found.stderr
    checks = json.loads(found.stdout)["checks"]
    assert "Connection refused" in checks["database"]
    assert checks["database"].endswith("(DETRANK_DATABASE_URL)")
    assert checks["storage"].endswith("(DETRANK_STORAGE_URL)")
    assert "Traceback" not in found.stderr


def test_a_data_folder_that_cannot_be_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    found = detrank("doctor", "--no-device", home=tmp_path / "file" / "home")
    assert found.returncode == 1
    assert "DETRANK_DATA_DIR" in found.stdout
    assert "Traceback" not in found.stderr


@pytest.mark.parametrize("command", [["keys", "list"], ["tidy"], ["serve", "--port", "0"]])
def test_a_database_that_is_away_is_one_line_for_every_command(tmp_path: Path, command: list[str]) -> None:
    url = "postgresql://nobody@127.0.0.1:1/x"
    found = detrank(
        *command, home=tmp_path, DETRANK_DATABASE_URL=url, DETRANK_BROKER_URL="redis://127.0.0.1:1/0"
    )
    assert found.returncode == 2, found.stderr
    assert "Traceback" not in found.stderr
    assert "DETRANK_DATABASE_URL names does not answer" in found.stderr
