"""Rates, quotas and priorities, as those who meet them see them"""

import json
from collections.abc import Iterator

import pytest
from running import Running, Workspace, running, small_zip, workspace
from typer.testing import CliRunner

from app.cli.main import build
from app.db.access_tables import Scope
from app.services import workspaces
from app.settings import Settings
from detrank import Client, ProblemError

QUOTA = 20_000


@pytest.fixture(scope="module")
def limited(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    home = tmp_path_factory.mktemp("limited")
    settings = Settings(
        data_dir=home,
        auth="keys",
        min_free_disk_bytes=0,
        key_requests_per_minute=60,
        key_uploads_per_hour=5,
        workspace_bytes=QUOTA,
        workspace_queued_jobs=4,
    )
    with running(settings) as made:
        yield made


@pytest.fixture
def mine(limited: Running, request: pytest.FixtureRequest) -> Iterator[Workspace]:
    with workspace(limited, request.node.name) as made:
        yield made


@pytest.fixture
def admin(limited: Running) -> Iterator[Client]:
    with limited.database.unit_of_work() as session:
        place = workspaces.ensure(session, "operators").id
        _, key = workspaces.create_key(session, place, "admin", scope=Scope.ADMIN)
    with Client(limited.url, key) as made:
        yield made


def test_too_many_requests_are_told_when_to_come_back(mine: Workspace) -> None:
    answers = [mine.http.get("/v1/jobs") for _ in range(130)]
    assert answers[0].headers["ratelimit-policy"] == '"key-requests";q=60;w=60'
    left = [int(one.headers["ratelimit"].split("r=")[1].split(";")[0]) for one in answers[:5]]
    assert left == sorted(left, reverse=True)
    refused = [one for one in answers if one.status_code == 429]
    assert refused, "a minute may have ended in between, two cannot have"
    problem = refused[0].json()
    assert (problem["code"], problem["retryable"]) == ("too_many_requests", True)
    assert 0 < int(refused[0].headers["retry-after"]) <= 60
    assert refused[0].headers["ratelimit"].startswith('"key-requests";r=0;t=')
    assert "60 requests of a key are allowed in 60 s" in problem["detail"]


def test_uploads_are_counted_apart(mine: Workspace, admin: Client) -> None:
    admin.workspaces.set(mine.id, max_queued_jobs=0)
    found = [mine.http.post("/v1/checkpoints", content=b"weights").status_code for _ in range(6)]
    assert found == [202] * 5 + [429]
    assert mine.http.post("/v1/checkpoints", json={"source": "timm://x"}).status_code == 202


def test_a_quota_of_bytes_says_what_is_used_and_how_to_make_room(mine: Workspace) -> None:
    id = mine.checkpoint()
    first = (
        mine.http.post("/v1/datasets", content=small_zip({"a.bin": "x" * 15_000})).raise_for_status().json()
    )
    refused = mine.http.post("/v1/checkpoints", content=b"y" * 9_000)
    assert refused.status_code == 403
    problem = refused.json()
    assert problem["code"] == "quota_exceeded"
    used = mine.http.get("/v1/workspace").json()["bytes"]
    assert used["limit"] == QUOTA
    assert f"{used['used']:,} bytes are stored, {QUOTA:,} may be, and this needs 9,000" in problem["detail"]
    assert any(f"/v1/checkpoints/{id}" in error["message"] for error in problem["errors"])
    tus = {"Tus-Resumable": "1.0.0", "Upload-Length": "9000"}
    assert mine.http.post("/v1/uploads", headers=tus).status_code == 403
    mine.fail(first["job_id"])
    assert mine.http.delete(f"/v1/datasets/{first['id']}").status_code == 204
    assert mine.http.get("/v1/workspace").json()["bytes"]["used"] < 1000


def test_a_body_that_does_not_say_how_long_it_is_is_refused_at_its_end(mine: Workspace) -> None:
    answer = mine.http.post("/v1/checkpoints", content=iter([b"y" * 15_000, b"z" * 15_000]))
    assert (answer.status_code, answer.json()["code"]) == (403, "quota_exceeded")
    assert mine.http.get("/v1/checkpoints").json()["items"] == []


def test_a_quota_of_queued_jobs_refuses_what_goes_beyond_and_nothing_else(
    mine: Workspace, admin: Client
) -> None:
    body = {"source": "timm://x"}
    made = [mine.http.post("/v1/checkpoints", json=body).raise_for_status().json() for _ in range(4)]
    refused = mine.http.post("/v1/checkpoints", json=body)
    assert (refused.status_code, refused.json()["code"]) == (403, "quota_exceeded")
    assert "4 jobs are queued, 4 may be, and this adds 1" in refused.json()["detail"]
    assert len(mine.http.get("/v1/checkpoints").json()["items"]) == 4
    assert mine.http.get("/v1/workspace").json()["queued_jobs"] == {"used": 4, "limit": 4}
    assert mine.http.post(f"/v1/jobs/{made[0]['job_id']}:cancel").status_code in (200, 202)
    assert mine.http.post("/v1/checkpoints", json=body).status_code == 202
    admin.workspaces.set(mine.id, max_queued_jobs=5)
    assert mine.http.post("/v1/checkpoints", json=body).status_code == 202
    assert mine.http.post("/v1/checkpoints", json=body).status_code == 403


def test_workspaces_by_command_line(mine: Workspace, admin: Client, limited: Running) -> None:
    with limited.database.unit_of_work() as session:
        place = workspaces.ensure(session, "operators").id
        _, key = workspaces.create_key(session, place, "cli", scope=Scope.ADMIN)

    def run(*words: str, key: str = key) -> dict:
        done = CliRunner().invoke(
            build(), ["--url", limited.url, "--key", key, "workspaces", *words, "--json"]
        )
        assert done.exit_code == 0, done.output
        return json.loads(done.stdout)

    changed = run("set", mine.id, "--max-bytes", "5", "--priority", "3")
    assert (changed["bytes"]["limit"], changed["priority"]) == (5, 3)
    assert mine.id in {one["id"] for one in run("list")["items"]}
    with Client(limited.url, key) as client:
        one_by_one = [one["id"] for one in client.workspaces.list(limit=1)]
    assert len(one_by_one) == len(set(one_by_one)) >= 2
    own = run("show", key=mine.key)
    assert (own["id"], own["scope"], own["bytes"]["limit"]) == (mine.id, "write", 5)
    assert (own["key_requests_per_minute"], own["workspace_requests_per_minute"]) == (60, None)
    with Client(limited.url, mine.key) as client, pytest.raises(ProblemError, match="scope admin"):
        client.workspaces.set(mine.id, max_bytes=0)


@pytest.mark.parametrize("kind", ["rankings", "jobs"])
def test_a_priority_when_it_is_made_and_afterwards(space: Workspace, kind: str) -> None:
    made = space.ranking(1, priority=4)
    job = made["candidates"][0]["job_id"]
    assert space.http.get(f"/v1/jobs/{job}").json()["priority"] == 4
    with Client(space.service.url, space.key) as client:
        at = made["id"] if kind == "rankings" else made["job_id"]
        getattr(client, kind).prioritise(at, -2)
        assert client.jobs.get(job)["priority"] == -2
        with pytest.raises(ProblemError):
            client.rankings.prioritise(made["id"], 11)
    body = {key: made["request"][key] for key in ("dataset_id", "checkpoint_ids")}
    assert space.http.post("/v1/rankings", json=body | {"priority": 11}).status_code == 422
