"""Every route of the application, by its own table: what it answers to strangers, to weak keys and to nobody.

A new route is walked by itself, with the least body that it documents. One whose path has a new kind of thing in it, or that asks
for more before it looks for the thing, is named by a failure here: add an example to `owned`, `OTHERS` or `SENT`.
"""

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, NamedTuple

import httpx
import pytest
from fastapi.routing import iter_route_contexts
from running import Running, Workspace

from app.api.access import SAFE
from app.db import tables
from app.db.access_tables import Scope
from app.ids import new_id
from app.main import create_app
from app.services import workspaces
from app.settings import Settings

# answered to anyone: they show nothing of any workspace
OPEN = re.compile(
    r"(/v1)?/problems.*|/openapi\.json|/healthz|/readyz|/metrics|/static/.*|/favicon\.ico|/sign-(in|out)"
)
# what else stands in paths, beside an id
OTHERS = {
    "number": "0",
    "delivery_id": "{deliveries}",
    "code": "internal",
    "name": "x.png",
    "digest": "0",
    "checkpoint_id": "{checkpoints}",
}
TUS = {"Tus-Resumable": "1.0.0"}
# what a request has to bring before the thing itself is looked for
SENT: dict[str, dict[str, Any]] = {
    "verify_ranking": {"json": {"top_k": 1}},
    "create_upload": {"headers": TUS},
    "head_upload": {"headers": TUS},
    "append_upload": {
        "headers": TUS | {"Upload-Offset": "0", "Content-Type": "application/offset+octet-stream"}
    },
    "delete_upload": {"headers": TUS},
}


FOR_ADMINS = ("/v1/keys", "/v1/audit", "/v1/workspaces")
TABLES = {
    "datasets": tables.Dataset,
    "checkpoints": tables.Checkpoint,
    "rankings": tables.Ranking,
    "verifications": tables.Verification,
    "searches": tables.Search,
    "studies": tables.Study,
    "pretrainings": tables.Pretraining,
    "pseudo-labellings": tables.PseudoLabelling,
    "uploads": tables.Upload,
    "webhooks": tables.Webhook,
}


class Route(NamedTuple):
    method: str
    path: str
    name: str


ALL = [
    Route(method, route.path, route.name)
    for route in iter_route_contexts(create_app(Settings()).routes)
    for method in sorted(route.methods or ())
]
WITH_KEY = [route for route in ALL if not OPEN.fullmatch(route.path)]
API = [route for route in WITH_KEY if route.path.startswith("/v1/")]


DOCUMENT = create_app(Settings()).openapi()


def least(schema: dict[str, Any]) -> Any:
    """A small value of a schema."""
    if "$ref" in schema:
        return least(DOCUMENT["components"]["schemas"][schema["$ref"].rpartition("/")[2]])
    if "anyOf" in schema:
        return least(schema["anyOf"][0])
    if "enum" in schema or "const" in schema:
        return schema.get("const") or schema["enum"][0]
    return {
        "object": {name: least(schema["properties"][name]) for name in schema.get("required", ())},
        "array": [],
        "string": "x",
        "boolean": False,
    }.get(schema.get("type", "string"), schema.get("minimum", 1))


def sent(route: Route) -> dict[str, Any]:
    """What a request brings: the least that its body may be."""
    if route.name in SENT:
        return SENT[route.name]
    operation = DOCUMENT["paths"].get(route.path, {}).get(route.method.lower(), {})
    body = operation.get("requestBody", {}).get("content", {}).get("application/json")
    return {"json": least(body["schema"])} if body and "{id}" in route.path else {}


def key_of(space: Workspace, scope: Scope) -> str:
    with space.service.database.unit_of_work() as session:
        return workspaces.create_key(session, space.id, scope.value, scope=scope)[1]


@pytest.fixture(scope="module")
def owned(service: Running) -> dict[str, str]:
    """Things of somebody: an id for each plural in a path."""
    with service.database.unit_of_work() as session:
        id = workspaces.ensure(session, new_id("walk")).id
        record, key = workspaces.create_key(session, id, "owner")
    with httpx.Client(base_url=service.url, headers={"Authorization": f"Bearer {key}"}) as http:
        space = Workspace(service, id, key, http)
        ranking = space.ranking(1)
        checkpoint = ranking["candidates"][0]["checkpoint_id"]
        body = {"dataset_id": ranking["dataset_id"], "checkpoint_id": checkpoint}
        verification = http.post("/v1/verifications", json=body).raise_for_status().json()
        webhook = http.post("/v1/webhooks", json={"url": "https://example.com/"}).raise_for_status().json()
        delivery = http.post(f"/v1/webhooks/{webhook['id']}:test").raise_for_status().json()
        http.patch(f"/v1/webhooks/{webhook['id']}", json={"enabled": False}).raise_for_status()
        upload = http.post("/v1/uploads", headers=TUS | {"Upload-Length": "5"}).raise_for_status().json()
    work = {"workspace_id": id, "state": "queued", "request": {}, "created_at": datetime.now(UTC)}
    on_data = work | {"dataset_id": ranking["dataset_id"]}
    rows = {
        "searches": tables.Search(id=new_id("se"), **on_data),
        "studies": tables.Study(id=new_id("st"), **work),
        "pretrainings": tables.Pretraining(id=new_id("pt"), **on_data),
        "pseudo-labellings": tables.PseudoLabelling(id=new_id("pl"), **on_data),
    }
    with service.database.unit_of_work() as session:
        session.add_all(rows.values())
    return {
        "datasets": ranking["dataset_id"],
        "checkpoints": checkpoint,
        "rankings": ranking["id"],
        "verifications": verification["id"],
        "subsets": verification["subset_id"],
        "jobs": ranking["job_id"],
        "uploads": upload["id"],
        "keys": record.id,
        "workspaces": id,
        "webhooks": webhook["id"],
        "deliveries": delivery["id"],
    } | {plural: row.id for plural, row in rows.items()}


def filled(path: str, owned: dict[str, str]) -> str:
    """The path with the owner's ids in it."""

    def one(found: re.Match[str]) -> str:
        if found[2] != "id":
            return OTHERS[found[2]].format(**owned)
        assert found[1] in owned, f"{path}: add an id of {found[1]} to the fixture `owned`"
        return f"{found[1]}/{owned[found[1]]}"

    path = re.sub(r"([\w-]+)/\{(id)\}", one, path)
    return re.sub(r"(/)\{(\w+)\}", lambda found: "/" + one(found), path)


def walk(
    space: Workspace, key: str | None, chosen: list[Route], owned: dict[str, str]
) -> Iterator[tuple[Route, httpx.Response]]:
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    with httpx.Client(base_url=space.service.url, headers=headers, timeout=10) as http:
        for route in chosen:
            yield route, http.request(route.method, filled(route.path, owned), **sent(route))


def test_a_foreign_key_finds_nothing(space: Workspace, owned: dict[str, str]) -> None:
    for route, answer in walk(space, space.key, WITH_KEY, owned):
        if "{id}" in route.path:
            expected = 403 if route.path.startswith(FOR_ADMINS) else 404
            assert answer.status_code == expected, (route, answer.text)
        elif route.method in SAFE:
            assert not [id for id in owned.values() if id in answer.text], route
        else:
            assert answer.status_code >= 400, (route, answer.text)
    with space.service.database.reading() as session:
        for plural, table in TABLES.items():
            assert session.get(table, owned[plural]) is not None, plural


def test_nobody_comes_in_without_a_key(space: Workspace, owned: dict[str, str]) -> None:
    assert {route: answer.status_code for route, answer in walk(space, None, API, owned)} == dict.fromkeys(
        API, 401
    )


def test_a_key_that_only_reads_changes_nothing(space: Workspace, owned: dict[str, str]) -> None:
    changing = [route for route in API if route.method not in SAFE]
    for route, answer in walk(space, key_of(space, Scope.READ), changing, owned):
        assert answer.status_code == 403, (route, answer.text)
        assert "--scope write" in answer.json()["detail"]


def test_a_key_for_metrics_reads_nothing_else(space: Workspace, owned: dict[str, str]) -> None:
    key = key_of(space, Scope.METRICS)
    assert {route: answer.status_code for route, answer in walk(space, key, API, owned)} == dict.fromkeys(
        API, 403
    )


def test_every_answer_has_the_headers_that_browsers_heed(space: Workspace, owned: dict[str, str]) -> None:
    for route, answer in walk(space, space.key, ALL, owned):
        assert answer.headers["x-content-type-options"] == "nosniff", route
        assert "default-src 'none'" in answer.headers["content-security-policy"], route
        assert answer.headers["referrer-policy"], route
