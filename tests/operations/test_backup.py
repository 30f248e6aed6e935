"""What docs/operating.md says of backup, restore and upgrade, done: the copy answers as the original did."""

import json
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.db.engine import Database
from app.db.migrate import downgrade, is_current
from detrank import Client
from tests.deployments import Deployment
from tests.faults.servers import NoServer, Postgres, _postgres_programs
from tests.faults.works import archive

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

# a version ago, as far as the schema goes
BEFORE = "0008"


def asked(running: Deployment, key: str) -> httpx.Client:
    headers = {"Authorization": f"Bearer {key}"}
    return httpx.Client(base_url=running.client.url, headers=headers, timeout=60)


def answers(running: Deployment, key: str, dataset_id: str) -> dict[str, Any]:
    """All that is kept of it: the record, its report, its pictures and labels."""
    base = f"/v1/datasets/{dataset_id}"
    with asked(running, key) as http:
        record, report, content = (http.get(f"{base}{part}") for part in ("", "/report", "/archive"))
    assert content.is_success, content.text
    return {"record": record.json(), "report": report.json(), "bytes": content.content}


def opens(running: Deployment, key: str) -> bool:
    with asked(running, key) as http:
        answer = http.get("/v1/datasets")
    assert answer.status_code in (200, 401), answer.text
    return answer.status_code == 200


def key(running: Deployment, *words: str) -> tuple[str, str]:
    """The id and the key that `detrank keys ...` made."""
    command = [sys.executable, "-m", "app.cli", "keys", *words, "--json"]
    done = subprocess.run(command, env=running.environment, capture_output=True, text=True, check=True)
    made = json.loads(done.stdout)
    return made["id"], made["key"]


def rotated(running: Deployment, key_id: str) -> tuple[str, str]:
    return key(running, "rotate", key_id, "--grace-hours", "0")


def save(running: Deployment, folder: Path, postgres: Postgres | None) -> None:
    """The database first, then the files: a file that no record names does no harm, a missing one would."""
    if postgres is None:
        with (
            sqlite3.connect(running.home / "detrank.db") as source,
            sqlite3.connect(folder / "detrank.db") as copy,
        ):
            source.backup(copy)
    else:
        with (folder / "dump").open("wb") as file:
            address = postgres.url.replace("+psycopg", "")
            subprocess.run(
                [_postgres_programs() / "pg_dump", "--format=custom", address], stdout=file, check=True
            )
    shutil.copytree(running.home / "storage", folder / "storage")


@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
def test_a_backup_of_a_running_service_is_restored_and_upgraded_and_keys_are_rotated(
    kind: str, tmp_path: Path
) -> None:
    first = second = None
    started: list[Deployment] = []
    try:
        if kind == "postgres":
            first, second = Postgres(), Postgres()
        settings = (
            {"DATABASE_URL": first.url, "BROKER_URL": f"detrank-files://{tmp_path}/broker"} if first else {}
        )
        running = Deployment(tmp_path / "home", AUTH="keys", **settings)
        started.append(running)
        running.run("migrate")
        id, first_key = key(running, "create", "robot")
        url = running.start_api().url
        running.start_worker()
        with asked(running, first_key) as http:
            made = http.post("/v1/datasets", params={"name": "set"}, content=archive(1)).json()
        with Client(url, first_key) as client:
            assert client.datasets.wait(made["id"], timeout_s=120)["state"] == "ready"
        before = answers(running, first_key, made["id"])
        second_id, second_key = rotated(running, id)
        assert [opens(running, one) for one in (first_key, second_key)] == [False, True]
        kept = tmp_path / "kept"
        kept.mkdir()
        save(running, kept, first)
        running.stop()

        home = tmp_path / "restored"
        home.mkdir()
        shutil.copytree(kept / "storage", home / "storage")
        if second:
            command = [
                _postgres_programs() / "pg_restore",
                "--no-owner",
                "--dbname",
                second.url.replace("+psycopg", ""),
            ]
            subprocess.run([*command, kept / "dump"], check=True)
            settings = settings | {"DATABASE_URL": second.url}
        else:
            shutil.copy(kept / "detrank.db", home / "detrank.db")
        url = second.url if second else f"sqlite:///{home / 'detrank.db'}"
        downgrade(url, BEFORE)
        assert not is_current(url)
        again = Deployment(home, AUTH="keys", **settings)
        started.append(again)
        again.run("migrate")
        assert is_current(url)
        again.start_api()
        # what was rotated away before stays away, what opened then opens now, and is rotated like any other
        assert [opens(again, one) for one in (first_key, second_key)] == [False, True]
        assert answers(again, second_key, made["id"]) == before
        _, third_key = rotated(again, second_id)
        assert [opens(again, one) for one in (first_key, second_key, third_key)] == [False, False, True]
        # nothing that is referred to goes, nothing else is there
        again.run("tidy", "--older-than-hours", "0")
        assert answers(again, third_key, made["id"])["bytes"] == before["bytes"]
        Database(url).dispose()
    except NoServer as missing:
        pytest.skip(str(missing))
    finally:
        for each in started:
            each.stop()
        for server in (first, second):
            if server is not None:
                server.stop()
