"""Rankings whose candidates are read in parts, and the workers that read them."""

from datetime import UTC, datetime
from typing import Any

import pytest
from running import Workspace
from sqlalchemy import select

from app.db.tables import Dataset, Job, WorkerRecord


def parts(space: Workspace, ranking: dict[str, Any], checkpoint_id: str) -> list[dict[str, Any]]:
    found = space.http.get(
        "/v1/jobs", params={"resource_id": ranking["id"], "kind": "shard", "limit": 100}
    ).json()["items"]
    return sorted(
        (job for job in found if job["checkpoint_id"] == checkpoint_id), key=lambda job: job["shard"]
    )


def seen(space: Workspace, ranking: dict[str, Any]) -> dict[str, Any]:
    return space.http.get(f"/v1/rankings/{ranking['id']}").json()


def test_every_candidate_gets_as_many_shards_as_are_asked_for(space: Workspace) -> None:
    made = space.ranking(2, shards=3, keep_features=False)
    assert (made["request"]["shards"], made["request"]["keep_features"]) == (3, False)
    for candidate in made["candidates"]:
        found = parts(space, made, candidate["checkpoint_id"])
        assert [(job["shard"], job["shards"], job["queue"], job["state"]) for job in found] == [
            (number, 3, "gpu", "queued") for number in range(3)
        ]
        job = space.http.get(f"/v1/jobs/{candidate['job_id']}").json()
        assert (job["kind"], job["state"], job["shard"], job["shards"]) == ("score", "queued", None, 3)
    whole = space.ranking(1)
    assert (whole["request"]["shards"], whole["request"]["keep_features"]) == (1, None)
    job = space.http.get(f"/v1/jobs/{whole['candidates'][0]['job_id']}").json()
    assert (job["kind"], job["shard"], job["shards"]) == ("score", None, None)


@pytest.mark.parametrize(
    ("images", "max_images", "shards"),
    [(2000, None, 1), (2001, None, 2), (90_000, None, 45), (90_000, 2500, 2), (10**7, None, 256)],
)
def test_large_samples_are_read_in_parts_by_themselves(
    space: Workspace, images: int, max_images: int | None, shards: int
) -> None:
    dataset = space.dataset()
    with space.service.database.unit_of_work() as session:
        session.get(Dataset, dataset).summary = {"images": images, "splits": {"train": {"images": images}}}
    made = space.ranking(1, dataset_id=dataset, max_images=max_images)
    assert made["request"]["shards"] == shards
    assert "shard_images" not in made["request"]


@pytest.mark.parametrize("shards", [0, 257, "many"])
def test_what_is_no_number_of_parts_is_refused(space: Workspace, shards: Any) -> None:
    body = {"dataset_id": space.dataset(), "checkpoint_ids": [space.checkpoint()], "shards": shards}
    answer = space.http.post("/v1/rankings", json=body)
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["pointer"] == "/shards"


def test_a_shard_that_fails_is_tried_again_with_those_that_stopped(space: Workspace) -> None:
    made = space.ranking(1, shards=3)
    checkpoint_id = made["candidates"][0]["checkpoint_id"]
    first, second, _ = parts(space, made, checkpoint_id)
    space.finish(first["id"])
    space.fail(second["id"], "the picture is broken")
    ranking = seen(space, made)
    assert (ranking["state"], ranking["candidates"][0]["state"]) == ("failed", "failed")
    assert ranking["candidates"][0]["error"]["detail"] == "the picture is broken"
    assert ranking["left_out"][0]["reason"] == "the picture is broken"
    answer = space.http.post(f"/v1/rankings/{made['id']}:retry")
    assert answer.status_code == 202, answer.text
    found = parts(space, made, checkpoint_id)
    assert [job["state"] for job in found] == ["succeeded", "queued", "queued"]
    for job in found[1:]:
        space.finish(job["id"])
    space.score(seen(space, made), checkpoint_id, 0.5)
    assert seen(space, made)["candidates"][0]["state"] == "succeeded"


def test_cancelling_a_ranking_stops_all_shards_and_deleting_it_forgets_them(space: Workspace) -> None:
    made = space.ranking(2, shards=2)
    assert space.http.post(f"/v1/rankings/{made['id']}:cancel").is_success
    assert seen(space, made)["state"] == "cancelled"
    for candidate in made["candidates"]:
        assert {job["state"] for job in parts(space, made, candidate["checkpoint_id"])} == {"cancelled"}
    assert space.http.delete(f"/v1/rankings/{made['id']}").status_code == 204
    with space.service.database.reading() as session:
        assert session.scalars(select(Job).where(Job.resource_id == made["id"])).all() == []
    checkpoint_id = made["candidates"][0]["checkpoint_id"]
    assert space.http.delete(f"/v1/checkpoints/{checkpoint_id}").status_code == 204


def test_workers_say_what_they_compute_on(space: Workspace) -> None:
    now = datetime.now(UTC)
    own = space.http.get(f"/v1/checkpoints/{space.checkpoint()}").json()["weights_sha256"]
    details = {
        "host": "gpu-3",
        "pid": 7,
        "concurrency": 1,
        "device": "cuda",
        "device_name": "a card",
        "memory_total_bytes": 10,
        "memory_free_bytes": 4,
        "precisions": ["float32", "bfloat16"],
        "torch": "2.15.0",
        "models": [
            {"pid": 9, "architecture": "a/b", "weights_sha256": own, "device": "cuda:0", "size_bytes": 3}
        ],
    }
    with space.service.database.unit_of_work() as session:
        for name, told in (("gpu-3:7", details), ("old:1", {})):
            session.merge(WorkerRecord(name=name, queues=["gpu"], details=told, started_at=now, seen_at=now))
    found = {one["name"]: one for one in space.http.get("/v1/workers").json()["items"]}
    assert {name: found["gpu-3:7"]["details"][name] for name in details} == details
    assert found["gpu-3:7"]["queues"] == ["gpu"]
    assert (found["old:1"]["details"]["device"], found["old:1"]["details"]["models"]) == (None, [])
    schemas = space.http.get("/openapi.json").json()["components"]["schemas"]
    assert {"device", "memory_free_bytes", "models", "precisions"} <= set(
        schemas["WorkerDetails"]["properties"]
    )
