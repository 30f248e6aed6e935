"""Two workspaces that use one service at once: whose work comes first, asked over REST and done by a real worker."""

import json
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from kombu import Connection

from app.queue.broker import queue_names
from app.settings import Settings
from detrank import Client
from tests.deployments import Deployment
from tests.faults.works import archive, weights

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

PATIENCE_S = 180
RANKING: dict[str, Any] = {
    "metrics": ["h_score"],
    "layers": ["backbone.c4"],
    "max_images": 20,
    "image_size": 64,
    "calibrate": False,
    "zero_point": False,
    "seed": 1,
}


@pytest.fixture(params=["embedded", "redis", "rabbitmq"])
def settings(request: pytest.FixtureRequest) -> Iterator[dict[str, str]]:
    """Of a deployment on this broker, with queues of its own, which go with it."""
    if request.param == "embedded":
        yield {}
        return
    broker = request.getfixturevalue("redis_url" if request.param == "redis" else "amqp_url")
    prefix = f"turns-{uuid.uuid4().hex[:8]}-"
    database = request.getfixturevalue("postgres_url")
    yield {"DATABASE_URL": database, "BROKER_URL": broker, "QUEUE_PREFIX": prefix}
    ours = Settings(database_url=database, broker_url=broker, queue_prefix=prefix)
    with Connection(broker) as connection:
        channel = connection.default_channel
        for name in queue_names(ours):
            if request.param == "redis":
                channel.client.delete(name)
            else:
                channel.queue_delete(name)


def key_of(running: Deployment, workspace: str) -> str:
    command = [sys.executable, "-m", "app.cli", "keys", "create", "test", "--workspace", workspace, "--json"]
    done = subprocess.run(command, env=running.environment, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)["key"]


class Tenant:
    """A workspace with a dataset and a checkpoint that are ready."""

    def __init__(self, url: str, key: str, variant: int) -> None:
        self.client = Client(url, key)
        headers = {"Authorization": f"Bearer {key}"}
        self.http = httpx.Client(base_url=url, headers=headers, timeout=60)
        self.dataset = (
            self.http.post("/v1/datasets", content=archive(variant)).raise_for_status().json()["id"]
        )
        body = {"architecture": "torchvision/squeezenet1_1"}
        made = self.http.post("/v1/checkpoints", params=body, content=weights(variant)).raise_for_status()
        self.checkpoint = made.json()["id"]

    def until_ready(self) -> None:
        assert self.client.datasets.wait(self.dataset, timeout_s=PATIENCE_S)["state"] == "ready"
        assert self.client.checkpoints.wait(self.checkpoint, timeout_s=PATIENCE_S)["state"] == "ready"

    def ranking(self, seed: int, priority: int = 0) -> str:
        body = RANKING | {"seed": seed, "priority": priority}
        return self.client.rankings.create(self.dataset, [self.checkpoint], **body)["id"]

    def began(self, ranking: str) -> str:
        """When its candidate was taken up; once it has ended."""
        record = self.client.rankings.wait(ranking, timeout_s=PATIENCE_S)
        assert record["state"] == "succeeded", record["error"]
        return self.client.jobs.get(record["candidates"][0]["job_id"])["started_at"]


def test_workspaces_take_turns_and_within_one_the_larger_priority_goes_first(
    settings: dict[str, str], tmp_path: Path
) -> None:
    running = Deployment(tmp_path / "home", AUTH="keys", **settings)
    try:
        running.run("migrate")
        keys = [key_of(running, name) for name in ("many", "few")]
        url = running.start_api().url
        worker = running.start_worker()
        many, few = (Tenant(url, key, variant) for variant, key in enumerate(keys))
        for tenant in (many, few):
            tenant.until_ready()
        worker.terminate()
        worker.wait(30)

        # nobody works: all of it waits, in the order in which it was asked for
        plain = [many.ranking(seed) for seed in range(4)]
        urgent, later = many.ranking(10, priority=5), many.ranking(11)
        of_few = [few.ranking(seed) for seed in range(2)]
        many.client.rankings.prioritise(plain[3], 2)
        running.start_worker()
        order = [urgent, plain[3], *plain[:3], later]
        began = {ranking: many.began(ranking) for ranking in order}
        began |= {ranking: few.began(ranking) for ranking in of_few}
    finally:
        running.stop()
    # one after the other, for there is one worker with one process
    came = sorted(began, key=began.__getitem__)
    assert [ranking for ranking in came if ranking in order] == order
    # of the first four two are those of the workspace that came last and asked for least
    assert sorted(ranking in of_few for ranking in came[:4]) == [False, False, True, True]
    assert came[0] in of_few or came[1] in of_few
