"""What holds for every endpoint: problems, request ids, pages, idempotency, ETags"""

import threading
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from running import Record, Workspace, small_zip

from app.db.tables import Idempotency


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v1/nothing", 404),
        ("GET", "/v1/datasets/", 404),
        ("PUT", "/v1/datasets", 405),
        ("GET", "/v1/datasets/ds_x", 404),
        ("GET", "/v1/datasets/%00", 404),
        ("GET", "/v1/datasets/%F0%9F%90%88", 404),
        ("DELETE", "/v1/jobs/x", 405),
        ("GET", "/v1/jobs?limit=0", 422),
        ("GET", "/v1/jobs?limit=101", 422),
        ("GET", "/v1/jobs?limit=x", 422),
        ("GET", "/v1/jobs?limt=1", 422),
        ("GET", "/v1/jobs?cursor=nonsense", 422),
        ("GET", "/v1/jobs?cursor=" + "A" * 300, 422),
        ("GET", "/v1/jobs?created_after=yesterday", 422),
        ("GET", "/v1/jobs?created_after=2026-05-01T12:00:00", 422),
        ("GET", "/v1/jobs/x?page=2", 422),
        ("GET", "/v1/metrics?x=1", 422),
        ("GET", "/v1/workers?x=1", 422),
        ("POST", "/v1/jobs/x:explode", 405),
    ],
)
def test_every_error_is_a_problem_document(space: Workspace, method: str, path: str, status: int) -> None:
    answer = space.http.request(method, path)
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert problem["status"] == status
    assert {"type", "title", "detail", "code", "errors"} <= set(problem)
    assert problem["request_id"] == answer.headers["x-request-id"]
    assert problem["instance"] == httpx.URL(path).path
    if status == 405:
        assert answer.headers["allow"]


def test_json_that_is_none(space: Workspace) -> None:
    headers = {"Content-Type": "application/json"}
    for path in ("/v1/rankings", "/v1/datasets", "/v1/checkpoints", "/v1/verifications"):
        for text in (b"{", b"\xff\xfe", b"", b"[" * 5000):
            answer = space.http.post(path, content=text, headers=headers)
            assert answer.status_code in (400, 422)
            assert answer.headers["content-type"] == "application/problem+json"


def test_our_own_faults_show_nothing_of_our_insides(
    space: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("the password is hunter2")

    monkeypatch.setattr("app.api.reading.versioned", broken)
    answer = space.http.get("/v1/jobs/x", headers={"X-Request-ID": "my-request-1"})
    assert answer.status_code == 500
    assert answer.headers["content-type"] == "application/problem+json"
    assert "hunter2" not in answer.text
    assert answer.json()["request_id"] == answer.headers["x-request-id"] == "my-request-1"


@pytest.mark.parametrize("given", ["short", "has space in it", "x" * 65, "new\tline-in-it"])
def test_strange_request_ids_are_replaced(space: Workspace, given: str) -> None:
    answer = space.http.get("/healthz", headers={"X-Request-ID": given})
    assert answer.headers["x-request-id"] not in ("", given)


def test_pages_show_everything_once_whatever_comes_in_between(space: Workspace) -> None:
    ids = [space.checkpoint(name=str(n), ready=False) for n in range(5)]
    found: list[str] = []
    page = space.http.get("/v1/checkpoints?limit=2&state=processing")
    while True:
        found += [one["id"] for one in page.json()["items"]]
        if page.json()["next_cursor"] is None:
            assert "link" not in page.headers
            break
        target, _, rel = page.headers["link"].partition(">")
        assert rel == '; rel="next"'
        assert parse_qs(urlsplit(target).query)["cursor"] == [page.json()["next_cursor"]]
        space.checkpoint(name="newcomer", ready=False)
        page = space.http.get(target.lstrip("<"))
    assert found == ids[::-1]


def test_an_exact_page_is_the_last(space: Workspace) -> None:
    for n in range(2):
        space.checkpoint(name=str(n), ready=False)
    assert space.http.get("/v1/checkpoints?limit=2").json()["next_cursor"] is None


def posts(space: Workspace) -> list[tuple[str, Record]]:
    """One good request for each POST: path and arguments."""
    ranking, dataset = space.ranking(1), space.dataset()
    job = space.http.get(f"/v1/datasets/{space.dataset(ready=False)}").json()["job_id"]
    failed = space.http.post("/v1/datasets", content=small_zip({"b": "x"})).json()["job_id"]
    space.fail(failed)
    body = {"dataset_id": dataset, "checkpoint_ids": ranking["request"]["checkpoint_ids"]}
    one = {"dataset_id": dataset, "checkpoint_id": body["checkpoint_ids"][0]}
    training = space.http.post("/v1/verifications", json=one).json()["id"]
    tus = {"Tus-Resumable": "1.0.0", "Upload-Length": "5"}
    return [
        ("/v1/datasets?name=x", {"content": small_zip()}),
        ("/v1/checkpoints", {"content": b"weights"}),
        ("/v1/checkpoints", {"json": {"source": "timm://x"}}),
        ("/v1/uploads", {"headers": tus}),
        ("/v1/rankings", {"json": body}),
        ("/v1/verifications", {"json": one}),
        (f"/v1/verifications/{training}:cancel", {}),
        (f"/v1/verifications/{training}:retry", {}),
        (f"/v1/jobs/{job}:cancel", {}),
        (f"/v1/jobs/{failed}:retry", {}),
        (f"/v1/rankings/{ranking['id']}:cancel", {}),
        (f"/v1/rankings/{ranking['id']}:retry", {}),
    ]


def test_a_key_makes_every_post_harmless_to_repeat(space: Workspace) -> None:
    for number, (path, arguments) in enumerate(posts(space)):
        headers = arguments.pop("headers", {}) | {"Idempotency-Key": f"key-{number}"}
        first = space.http.post(path, headers=headers, **arguments)
        assert first.is_success, (path, first.text)
        assert "idempotent-replayed" not in first.headers
        again = space.http.post(path, headers=headers, **arguments)
        assert (again.status_code, again.json()) == (first.status_code, first.json()), path
        assert again.headers["location"] == first.headers["location"]
        assert again.headers["idempotent-replayed"] == "true"
    assert len(space.http.get("/v1/datasets?name=x").json()["items"]) == 1
    assert len(space.http.get("/v1/rankings").json()["items"]) == 2


def test_a_key_for_something_else_is_refused(space: Workspace) -> None:
    headers = {"Idempotency-Key": "mine"}
    assert space.http.post("/v1/datasets?name=x", content=small_zip(), headers=headers).status_code == 202
    for path, body in (
        ("/v1/datasets?name=y", small_zip()),
        ("/v1/datasets?name=x", small_zip({"c": "other"})),
        ("/v1/checkpoints", b"weights"),
    ):
        answer = space.http.post(path, content=body, headers=headers)
        assert (answer.status_code, "Idempotency-Key" in answer.json()["detail"]) == (422, True)
    assert len(space.http.get("/v1/datasets").json()["items"]) == 1


def test_a_refused_request_does_not_use_the_key_up(space: Workspace) -> None:
    headers = {"Idempotency-Key": "mine"}
    assert space.http.post("/v1/checkpoints", json={"source": "ftp://x"}, headers=headers).status_code == 422
    assert space.http.post("/v1/checkpoints", json={"source": "timm://x"}, headers=headers).status_code == 202


def test_keys_of_others_are_others(space: Workspace, other: Workspace) -> None:
    headers = {"Idempotency-Key": "mine"}
    first = space.http.post("/v1/checkpoints", json={"source": "timm://x"}, headers=headers).json()
    second = other.http.post("/v1/checkpoints", json={"source": "timm://x"}, headers=headers).json()
    assert first["id"] != second["id"]


def test_many_at_once_with_one_key_make_one(space: Workspace) -> None:
    answers: list[httpx.Response] = []

    def send() -> None:
        body, headers = {"source": "timm://x"}, {"Idempotency-Key": "mine"}
        answers.append(space.http.post("/v1/checkpoints", json=body, headers=headers))

    threads = [threading.Thread(target=send) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {answer.status_code for answer in answers} == {202}
    assert len({answer.json()["id"] for answer in answers}) == 1
    assert len(space.http.get("/v1/checkpoints").json()["items"]) == 1


def test_keys_are_forgotten_after_a_day(space: Workspace) -> None:
    headers = {"Idempotency-Key": "mine"}
    first = space.http.post("/v1/checkpoints", json={"source": "timm://x"}, headers=headers).json()
    with space.service.database.unit_of_work() as session:
        record = session.query(Idempotency).filter_by(workspace_id=space.id).one()
        record.created_at = record.created_at.replace(year=2020)
    second = space.http.post("/v1/checkpoints", json={"source": "timm://x"}, headers=headers).json()
    assert first["id"] != second["id"]


@pytest.mark.parametrize("key", ["", "x" * 256, "with space", "ümlaut"])
def test_strange_keys_are_refused(space: Workspace, key: str) -> None:
    answer = space.http.post(
        "/v1/checkpoints", json={"source": "timm://x"}, headers={"Idempotency-Key": key.encode()}
    )
    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, "/Idempotency-Key")


def test_tags_change_with_the_thing(space: Workspace) -> None:
    id = space.dataset(ready=False)
    first = space.http.get(f"/v1/datasets/{id}")
    tag = first.headers["etag"]
    for known in (tag, "*", f'"other", {tag}', tag.removeprefix("W/")):
        again = space.http.get(f"/v1/datasets/{id}", headers={"If-None-Match": known})
        assert (again.status_code, again.content) == (304, b"")
    assert space.http.get(f"/v1/datasets/{id}", headers={"If-None-Match": '"other"'}).status_code == 200
    space.fail(first.json()["job_id"])
    changed = space.http.get(f"/v1/datasets/{id}", headers={"If-None-Match": tag})
    assert (changed.status_code, changed.json()["state"]) == (200, "invalid")


@pytest.mark.parametrize("kind", ["datasets", "checkpoints"])
def test_nothing_is_deleted_that_has_changed(space: Workspace, kind: str) -> None:
    id = getattr(space, kind.rstrip("s"))()
    assert space.http.delete(f"/v1/{kind}/{id}", headers={"If-Match": 'W/"0"'}).status_code == 412
    tag = space.http.get(f"/v1/{kind}/{id}").headers["etag"]
    assert space.http.delete(f"/v1/{kind}/{id}", headers={"If-Match": tag}).status_code == 204


def test_things_of_others_are_not_there(space: Workspace, other: Workspace) -> None:
    dataset, checkpoint = space.dataset(), space.checkpoint()
    for path in (
        f"/v1/datasets/{dataset}",
        f"/v1/datasets/{dataset}/report",
        f"/v1/datasets/{dataset}/annotations",
        f"/v1/datasets/{dataset}/archive",
        f"/v1/datasets/{dataset}/previews/0",
        f"/v1/checkpoints/{checkpoint}",
        f"/v1/checkpoints/{checkpoint}/weights",
    ):
        assert space.http.get(path).status_code == 200
        assert other.http.get(path).status_code == 404
    for path in (f"/v1/datasets/{dataset}", f"/v1/checkpoints/{checkpoint}"):
        assert other.http.delete(path).status_code == 404
        assert space.http.get(path).status_code == 200
    assert (
        other.http.get("/v1/datasets").json()["items"]
        == other.http.get("/v1/checkpoints").json()["items"]
        == []
    )
