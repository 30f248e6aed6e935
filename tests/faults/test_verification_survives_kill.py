"""SIGKILL in the middle of a verification: it goes on from its last state, to the curves and mAP of one nobody disturbed."""

import time
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision

from detrank import Client
from tests.deployments import Deployment, deployment, zipped
from tests.squares import squares

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

PATIENCE_S = 200
ASKED: dict[str, Any] = {
    "recipe": "quick",
    "iterations": 20,
    "evaluations": 2,
    "image_size": 64,
    "batch_size": 2,
    "precision": "float32",
}


def prepare(client: Client, folder: Path) -> tuple[str, str]:
    dataset = client.datasets.add(zipped(squares(folder / "set"), folder / "set.zip"))
    torch.manual_seed(0)
    torch.save(torchvision.models.mobilenet_v2().state_dict(), folder / "weights.pth")
    checkpoint = client.checkpoints.add(folder / "weights.pth", architecture="detrank/retinanet")
    assert client.datasets.wait(dataset["id"], timeout_s=PATIENCE_S)["state"] == "ready"
    assert client.checkpoints.wait(checkpoint["id"], timeout_s=PATIENCE_S)["state"] == "ready"
    return dataset["id"], checkpoint["id"]


def strike(running: Deployment, client: Client, id: str) -> int:
    """Kills the worker once a state from the middle of the training is in storage; the iteration of that state."""
    until = time.monotonic() + PATIENCE_S
    while time.monotonic() < until:
        now = client.verifications.get(id)
        assert now["state"] in ("queued", "running"), "too late to disturb anything"
        if now["resumable_at"] and client.jobs.get(now["job_id"])["progress"]["done"] > now["resumable_at"]:
            running.kill_worker()
            return client.verifications.get(id)["resumable_at"]
        time.sleep(0.02)
    raise AssertionError("no state was kept")


def comparable(client: Client, record: dict[str, Any]) -> dict[str, Any]:
    points = [{**point, "seconds": None} for point in client.verifications.curves(record["id"])]
    return {name: record[name] for name in ("val", "test", "best", "iterations", "finished", "warnings")} | {
        "curves": points
    }


def test_a_killed_verification_ends_as_if_nobody_had_disturbed_it(tmp_path: Path) -> None:
    with deployment(tmp_path / "home", TRAINING_STATE_S=0.5) as running:
        client = running.client
        assert client is not None
        dataset, checkpoint = prepare(client, tmp_path)
        first = client.verifications.create(dataset, checkpoint, **ASKED)
        undisturbed = client.verifications.wait(first["id"], timeout_s=PATIENCE_S)
        assert undisturbed["state"] == "succeeded", undisturbed["error"]

        second = client.verifications.create(dataset, checkpoint, **ASKED)
        struck_at = strike(running, client, second["id"])
        running.start_worker()
        survivor = client.verifications.wait(second["id"], timeout_s=PATIENCE_S)
        assert survivor["state"] == "succeeded", survivor["error"]
        assert comparable(client, survivor) == comparable(client, undisturbed)
        log = [
            event["data"]["message"]
            for event in client.jobs.events(second["job_id"])
            if event["event"] == "log"
        ]
        assert f"training goes on from iteration {struck_at}" in log
        weights = [
            client.checkpoints.get(row["trained_checkpoint_id"])["weights_sha256"]
            for row in (undisturbed, survivor)
        ]
        assert weights[0] == weights[1]
