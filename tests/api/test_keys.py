"""API keys: who comes in, and what is kept of them"""

import httpx
import pytest
from running import Workspace
from sqlalchemy import select

from app.db.tables import ApiKey
from app.errors import Conflict, NotFound, Unauthenticated
from app.services import workspaces


def get(space: Workspace, **headers: str | bytes) -> httpx.Response:
    return httpx.get(f"{space.service.url}/v1/datasets", headers=headers)


def test_without_a_key_nobody_comes_in(space: Workspace) -> None:
    answer = get(space)
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"].startswith("Bearer")
    assert "Bearer detrank_" in answer.json()["detail"]


@pytest.mark.parametrize(
    "path", ["datasets", "checkpoints", "rankings", "jobs", "metrics", "workers", "formats"]
)
def test_every_list_needs_a_key(space: Workspace, path: str) -> None:
    assert httpx.get(f"{space.service.url}/v1/{path}").status_code == 401


@pytest.mark.parametrize("path", ["healthz", "readyz", "metrics", "openapi.json"])
def test_operation_needs_none(space: Workspace, path: str) -> None:
    status = httpx.get(f"{space.service.url}/{path}").status_code
    # a machine that stands still for seconds is not ready, and says so to anybody
    assert status == 200 or (path, status) == ("readyz", 503)


def test_a_body_is_not_read_from_someone_without_a_key(space: Workspace) -> None:
    answer = httpx.post(f"{space.service.url}/v1/datasets", content=b"PK\x03\x04" + b"x" * 1000)
    assert answer.status_code == 401


def test_damaged_and_foreign_keys(space: Workspace) -> None:
    swapped = space.key[:-1] + ("0" if space.key[-1] != "0" else "1")
    for key in (swapped, space.key[:-1], space.key + "0", space.key.upper(), "detrank_", "x", "ümlaut"):
        answer = get(space, Authorization=f"Bearer {key}".encode())
        assert answer.status_code == 401
        assert key not in answer.text or len(key) < 10
    assert get(space, Authorization=f"Basic {space.key}").status_code == 401


def test_a_whole_key_that_we_never_gave_is_refused(space: Workspace) -> None:
    body = workspaces.PREFIX + "a" * 43
    key = body + workspaces._checksum(body)
    workspaces.check_form(key)
    assert get(space, Authorization=f"Bearer {key}").status_code == 401


def test_a_revoked_key_is_closed_at_once(space: Workspace) -> None:
    with space.service.database.unit_of_work() as session:
        id = session.scalars(select(ApiKey.id).where(ApiKey.workspace_id == space.id)).one()
        workspaces.revoke_key(session, id)
    assert space.http.get("/v1/datasets").status_code == 401
    with space.service.database.unit_of_work() as session, pytest.raises(Conflict):
        workspaces.revoke_key(session, id)


def test_only_a_hash_is_kept_and_the_use_is_noted(space: Workspace) -> None:
    space.http.get("/v1/datasets")
    with space.service.database.reading() as session:
        record = session.scalars(select(ApiKey).where(ApiKey.workspace_id == space.id)).one()
        assert space.key not in str(vars(record))
        assert space.key.startswith(record.prefix)
        assert record.last_used_at is not None
        assert [one.id for one in workspaces.list_keys(session, space.id)] == [record.id]
        with pytest.raises(NotFound):
            workspaces.create_key(session, "ws_nothing", "x")


def test_keys_never_repeat_and_check_themselves() -> None:
    for wrong in ("", "detrank_", "detrank_" + "x" * 51):
        with pytest.raises(Unauthenticated):
            workspaces.check_form(wrong)


def test_the_log_has_no_keys(
    space: Workspace, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    space.http.get("/v1/datasets")
    get(space, Authorization=f"Bearer {space.key[:-1]}")
    captured = capfd.readouterr()
    assert space.key[:-1] not in captured.out + captured.err + caplog.text
