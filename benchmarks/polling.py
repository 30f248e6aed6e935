"""How long `GET /v1/rankings/{id}` takes while a ranking runs and 50 others ask for it too; and the import of the API.

    python benchmarks/polling.py [--pollers 50] [--pause 1.0] [--seconds 30]

An embedded service is started in a temporary folder and ranks untrained MobileNetV2s on drawn scenes, so that the worker
is busy all the while. Two kinds of pollers are compared: one asks for the whole document each time, the other sends back
the ETag, as our client does. Pollers share the machine with the service and its worker, so this is a floor.
"""

import argparse
import asyncio
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import httpx
import torch
import torchvision

from app.client import Client
from app.embedded.discovery import started

CANDIDATES = 4


def prepared(client: Client, folder: Path) -> str:
    """The id of a ranking that has just begun and will last."""
    archive = folder / "scenes.zip"
    command = [sys.executable, "-m", "app.cli", "datasets", "synth", str(archive), "--style", "scenes", "--train", "400"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    dataset = client.datasets.add(archive, name="scenes")
    checkpoints = []
    for seed in range(CANDIDATES):
        torch.manual_seed(seed)
        weights = folder / f"{seed}.pth"
        torch.save(torchvision.models.mobilenet_v2().state_dict(), weights)
        checkpoints.append(client.checkpoints.add(weights, name=str(seed)))
    for record in checkpoints:
        client.checkpoints.wait(record["id"])
    client.datasets.wait(dataset["id"])
    asked = {"layers": ["all"], "max_images": None, "image_size": 480}
    return client.rankings.create(dataset["id"], [record["id"] for record in checkpoints], **asked)["id"]


async def poll(url: str, pollers: int, pause_s: float, seconds: float, conditional: bool) -> tuple[list[float], int]:
    """Seconds of every answer, and how many were 304."""
    until, found, unchanged = time.monotonic() + seconds, [], 0

    async def one(client: httpx.AsyncClient, place: int) -> None:
        nonlocal unchanged
        etag = None
        await asyncio.sleep(pause_s * place / pollers)
        while time.monotonic() < until:
            headers = {"If-None-Match": etag} if conditional and etag else {}
            began = time.perf_counter()
            answer = await client.get(url, headers=headers)
            found.append(time.perf_counter() - began)
            assert answer.status_code in (200, 304), answer.text
            unchanged += answer.status_code == 304
            etag = answer.headers.get("etag")
            await asyncio.sleep(pause_s)

    async with httpx.AsyncClient(limits=httpx.Limits(max_connections=pollers), timeout=60) as client:
        await asyncio.gather(*(one(client, place) for place in range(pollers)))
    return found, unchanged


def line(name: str, seconds: list[float], unchanged: int) -> str:
    ordered = sorted(seconds)
    p99 = ordered[min(len(ordered) - 1, int(0.99 * len(ordered)))]
    return f"{name:<22} {len(ordered):6d} {unchanged:6d} {1e3 * statistics.median(ordered):9.1f} {1e3 * p99:9.1f} {1e3 * ordered[-1]:9.1f}"


def import_seconds(runs: int = 5) -> float:
    """Median wall seconds of `import app.main` in a new process, less those of an empty one."""

    def wall(code: str) -> float:
        began = time.perf_counter()
        subprocess.run([sys.executable, "-c", code], check=True)
        return time.perf_counter() - began

    return statistics.median(wall("import app.main") - wall("pass") for _ in range(runs))


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--pollers", type=int, default=50)
    options.add_argument("--pause", type=float, default=1.0)
    options.add_argument("--seconds", type=float, default=30.0)
    asked = options.parse_args()
    print(f"import app.main: {import_seconds():.2f} s")
    with tempfile.TemporaryDirectory() as folder, started(Path(folder) / "home") as url, Client(url) as client:
        ranking = prepared(client, Path(folder))
        address = f"{url}/v1/rankings/{ranking}"
        print(f"{'pollers: ' + str(asked.pollers):<22} {'asked':>6} {'304':>6} {'median ms':>9} {'p99 ms':>9} {'max ms':>9}")
        for name, conditional in (("whole document", False), ("with ETag", True)):
            found = asyncio.run(poll(address, asked.pollers, asked.pause, asked.seconds, conditional))
            print(line(name, *found), f"  ranking {client.rankings.get(ranking)['state']}")
        client.rankings.cancel(ranking)


if __name__ == "__main__":
    main()
