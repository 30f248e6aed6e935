"""What keys may do and until when, who is written down, and who sees what of operation"""

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest
from running import Workspace, running, small_zip
from sqlalchemy import select
from typer.testing import CliRunner

from app.cli.main import build
from app.db.access_tables import ApiKey, AuditEntry, Scope
from app.db.tables import WorkerRecord
from app.services import workspaces
from app.settings import Settings, get_settings
from detrank import Client, ProblemError


def key_of(space: Workspace, scope: Scope, expires_at: datetime | None = None) -> str:
    with space.service.database.unit_of_work() as session:
        return workspaces.create_key(session, space.id, scope.value, scope=scope, expires_at=expires_at)[1]


@pytest.fixture
def admin(space: Workspace) -> Iterator[Client]:
    with Client(space.service.url, key_of(space, Scope.ADMIN)) as client:
        yield client


def test_each_scope_does_what_it_says(space: Workspace) -> None:
    allowed = {Scope.METRICS: (403, 403, 403), Scope.READ: (200, 403, 403), Scope.WRITE: (200, 202, 403)}
    for scope, expected in (allowed | {Scope.ADMIN: (200, 202, 200)}).items():
        with httpx.Client(
            base_url=space.service.url, headers={"Authorization": f"Bearer {key_of(space, scope)}"}
        ) as http:
            asked = (
                http.get("/v1/datasets"),
                http.post("/v1/datasets?name=x", content=small_zip()),
                http.get("/v1/keys"),
            )
            assert tuple(answer.status_code for answer in asked) == expected, scope


def test_an_expired_key_says_that_it_is(space: Workspace) -> None:
    then = datetime.now(UTC) - timedelta(seconds=1)
    with Client(space.service.url, key_of(space, Scope.WRITE, then)) as client:
        with pytest.raises(ProblemError, match="expired at") as refused:
            client.datasets.page()
        assert refused.value.status == 401


def test_keys_are_made_rotated_and_revoked_by_an_admin(space: Workspace, admin: Client) -> None:
    made = admin.keys.create("robot", workspace=f"of {space.id}", scope="read", expires_in_days=2)
    assert made["scope"] == "read"
    assert "key" not in admin.keys.get(made["id"])
    lasts = datetime.fromisoformat(made["expires_at"]) - datetime.fromisoformat(made["created_at"])
    assert timedelta(days=1.9) < lasts < timedelta(days=2.1)
    new = admin.keys.rotate(made["id"], grace_hours=1)
    assert (new["name"], new["scope"], new["workspace_id"]) == ("robot", "read", made["workspace_id"])
    for key in (made["key"], new["key"]):
        with Client(space.service.url, key) as robot:
            assert robot.datasets.page()["items"] == []
    old = admin.keys.get(made["id"])
    assert datetime.fromisoformat(old["expires_at"]) < datetime.now(UTC) + timedelta(hours=1, minutes=1)
    admin.keys.delete(new["id"])
    with Client(space.service.url, new["key"]) as robot, pytest.raises(ProblemError, match="revoked"):
        robot.datasets.page()
    with pytest.raises(ProblemError, match="opens nothing any more"):
        admin.keys.rotate(new["id"])
    listed = list(admin.keys.list(workspace_id=made["workspace_id"]))
    assert [one["id"] for one in listed] == [new["id"], made["id"]]


def test_a_key_is_in_no_answer_that_is_kept(space: Workspace) -> None:
    headers = {"Authorization": f"Bearer {key_of(space, Scope.ADMIN)}", "Idempotency-Key": "once"}
    first, again = (
        httpx.post(f"{space.service.url}/v1/keys", json={"name": "x"}, headers=headers).json() for _ in "ab"
    )
    assert first["key"].startswith("detrank_")
    assert (again["id"], again["key"]) == (first["id"], None)


def test_who_changed_what_is_written_down(space: Workspace, admin: Client) -> None:
    dataset = space.dataset()
    headers = {"X-Request-ID": "request-of-mine"}
    assert space.http.delete(f"/v1/datasets/{dataset}", headers=headers).status_code == 204
    assert space.http.delete(f"/v1/datasets/{dataset}").status_code == 404
    space.http.get("/v1/datasets")
    with space.service.database.reading() as session:
        key_id = session.scalars(
            select(ApiKey.id).where(ApiKey.workspace_id == space.id).order_by(ApiKey.id)
        ).first()
    told = list(admin.audit.list(workspace_id=space.id, key_id=key_id))
    assert [(one["action"], one["resource"]) for one in told] == [
        ("delete_dataset", f"/v1/datasets/{dataset}"),
        ("create_dataset", f"/v1/datasets/{dataset}"),
    ]
    assert told[0]["request_id"] == "request-of-mine"
    assert admin.audit.page(action="delete_dataset", resource=f"/v1/datasets/{dataset}")["items"] == told[:1]


def test_repeating_and_failing_requests_are_not_written_down(space: Workspace) -> None:
    headers = {"Idempotency-Key": "once"}
    for _ in range(3):
        space.http.post("/v1/checkpoints", json={"source": "timm://x"}, headers=headers).raise_for_status()
    space.http.post("/v1/checkpoints", json={"source": "nonsense"})
    with space.service.database.reading() as session:
        found = session.scalars(select(AuditEntry).where(AuditEntry.workspace_id == space.id)).all()
    assert [entry.action for entry in found] == ["create_checkpoint"]


def test_a_resumable_upload_is_one_entry(space: Workspace) -> None:
    tus = {"Tus-Resumable": "1.0.0"}
    made = space.http.post("/v1/uploads", headers=tus | {"Upload-Length": "4"})
    for offset in range(4):
        headers = tus | {
            "Upload-Offset": str(offset),
            "Content-Type": "application/offset+octet-stream",
        }
        space.http.patch(made.headers["Location"], content=b"x", headers=headers).raise_for_status()
    with space.service.database.reading() as session:
        found = session.scalars(select(AuditEntry).where(AuditEntry.workspace_id == space.id)).all()
    assert [(entry.action, entry.resource) for entry in found] == [
        ("create_upload", made.headers["Location"])
    ]


def test_workers_show_a_workspace_its_own_jobs_and_detectors(
    space: Workspace, other: Workspace, admin: Client
) -> None:
    mine, theirs = space.checkpoint(), other.checkpoint()
    now = datetime.now(UTC)

    def weights(one: Workspace, id: str) -> str:
        return one.http.get(f"/v1/checkpoints/{id}").json()["weights_sha256"]

    def job(one: Workspace) -> str:
        return one.http.post("/v1/datasets?name=x", content=small_zip()).json()["job_id"]

    held = {"architecture": "a/b", "device": "cpu", "size_bytes": 1, "pid": 1}
    models = [held | {"weights_sha256": digest} for digest in (weights(space, mine), weights(other, theirs))]
    with space.service.database.unit_of_work() as session:
        session.merge(
            WorkerRecord(
                name="tester", queues=["cpu"], details={"models": models}, started_at=now, seen_at=now
            )
        )
    jobs = [job(space), job(other)]
    for one, id in zip((space, other), jobs, strict=True):
        one.claim(id)

    def seen(client: Client) -> tuple[list[str], set[str]]:
        record = next(one for one in client.workers() if one["name"] == "tester")
        return record["jobs"], {model["weights_sha256"] for model in record["details"]["models"]}

    with Client(space.service.url, space.key) as client:
        assert seen(client) == ([jobs[0]], {models[0]["weights_sha256"]})
    all_jobs, all_models = seen(admin)
    with space.service.database.unit_of_work() as session:
        session.delete(session.get(WorkerRecord, "tester"))
    assert set(jobs) <= set(all_jobs)
    assert all_models == {model["weights_sha256"] for model in models}


@pytest.mark.parametrize(
    ("setting", "expected"),
    [("open", [200] * 4), ("key", [401, 403, 200, 200]), ("off", [404] * 4)],
)
def test_metrics_can_be_closed(tmp_path: Path, setting: str, expected: list[int]) -> None:
    with running(Settings(data_dir=tmp_path, auth="keys", metrics=setting, min_free_disk_bytes=0)) as service:
        with service.database.unit_of_work() as session:
            id = workspaces.ensure(session, "x").id
            keys = [
                workspaces.create_key(session, id, "x", scope=scope)[1]
                for scope in (Scope.WRITE, Scope.METRICS, Scope.ADMIN)
            ]
        headers = [{}, *({"Authorization": f"Bearer {key}"} for key in keys)]
        found = [httpx.get(f"{service.url}/metrics", headers=one).status_code for one in headers]
    assert found == expected


def test_keys_by_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DETRANK_DATA_DIR", str(tmp_path))
    get_settings.cache_clear()

    def run(*words: str) -> dict:
        done = CliRunner().invoke(build(), ["keys", *words, "--json"])
        assert done.exit_code == 0, done.output
        return json.loads(done.stdout)

    made = run("create", "me", "--scope", "admin", "--days", "1")
    assert made["scope"] == "admin"
    assert made["expires_at"] is not None
    new = run("rotate", made["id"], "--grace-hours", "0")
    listed = {one["id"]: one for one in run("list")["items"]}
    assert listed[made["id"]]["expires_at"] <= new["created_at"]
    run("revoke", new["id"])
    settings = Settings(data_dir=tmp_path, min_free_disk_bytes=0)
    with running(settings) as service, Client(service.url) as client:
        told = [(one["action"], one["key_id"]) for one in client.audit.list()]
        shown = CliRunner().invoke(build(), ["--url", service.url, "audit", "--json"])
    get_settings.cache_clear()
    assert told == [("revoke_key", None), ("rotate_key", None), ("create_key", None)]
    assert [one["action"] for one in json.loads(shown.stdout)["items"]] == [action for action, _ in told]
