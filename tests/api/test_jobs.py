"""/v1/jobs and /v1/workers"""

from datetime import UTC, datetime, timedelta

from running import Workspace

from app.db.tables import WorkerRecord
from app.queue import leases


def job_of(space: Workspace) -> str:
    return space.http.get(f"/v1/datasets/{space.dataset(ready=False)}").json()["job_id"]


def test_a_job_shows_how_far_it_is(space: Workspace) -> None:
    id = job_of(space)
    claim = space.claim(id)
    with space.service.database.unit_of_work() as session:
        job = leases.hold(session, claim)
        leases.jobs.events.advance(session, job, done=3, total=4, unit="images", message="reading", eta_s=1.5)
    shown = space.http.get(f"/v1/jobs/{id}").json()
    assert (shown["state"], shown["attempt"], shown["worker"]) == ("running", 1, "tester")
    assert shown["progress"] == {
        "done": 3,
        "total": 4,
        "unit": "images",
        "fraction": 0.75,
        "eta_s": 1.5,
        "message": "reading",
    }
    assert shown["started_at"] > shown["created_at"]
    assert "token" not in shown


def test_cancel_at_once_when_asked_and_again(space: Workspace) -> None:
    queued, running = job_of(space), job_of(space)
    space.claim(running)
    for id, state, status in ((queued, "cancelled", 200), (running, "cancelling", 202)):
        for _ in range(2):
            answer = space.http.post(f"/v1/jobs/{id}:cancel")
            assert (answer.status_code, answer.json()["state"]) == (status, state)


def test_cancelling_what_is_over_changes_nothing(space: Workspace) -> None:
    id = job_of(space)
    space.finish(id)
    answer = space.http.post(f"/v1/jobs/{id}:cancel")
    assert (answer.status_code, answer.json()["state"]) == (200, "succeeded")


def test_retry_of_what_failed_only(space: Workspace) -> None:
    id = job_of(space)
    assert space.http.post(f"/v1/jobs/{id}:retry").status_code == 409
    space.fail(id, "no network")
    assert space.http.get(f"/v1/jobs/{id}").json()["error"]["detail"] == "no network"
    answer = space.http.post(f"/v1/jobs/{id}:retry")
    assert (answer.status_code, answer.json()["state"], answer.json()["attempt"]) == (202, "queued", 0)
    dataset = space.http.get(f"/v1/datasets/{answer.json()['resource_id']}").json()
    assert (dataset["state"], dataset["error"]) == ("processing", None)


def test_filters(space: Workspace) -> None:
    ranking = space.ranking(2)

    def found(**query: str) -> int:
        return len(space.http.get("/v1/jobs", params=query).raise_for_status().json()["items"])

    assert found() == 6
    assert found(kind="score") == 2
    # with the ranking's own job, which waits for these and shows as they do
    assert found(state="queued") == found(resource_id=ranking["id"]) == 3
    assert found(kind="rank", state="queued") == 1
    space.claim(ranking["candidates"][0]["job_id"])
    assert (found(state="running"), found(state="queued")) == (2, 1)
    assert found(kind="rank", state="running") == 1
    assert found(kind="inspect") == 2
    assert found(kind="score", state="succeeded") == 0
    for wrong in ({"kind": "bake"}, {"state": "done"}):
        assert space.http.get("/v1/jobs", params=wrong).status_code == 422


def test_jobs_of_others_are_not_there(space: Workspace, other: Workspace) -> None:
    id = job_of(space)
    for answer in (
        other.http.get(f"/v1/jobs/{id}"),
        other.http.get(f"/v1/jobs/{id}/events"),
        other.http.post(f"/v1/jobs/{id}:cancel"),
        other.http.post(f"/v1/jobs/{id}:retry"),
    ):
        assert answer.status_code == 404
    assert other.http.get("/v1/jobs").json()["items"] == []
    assert space.http.get(f"/v1/jobs/{id}").json()["state"] == "queued"


def test_workers_that_fell_silent_are_not_alive(space: Workspace) -> None:
    now = datetime.now(UTC)
    with space.service.database.unit_of_work() as session:
        for name, seen in (("here", now), ("gone", now - timedelta(minutes=5))):
            session.merge(
                WorkerRecord(
                    name=name, queues=["cpu"], details={"device": "cpu"}, started_at=now, seen_at=seen
                )
            )
    workers = {one["name"]: one["alive"] for one in space.http.get("/v1/workers").json()["items"]}
    assert (workers["here"], workers["gone"]) == (True, False)
