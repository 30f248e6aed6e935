"""The `type` of every problem document leads to what to do about it."""

import ast
from pathlib import Path

import httpx
import pytest
from running import Running, Workspace

from app import errors
from app.explanations import KINDS, TEXTS

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.parametrize("service", ["sqlite"], indirect=True)


def failures_declared_elsewhere() -> list[str]:
    """Classes of expected failures outside app/errors.py, where nobody would look for them."""
    ours = {kind.__name__ for kind in KINDS.values()}
    found = []
    for path in [file for room in ("app", "worker", "models_store") for file in (ROOT / room).rglob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef) and path.name != "errors.py":
                bases = {ast.unparse(base).rpartition(".")[2] for base in node.bases}
                found += [f"{path}: {node.name}"] if bases & ours else []
    return found


def test_every_type_is_explained_and_nothing_else_is(service: Running) -> None:
    assert set(TEXTS) == set(KINDS)
    assert not failures_declared_elsewhere()
    assert len({kind.title for kind in KINDS.values()}) == len(KINDS)


def test_each_page_is_for_people_and_for_programs_and_needs_no_key(service: Running) -> None:
    for code in TEXTS:
        address = errors.DetrankError.__new__(KINDS[code]).type
        shown = httpx.get(f"{service.url}{address}", headers={"Accept": "text/html"})
        told = httpx.get(f"{service.url}{address}")
        assert (shown.status_code, told.status_code) == (200, 200), code
        assert "What to do" in shown.text
        assert shown.headers["Content-Type"].startswith("text/html")
        assert told.json()["code"] == code
        assert told.json() == httpx.get(f"{service.url}/v1/problems/{code}").json()
    every = httpx.get(f"{service.url}/v1/problems").json()["items"]
    assert [one["code"] for one in every] == list(TEXTS)


@pytest.mark.parametrize(
    ("method", "path", "code"),
    [
        ("GET", "/v1/nothing", "not_found"),
        ("GET", "/v1/datasets/ds_0", "not_found"),
        ("PUT", "/v1/datasets", "method_not_allowed"),
        ("POST", "/v1/rankings", "invalid_request"),
        ("GET", "/v1/jobs?colour=red", "invalid_request"),
        ("GET", "/v1/problems/nothing", "not_found"),
    ],
)
def test_an_answer_leads_there(space: Workspace, method: str, path: str, code: str) -> None:
    answer = space.http.request(method, path, json={} if method == "POST" else None)
    problem = answer.json()
    assert (problem["type"], problem["code"], answer.status_code) == (
        f"/problems/{code}",
        code,
        KINDS[code].status,
    )
    assert httpx.URL(space.service.url).join(problem["type"]) == f"{space.service.url}/problems/{code}"


def test_without_a_key_it_says_what_to_do(service: Running) -> None:
    problem = httpx.get(f"{service.url}/v1/jobs").json()
    assert "detrank keys create" in httpx.get(f"{service.url}{problem['type']}").json()["what_to_do"]
