"""SIGKILL in the middle of a pretraining: it goes on from its kept state, to the recall and weights of one nobody disturbed."""

import time
from pathlib import Path
from typing import Any

import pytest
import torch
from timm import create_model

from detrank import Client
from tests.deployments import Deployment, deployment, zipped
from tests.small_detr import small_detr
from tests.squares import squares

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

PATIENCE_S = 200
ASKED: dict[str, Any] = {
    "architecture": "deformable_detr",
    "config": small_detr(),
    "proposals": "random",
    "max_proposals": 8,
    "iterations": 40,
    "evaluations": 2,
    "image_size": 64,
    "batch_size": 4,
    "precision": "float32",
}


def prepare(client: Client, folder: Path) -> tuple[str, str]:
    dataset = client.datasets.add(zipped(squares(folder / "set", images=16), folder / "set.zip"))
    torch.manual_seed(0)
    torch.save(create_model("test_resnet").state_dict(), folder / "body.pth")
    body = client.checkpoints.add(folder / "body.pth", architecture="timm/test_resnet")
    assert client.datasets.wait(dataset["id"], timeout_s=PATIENCE_S)["state"] == "ready"
    assert client.checkpoints.wait(body["id"], timeout_s=PATIENCE_S)["state"] == "ready"
    return dataset["id"], body["id"]


def strike(running: Deployment, client: Client, id: str) -> int:
    """Kills the worker once a state from the middle of the training is in storage; the iteration of that state."""
    until = time.monotonic() + PATIENCE_S
    while time.monotonic() < until:
        now = client.pretrainings.get(id)
        assert now["state"] in ("queued", "running"), "too late to disturb anything"
        if now["resumable_at"] and learning(client, id)["progress"]["done"] > now["resumable_at"]:
            running.kill_worker()
            return client.pretrainings.get(id)["resumable_at"]
        time.sleep(0.02)
    raise AssertionError("no state was kept")


def learning(client: Client, id: str) -> dict[str, Any]:
    """The job that trains."""
    (job,) = [each for each in client.jobs.list(resource_id=id) if each["kind"] == "learn"]
    return job


def comparable(client: Client, record: dict[str, Any]) -> dict[str, Any]:
    points = [{**point, "seconds": None} for point in client.pretrainings.curves(record["id"])]
    names = ("recall", "trained_on", "held_out", "iterations", "finished", "warnings", "plan")
    weights = client.checkpoints.get(record["trained_checkpoint_id"])["weights_sha256"]
    return {name: record[name] for name in names} | {"curves": points, "weights": weights}


def test_a_killed_pretraining_ends_as_if_nobody_had_disturbed_it(tmp_path: Path) -> None:
    with deployment(tmp_path / "home", TRAINING_STATE_S=0.3) as running:
        client = running.client
        assert client is not None
        dataset, body = prepare(client, tmp_path)
        first = client.pretrainings.create(dataset, encoder_checkpoint=body, **ASKED)
        undisturbed = client.pretrainings.wait(first["id"], timeout_s=PATIENCE_S)
        assert undisturbed["state"] == "succeeded", undisturbed["error"]

        second = client.pretrainings.create(dataset, encoder_checkpoint=body, **ASKED)
        struck_at = strike(running, client, second["id"])
        running.start_worker()
        survivor = client.pretrainings.wait(second["id"], timeout_s=PATIENCE_S)
        assert survivor["state"] == "succeeded", survivor["error"]
        assert comparable(client, survivor) == comparable(client, undisturbed)
        events = client.jobs.events(learning(client, second["id"])["id"])
        log = [event["data"]["message"] for event in events if event["event"] == "log"]
        assert f"training goes on from iteration {struck_at}" in log
