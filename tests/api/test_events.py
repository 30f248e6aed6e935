"""Server-sent events"""

import json
import threading

import httpx
import pytest
from running import Record, Workspace


def read(space: Workspace, path: str, *, after: int | None = None, most: int = 1000) -> list[Record]:
    """Events until `end`, or `most` of them."""
    headers = {} if after is None else {"Last-Event-ID": str(after)}
    found: list[Record] = []
    with space.http.stream("GET", path, headers=headers) as answer:
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith("text/event-stream")
        event: Record = {}
        for line in answer.iter_lines():
            name, _, value = line.partition(": ")
            if name in ("event", "id"):
                event[name] = value
            elif name == "data":
                event["data"] = json.loads(value)
            elif not line and event:
                found.append(event)
                if event["event"] == "end" or len(found) == most:
                    return found
                event = {}
    return found


def test_all_that_happened_in_order_then_the_end(space: Workspace) -> None:
    made = space.ranking(1)
    one = made["candidates"][0]["checkpoint_id"]
    space.score(made, one, 1.0)
    space.rank(made, [(one, 1.0)])
    found = read(space, f"/v1/rankings/{made['id']}/events")
    assert [int(event["id"]) for event in found[:-1]] == list(range(1, len(found)))
    assert {event["event"] for event in found} == {"state", "progress", "score", "end"}
    assert found[-1] == {"event": "end", "data": {"state": "succeeded"}}
    score = next(event for event in found if event["event"] == "score")
    assert (score["data"]["checkpoint_id"], score["data"]["value"]) == (one, 1.0)
    assert score["data"]["at"]


def test_a_reader_goes_on_where_it_stopped(space: Workspace) -> None:
    made = space.ranking(1)
    job = made["candidates"][0]["job_id"]
    first = read(space, f"/v1/jobs/{job}/events", most=1)
    assert first[0]["data"]["state"] == "queued"
    space.score(made, made["candidates"][0]["checkpoint_id"], 1.0)
    rest = read(space, f"/v1/jobs/{job}/events", after=int(first[0]["id"]))
    assert [event["data"]["state"] for event in rest] == ["running", "succeeded", "succeeded"]
    assert int(rest[0]["id"]) == int(first[0]["id"]) + 1
    seen = space.http.get(f"/v1/jobs/{job}/events", headers={"Last-Event-ID": rest[1]["id"]})
    assert seen.status_code == 204, "who has seen all of it need not come back"


def test_events_come_as_they_happen_to_everyone_who_listens(space: Workspace) -> None:
    made = space.ranking(1)
    job = made["candidates"][0]["job_id"]
    heard: list[list[Record]] = []
    readers = [
        threading.Thread(target=lambda: heard.append(read(space, f"/v1/jobs/{job}/events"))) for _ in range(5)
    ]
    for reader in readers:
        reader.start()
    space.score(made, made["candidates"][0]["checkpoint_id"], 1.0)
    for reader in readers:
        reader.join(20)
    assert len(heard) == 5
    assert all(each == heard[0] for each in heard)
    assert heard[0][-1]["data"] == {"state": "succeeded"}


def test_only_events_of_one_kind(space: Workspace) -> None:
    made = space.ranking(1)
    space.http.post(f"/v1/rankings/{made['id']}:cancel")
    found = read(space, f"/v1/rankings/{made['id']}/events?kind=progress")
    assert {event["event"] for event in found} == {"progress", "end"}


def test_a_deleted_stream_ends(space: Workspace) -> None:
    made = space.ranking(1)
    space.http.post(f"/v1/rankings/{made['id']}:cancel")
    space.http.delete(f"/v1/rankings/{made['id']}")
    assert space.http.get(f"/v1/rankings/{made['id']}/events").status_code == 404


def test_a_quiet_stream_is_pinged(space: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fastapi.routing._PING_INTERVAL", 0.05)
    job = space.ranking(1)["candidates"][0]["job_id"]
    with space.http.stream("GET", f"/v1/jobs/{job}/events") as answer:
        assert any(line == ": ping" for line in answer.iter_lines())


@pytest.mark.parametrize("last", ["x", "-1", "99999999999999999999", "1.5"])
def test_wrong_last_event_ids(space: Workspace, last: str) -> None:
    job = space.ranking(1)["candidates"][0]["job_id"]
    answer = space.http.get(f"/v1/jobs/{job}/events", headers={"Last-Event-ID": last})
    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, "/Last-Event-ID")


def test_what_is_not_there_has_no_events(space: Workspace) -> None:
    for path in (f"/v1/jobs/job_{'0' * 32}/events", "/v1/rankings/x/events"):
        answer: httpx.Response = space.http.get(path)
        assert (answer.status_code, answer.headers["content-type"]) == (404, "application/problem+json")
    assert space.http.get(f"/v1/jobs/job_{'0' * 32}/events?kind=noise").status_code == 422
