"""SIGKILL in the middle of a round of a search: it goes on, to the same mAP of everybody and the same winner."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision

from detrank import Client
from tests.deployments import Deployment, deployment, zipped
from tests.squares import squares

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

PATIENCE_S = 250
ASKED: dict[str, Any] = {
    "iterations": 24,
    "min_iterations": 8,
    "image_size": 64,
    "score_image_size": 64,
    "batch_size": 2,
    "precision": "float32",
    "evaluations": 1,
    "metrics": ["logme"],
}
SMALL = {
    "norm": "frozen",
    "neck_channels": 16,
    "head_width": 32,
    "rpn_pre_nms_top_n_train": 50,
    "rpn_post_nms_top_n_train": 20,
    "rpn_pre_nms_top_n_test": 50,
    "rpn_post_nms_top_n_test": 10,
    "box_batch_size_per_image": 16,
}


def prepare(client: Client, folder: Path) -> tuple[str, list[str]]:
    dataset = client.datasets.add(zipped(squares(folder / "set"), folder / "set.zip"))
    checkpoints = []
    for seed in range(2):
        torch.manual_seed(seed)
        torch.save(torchvision.models.mobilenet_v3_small().state_dict(), folder / f"weights{seed}.pth")
        about = {"architecture": "torchvision/mobilenet_v3_small", "options": dict(SMALL)}
        checkpoints.append(client.checkpoints.add(folder / f"weights{seed}.pth", **about)["id"])
    assert client.datasets.wait(dataset["id"], timeout_s=PATIENCE_S)["state"] == "ready"
    for id in checkpoints:
        assert client.checkpoints.wait(id, timeout_s=PATIENCE_S)["state"] == "ready"
    return dataset["id"], checkpoints


def strike(running: Deployment, client: Client, id: str) -> str:
    """Kills the worker in the middle of a part of the first round that has kept a state; the part's verification."""
    until = time.monotonic() + PATIENCE_S
    while time.monotonic() < until:
        now = client.searches.get(id)
        assert now["state"] in ("queued", "running"), "too late to disturb anything"
        for part in (
            now["rounds"][-1]["parts"] if now["rounds"] and now["rounds"][-1]["kind"] == "round" else ()
        ):
            row = client.verifications.get(part["verification_id"])
            if row["state"] == "running" and (row["resumable_at"] or 0) > part["begin"]:
                running.kill_worker()
                return row["id"]
        time.sleep(0.02)
    raise AssertionError("no part kept a state")


def came_to(record: dict[str, Any]) -> dict[str, list[tuple[int, float]]]:
    """Candidate to what each part reached."""
    found: dict[str, list[tuple[int, float]]] = {}
    for one in record["rounds"]:
        for part in one["parts"]:
            if one["kind"] == "round":
                found.setdefault(part["checkpoint_id"], []).append((part["iterations"], part["map"]))
    return found


def ends(record: dict[str, Any]) -> dict[str, tuple[int, float]]:
    """Candidate to what it came to in the end: which stretches led there may turn on seconds, which differ."""
    return {id: points[-1] for id, points in came_to(record).items()}


# all that is worth anything, so that everybody comes to the end, one at a time
EXPECTING = {"strategy": "expected_improvement", "min_improvement": 0.0, "parallel": 1}


@pytest.mark.parametrize(("strategy", "told"), [({}, came_to), (EXPECTING, ends)])
def test_a_search_that_loses_its_worker_finds_the_same(
    tmp_path: Path, strategy: dict[str, Any], told: Callable[[dict[str, Any]], dict[str, Any]]
) -> None:
    with deployment(tmp_path / "home", TRAINING_STATE_S=0.2) as running:
        client = running.client
        assert client is not None
        dataset, checkpoints = prepare(client, tmp_path)
        client.workspaces.change(learns=False)
        first = client.searches.create(dataset, checkpoints, 60, **ASKED, **strategy)
        undisturbed = client.searches.wait(first["id"], timeout_s=PATIENCE_S)
        assert undisturbed["state"] == "succeeded", undisturbed["error"]

        second = client.searches.create(dataset, checkpoints, 60, **ASKED, **strategy)
        struck = strike(running, client, second["id"])
        running.start_worker()
        survivor = client.searches.wait(second["id"], timeout_s=PATIENCE_S)
        assert survivor["state"] == "succeeded", survivor["error"]
        assert told(survivor) == told(undisturbed)
        assert set(came_to(survivor)) == set(checkpoints)
        for name in ("checkpoint_id", "iterations", "val_map", "test_map"):
            assert survivor["best"][name] == undisturbed["best"][name]
        # a training that paused goes on as the same job
        (job_id,) = {
            part["job_id"]
            for one in survivor["rounds"]
            if one["kind"] == "round"
            for part in one["parts"]
            if part["verification_id"] == struck
        }
        log = [event["data"]["message"] for event in client.jobs.events(job_id) if event["event"] == "log"]
        assert any(message.startswith("training goes on from iteration") for message in log)
        assert survivor["spent"]["total_s"] == pytest.approx(
            survivor["spent"]["ranking_s"] + sum(one["seconds"] for one in survivor["rounds"]), abs=0.1
        )
