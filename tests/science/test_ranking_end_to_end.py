"""The main job through the real API and a real worker, embedded and on servers: upload, register, rank, read."""

import csv
import io
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from detrank import Client, ProblemError
from tests.deployments import Deployment, comparable, deployment, forget_features, zipped

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

WEIGHTS = {
    "imagenet": "mobilenet_v2_imagenet_b/mobilenet_v2_features.fp16.safetensors",
    "hands": "mobilenet_v2_from_hand_ssd/mobilenet_v2_features.fp16.safetensors",
    "skin": "mobilenet_v2_skin/mobilenet_v2_features.fp16.safetensors",
    "efficientnet": "efficientnet_lite0_imagenet/tf_efficientnet_lite0.fp16.safetensors",
}
REQUEST: dict[str, Any] = {
    "metrics": ["logme", "logme_boxes", "tlogme", "h_score", "h_score_regularized", "transrate"],
    "layers": ["backbone.c4", "backbone.c5"],
    "level": "both",
    "max_images": 16,
    "image_size": 160,
    "seed": 7,
}
PATIENCE_S = 240


@pytest.fixture(params=["embedded", "servers"])
def running(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Deployment]:
    settings = {}
    if request.param == "servers":
        settings = {
            "DATABASE_URL": request.getfixturevalue("postgres_url"),
            "BROKER_URL": request.getfixturevalue("redis_url"),
            "STORAGE_URL": f"file://{tmp_path / 'shared-storage'}",
        }
    with deployment(tmp_path / "home", **settings) as started:
        yield started


def upload(client: Client, archive: Path) -> dict[str, Any]:
    """As curl does it: the archive is the raw body."""
    with archive.open("rb") as body:
        answer = httpx.post(
            f"{client.url}/v1/datasets", params={"name": "pedestrians"}, content=body, timeout=60
        )
    assert answer.status_code == 202, answer.text
    assert answer.json()["state"] == "processing"
    assert answer.headers["Location"]
    dataset = client.datasets.wait(answer.json()["id"], timeout_s=PATIENCE_S)
    assert dataset["state"] == "ready", dataset["error"]
    return dataset


def register(client: Client, shared_data: Path) -> dict[str, dict[str, Any]]:
    half = {"mean": [0.5] * 3, "std": [0.5] * 3}
    added = {
        name: client.checkpoints.add(
            shared_data / "weights" / path, name=name, **({} if name == "imagenet" else half)
        )
        for name, path in WEIGHTS.items()
    }
    ready = {name: client.checkpoints.wait(row["id"], timeout_s=PATIENCE_S) for name, row in added.items()}
    assert {name: row["state"] for name, row in ready.items()} == dict.fromkeys(WEIGHTS, "ready"), ready
    return ready


def test_upload_register_rank_read(running: Deployment, tmp_path: Path, shared_data: Path) -> None:
    client = running.client
    assert client is not None
    dataset = upload(client, zipped(shared_data / "datasets" / "pennfudan", tmp_path / "set.zip"))
    assert (dataset["format"], dataset["supervision"]) == ("coco", "boxes")
    assert dataset["summary"]["images"] == 170
    assert dataset["summary"]["annotations"] == 423
    assert client.datasets.preview(dataset["id"])[:2] == b"\xff\xd8"
    checkpoints = register(client, shared_data)
    ids = [row["id"] for row in checkpoints.values()]

    created = client.rankings.create(dataset["id"], ids, **REQUEST)
    assert created["state"] in ("queued", "running")
    ranking = client.rankings.wait(created["id"], timeout_s=PATIENCE_S)
    # something was learned from all their architectures, so by itself a ranking is in the order of what is predicted
    assert ranking["order_by"] == "predicted_map"
    predicted = [each["predicted_map"]["mean"] for each in ranking["candidates"]]
    assert predicted == sorted(predicted, reverse=True)
    assert [each["rank"] for each in ranking["candidates"]] == [1, 2, 3, 4]
    check_ranking(client.rankings.get(ranking["id"], order_by="score"), set(ids))
    check_files(client, ranking)
    check_events(client, ranking)

    # the same request again, once from the cache and once from nothing: the same numbers
    again = client.rankings.wait(
        client.rankings.create(dataset["id"], ids, **REQUEST)["id"], timeout_s=PATIENCE_S
    )
    assert all(candidate["timings"]["cached"] for candidate in again["candidates"])
    assert comparable(again) == comparable(ranking)
    forget_features(running)
    anew = client.rankings.wait(
        client.rankings.create(dataset["id"], ids, **REQUEST)["id"], timeout_s=PATIENCE_S
    )
    cached = [one["job_id"] for one in anew["candidates"] if one["timings"]["cached"]]
    # on a busy machine an attempt may be cut off after its features were kept: the next one finds them
    assert not [job for id in cached if (job := client.jobs.get(id))["attempt"] == 1]
    assert comparable(anew) == comparable(ranking)

    one_corrupt_candidate_fails_alone(running, dataset, checkpoints, ranking)
    with pytest.raises(ProblemError) as refused:
        client.datasets.delete(dataset["id"])
    assert refused.value.status == 409
    assert ranking["id"] in str(refused.value)


def check_ranking(ranking: dict[str, Any], ids: set[str]) -> None:
    assert (ranking["state"], ranking["error"]) == ("succeeded", None)
    candidates = ranking["candidates"]
    assert {candidate["checkpoint_id"] for candidate in candidates} == ids
    assert [candidate["rank"] for candidate in candidates] == [1, 2, 3, 4]
    values = [candidate["value"] for candidate in candidates]
    assert values == sorted(values, reverse=True)
    assert ranking["left_out"] == []
    expected = set(itertools.product(REQUEST["metrics"], REQUEST["layers"], ("local", "global")))
    for candidate in candidates:
        assert (candidate["state"], candidate["error"]) == ("succeeded", None)
        found = {(score["metric"], score["layer"], score["level"]): score for score in candidate["scores"]}
        assert set(found) == expected
        for (metric, _, _), score in found.items():
            assert (score["value"] is None) == bool(score["undefined"])
            # one category: nothing about categories has a value, and each says so
            assert (score["value"] is not None) == (metric == "logme_boxes"), (metric, score)
            assert (score["pool_relative"], score["details"]["objects"] > 0) == (False, True)
            if score["value"] is None:
                assert (score["null"], score["z"], score["interval"]) == (None, None, None)
            else:
                assert score["z"] == pytest.approx(
                    (score["value"] - score["null"]["mean"]) / score["null"]["std"]
                )
                assert score["interval"][0] < score["value"] < score["interval"][1]
        assert candidate["cost"]["parameters"] > 1_000_000
        assert candidate["cost"]["ms_per_image"] > 0
        assert candidate["cost"]["peak_memory_bytes"] > 1_000_000
        assert {"load", "decode", "forward", "pool", "score", "calibrate"} <= set(candidate["timings"])
        assert set(candidate["baselines"]) >= {"parameters"}
    assert sum(candidate["score_chance_of_highest"] for candidate in candidates) == pytest.approx(1.0)
    assert [id for group in ranking["groups"] for id in group] == [
        each["checkpoint_id"] for each in candidates
    ]
    assert [candidate["group"] for candidate in candidates] == [
        n for n, group in enumerate(ranking["groups"], 1) for _ in group
    ]
    assert ranking["summary"]
    assert "single_class" in {warning["code"] for warning in ranking["warnings"]}


def check_files(client: Client, ranking: dict[str, Any]) -> None:
    rows = list(csv.DictReader(io.StringIO(client.rankings.csv(ranking["id"]))))
    assert [row["checkpoint_id"] for row in rows] == [each["checkpoint_id"] for each in ranking["candidates"]]
    assert [int(row["rank"]) for row in rows] == [1, 2, 3, 4]
    place = ranking["ranked_by"]
    column = f"{place['metric']}@{place['layer']}.{place['level']}"
    assert [[float(row["interval_low"]), float(row["interval_high"])] for row in rows] == [
        each["interval"] for each in ranking["candidates"]
    ]
    assert [float(row["z"]) for row in rows] == [each["z"] for each in ranking["candidates"]]
    assert [float(row[column]) for row in rows] == [each["value"] for each in ranking["candidates"]]
    assert client.rankings.plot(ranking["id"])[:8] == b"\x89PNG\r\n\x1a\n"


def check_events(client: Client, ranking: dict[str, Any]) -> None:
    events = list(client.rankings.events(ranking["id"]))
    numbers = [event["id"] for event in events if event["id"] is not None]
    assert numbers == sorted(set(numbers))
    told = {
        (data["checkpoint_id"], data["metric"], data["layer"], data["level"]): data["value"]
        for data in (event["data"] for event in events if event["event"] == "score")
    }
    shown = {
        (each["checkpoint_id"], score["metric"], score["layer"], score["level"]): score["value"]
        for each in ranking["candidates"]
        for score in each["scores"]
    }
    assert told == shown
    rest = list(client.rankings.events(ranking["id"], after=numbers[len(numbers) // 2]))
    assert [event["id"] for event in rest if event["id"] is not None] == numbers[len(numbers) // 2 + 1 :]


def one_corrupt_candidate_fails_alone(
    running: Deployment, dataset: dict[str, Any], checkpoints: dict[str, Any], before: dict[str, Any]
) -> None:
    """The stored weights of one checkpoint rot: it fails with the reason, the others are ranked as before."""
    client = running.client
    assert client is not None
    sick = checkpoints["skin"]
    [file] = [
        path
        for path in running.home.parent.rglob(sick["weights_sha256"])
        if path.is_file() and "storage" in path.as_posix()
    ]
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2])
    forget_features(running)
    ids = [row["id"] for row in checkpoints.values()]
    ranking = client.rankings.wait(
        client.rankings.create(dataset["id"], ids, **REQUEST)["id"], timeout_s=PATIENCE_S
    )
    assert ranking["state"] == "succeeded"
    states = {candidate["checkpoint_id"]: candidate for candidate in ranking["candidates"]}
    failed = states.pop(sick["id"])
    assert (failed["state"], failed["rank"], failed["scores"]) == ("failed", None, [])
    assert failed["error"]["detail"]
    [left_out] = ranking["left_out"]
    assert (left_out["checkpoint_id"], left_out["code"]) == (sick["id"], "failed")
    assert left_out["reason"] == failed["error"]["detail"]
    known, found = comparable(before)["candidates"], comparable(ranking)["candidates"]
    assert {id: found[id]["scores"] for id in states} == {id: known[id]["scores"] for id in states}
    order = [
        candidate["checkpoint_id"]
        for candidate in before["candidates"]
        if candidate["checkpoint_id"] != sick["id"]
    ]
    assert [candidate["checkpoint_id"] for candidate in ranking["candidates"]][:3] == order
