"""What reading costs: bytes are kept by version, and show every change at once."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from running import Record, Running, Workspace
from sqlalchemy import event

from app.api.kept import KeptAnswers, Shown
from app.settings import Settings


@contextmanager
def statements(service: Running) -> Iterator[list[str]]:
    """What the block's requests ask the database, without the looks of the threads that ring and send."""
    found: list[str] = []

    def note(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        if threading.current_thread().name not in ("relay", "sender") and not statement.startswith("BEGIN"):
            found.append(statement)

    event.listen(service.database.engine, "before_cursor_execute", note)
    try:
        yield found
    finally:
        event.remove(service.database.engine, "before_cursor_execute", note)


# of whoever sends a key, one more
KEY = 1


@pytest.mark.parametrize("kind", ["rankings", "jobs", "datasets", "checkpoints", "verifications"])
def test_what_has_not_changed_costs_one_small_query(space: Workspace, kind: str) -> None:
    ranking = space.ranking(2)
    asked = {"dataset_id": ranking["dataset_id"], "checkpoint_id": ranking["checkpoint_ids"][0]}
    space.http.post("/v1/verifications", json=asked).raise_for_status()
    id = space.http.get(f"/v1/{kind}").json()["items"][0]["id"]
    whole = space.http.get(f"/v1/{kind}/{id}")
    listed = space.http.get(f"/v1/{kind}")
    with statements(space.service) as queries:
        polled = space.http.get(f"/v1/{kind}/{id}", headers={"If-None-Match": whole.headers["ETag"]})
        assert (polled.status_code, polled.content, polled.headers["ETag"]) == (
            304,
            b"",
            whole.headers["ETag"],
        )
        assert len(queries) == KEY + 1
        assert space.http.get(f"/v1/{kind}/{id}").content == whole.content
        assert len(queries) == 2 * (KEY + 1)
        assert space.http.get(f"/v1/{kind}").content == listed.content
        assert len(queries) == 3 * (KEY + 1)
    assert not any("result" in query or "manifest" in query for query in queries)


def test_what_has_changed_is_read_again_with_few_queries_however_many_candidates(space: Workspace) -> None:
    counts = []
    for candidates in (1, 6):
        ranking = space.ranking(candidates)
        space.http.get("/v1/rankings")  # the key is not seen for the first time
        with statements(space.service) as queries:
            space.http.get(f"/v1/rankings/{ranking['id']}")
            counts.append(len(queries))
    assert counts == [KEY + 5, KEY + 5]


def test_every_change_is_seen_by_the_next_request(space: Workspace) -> None:
    ranking = space.ranking(2)
    path = f"/v1/rankings/{ranking['id']}"
    first, second = ranking["checkpoint_ids"]

    def look() -> Record:
        return space.http.get(path).json()

    assert look() == look()
    space.score(ranking, first, 0.5)
    assert [one["state"] for one in look()["candidates"]] == ["succeeded", "queued"]
    assert space.http.get("/v1/rankings").json()["items"][0]["state"] == "running"
    space.score(ranking, second, 0.75)
    space.rank(ranking, [(second, 0.75), (first, 0.5)])
    assert [one["checkpoint_id"] for one in look()["candidates"]] == [second, first]
    assert space.http.get("/v1/rankings").json()["items"][0]["state"] == "succeeded"
    assert space.http.delete(path).status_code == 204
    assert space.http.get(path).status_code == 404
    assert space.http.get("/v1/rankings").json()["items"] == []


def test_what_is_kept_of_one_view_is_not_shown_in_another(space: Workspace) -> None:
    ranking = space.ranking(2)
    path = f"/v1/rankings/{ranking['id']}"
    for id in ranking["checkpoint_ids"]:
        space.score(ranking, id, 0.5)
    whole, small = [space.http.get(path, params=query).json() for query in ({}, {"max_parameters": 1})]
    assert (len(whole["left_out"]), len(small["left_out"])) == (0, 2)
    assert space.http.get(path).json() == whole
    assert space.http.get(path, params={"wait": 0}).json() == whole
    assert space.http.get(path, params={"max_parameters": 1}).json() == small


def test_what_is_kept_is_shown_to_nobody_else(space: Workspace, other: Workspace) -> None:
    ranking = space.ranking(1)
    path = f"/v1/rankings/{ranking['id']}"
    tag = space.http.get(path).headers["ETag"]
    space.http.get("/v1/rankings")
    assert other.http.get(path).status_code == 404
    assert other.http.get(path, headers={"If-None-Match": tag}).status_code == 404
    assert other.http.get("/v1/rankings").json()["items"] == []


@pytest.mark.parametrize("kind", ["rankings", "jobs"])
def test_a_list_without_filters_is_the_same_as_one_whose_filter_leaves_all(
    space: Workspace, kind: str
) -> None:
    for _ in range(3):
        space.ranking(1)
    # a filter is read by the framework; what every list has is read by us
    all_of_them = {"created_after": "2000-01-01T00:00:00Z"}
    seen = []
    for sort in ("-created_at", "created_at"):
        asked: Record = {"limit": 2, "sort": sort}
        while True:
            plain, filtered = (
                space.http.get(f"/v1/{kind}", params=asked | extra) for extra in ({}, all_of_them)
            )
            assert plain.status_code == filtered.status_code == 200
            assert plain.content == filtered.content
            seen += [one["id"] for one in plain.json()["items"]]
            assert ("link" in plain.headers) == ("link" in filtered.headers)
            if (cursor := plain.json()["next_cursor"]) is None:
                break
            assert plain.headers["link"] == f'</v1/{kind}?limit=2&sort={sort}&cursor={cursor}>; rel="next"'
            assert space.http.get(plain.links["next"]["url"]).status_code == 200
            asked["cursor"] = cursor
    half = len(seen) // 2
    assert half > 2
    assert seen[:half] == seen[half:][::-1]


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ("limit=0", 422),
        ("limit=101", 422),
        ("limit=999999999", 422),
        ("limit=x", 422),
        ("limit=1&limit=2", 200),
        ("cursor=Zm9v", 422),
        ("sort=name", 422),
        ("limt=1", 422),
        ("", 200),
        ("limit=1&", 200),
    ],
)
def test_what_is_asked_of_a_list_wrongly_is_refused_as_ever(
    space: Workspace, query: str, status: int
) -> None:
    space.ranking(1)
    answers = [space.http.get(f"/v1/rankings?{query}{extra}") for extra in ("", "&state=queued")]
    assert {answer.status_code for answer in answers} == {status}
    if status != 200:
        own, whole = (answer.json() for answer in answers)
        assert own["errors"] == whole["errors"]


@pytest.mark.parametrize("id", ["rk_%00", "rk_%C3%A9", "x" * 300])
def test_what_cannot_be_an_id_is_not_found(space: Workspace, id: str) -> None:
    assert space.http.get(f"/v1/rankings/{id}").status_code == 404


def test_a_tag_that_is_too_long_is_refused(space: Workspace) -> None:
    ranking = space.ranking(1)
    answer = space.http.get(f"/v1/rankings/{ranking['id']}", headers={"If-None-Match": "x" * 2001})
    assert (answer.status_code, answer.json()["errors"][0]["in"]) == (422, "header")


def test_only_the_last_version_is_kept_and_the_oldest_go_first() -> None:
    kept = KeptAnswers(100)
    one, two, three = (Shown("ranking", id, "") for id in "abc")
    assert kept.keep(one, 2, b"x" * 40) == b"x" * 40
    kept.keep(two, 1, b"y" * 40)
    assert kept.get(one, 2) == b"x" * 40
    assert kept.get(one, 1) is kept.get(one, 3) is None
    kept.keep(one, 1, b"late")
    assert (kept.get(one, 2), kept.get(one, 1)) == (b"x" * 40, None)
    kept.keep(three, 1, b"z" * 40)
    assert (kept.get(two, 1), kept.get(one, 2), kept.get(three, 1)) == (None, b"x" * 40, b"z" * 40)
    kept.keep(one, 3, b"w" * 101)
    assert (kept.get(one, 2), kept.get(one, 3), kept.get(three, 1)) == (None, None, b"z" * 40)


def test_nothing_is_kept_where_that_is_not_wanted() -> None:
    kept = KeptAnswers(0)
    assert kept.keep(Shown("job", "a", ""), 1, b"x") == b"x"
    assert kept.get(Shown("job", "a", ""), 1) is None
    assert Settings.model_fields["kept_answers_bytes"].description
