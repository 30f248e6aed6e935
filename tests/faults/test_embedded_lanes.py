"""The embedded service as people start it: what they wait for at their desk ends while a training runs and fetches hang."""

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
import torchvision

from detrank import Client
from detrank.embedded import started
from tests.deployments import zipped
from tests.squares import squares

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

PATIENCE_S = 120
LONG = {"recipe": "quick", "iterations": 5000, "evaluations": 2, "image_size": 64, "batch_size": 2}


def until(true: Callable[[], object]) -> None:
    limit = time.monotonic() + PATIENCE_S
    while not true():
        assert time.monotonic() < limit, "did not happen"
        time.sleep(0.1)


@contextlib.contextmanager
def dripping() -> Iterator[int]:
    """The port of a package index whose answers never end: a byte a second, so that no timeout strikes."""
    listener = socket.create_server(("127.0.0.1", 0))

    def answer(peer: socket.socket) -> None:
        with contextlib.suppress(OSError), peer:
            peer.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 1000000\r\n\r\n")
            while True:
                peer.sendall(b" ")
                time.sleep(1)

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=answer, args=(listener.accept()[0],), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    with listener:
        yield listener.getsockname()[1]


def ready(client: Client, folder: Path, name: str) -> tuple[str, str]:
    """A dataset and a checkpoint that were read from new files."""
    dataset = client.datasets.add(zipped(squares(folder / name), folder / f"{name}.zip"), name=name)
    torch.save(torchvision.models.mobilenet_v2().state_dict(), folder / f"{name}.pth")
    checkpoint = client.checkpoints.add(folder / f"{name}.pth", architecture="detrank/retinanet")
    for found in (
        client.datasets.wait(dataset["id"], timeout_s=PATIENCE_S),
        client.checkpoints.wait(checkpoint["id"], timeout_s=PATIENCE_S),
    ):
        assert found["state"] == "ready", found["error"]
    return dataset["id"], checkpoint["id"]


def test_short_work_ends_while_a_training_runs_and_a_fetch_hangs(tmp_path: Path) -> None:
    with dripping() as port:
        settings = {
            "PIP_INDEX_URL": f"http://127.0.0.1:{port}/simple",
            "OMP_NUM_THREADS": "1",
            "DETRANK_MIN_FREE_DISK_BYTES": "0",
        }
        with started(tmp_path / "home", settings) as url, Client(url) as client:
            dataset, checkpoint = ready(client, tmp_path, "first")
            # that of extraction starts with the checkpoint, and may have told of itself by now
            assert {queue for worker in client.workers() for queue in worker["queues"]} - {"gpu"} == {"cpu"}

            training = client.verifications.create(dataset, checkpoint, **LONG)
            fetch = client.checkpoints.add("pypi://nothing==1.0/weights.pth")
            until(lambda: client.verifications.get(training["id"])["stage"] == "training")
            until(lambda: client.jobs.get(fetch["job_id"])["stage"] == "fetching")

            ready(client, tmp_path, "second")
            assert client.verifications.get(training["id"])["state"] == "running"
            assert client.jobs.get(fetch["job_id"])["state"] == "running"
            served = {worker["details"]["pid"]: worker["queues"] for worker in client.workers()}
            assert sorted(served.values()) == [["cpu"], ["gpu"], ["long"]]

            for job in (training["job_id"], fetch["job_id"]):
                client.jobs.cancel(job)
            until(lambda: client.verifications.get(training["id"])["state"] == "cancelled")
