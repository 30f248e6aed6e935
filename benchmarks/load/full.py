"""500 who poll and 10 who upload, while a ranking runs on the same cores: no request may fail."""

import asyncio
import os
import subprocess
import sys
import time
from pathlib import Path

import httpx
import torch
import torchvision
from load.callers import Heard, ask

from detrank import Client
from detrank.embedded import started

POLLERS = 500
EVERY_S = 2.0
UPLOADERS = 10
UPLOAD_BYTES = 8 << 20
CANDIDATES = 4


def full_load(home: Path, seconds: float) -> bool:
    """Prints what pollers and uploaders heard; whether no request failed and the ranking went on."""
    home.mkdir()
    settings = {"DETRANK_MIN_FREE_DISK_BYTES": "0", "OMP_NUM_THREADS": "1"}
    with started(home / "data", settings) as url, Client(url) as client:
        ranking = prepared(client, home)
        while client.rankings.get(ranking)["stage"] != "scoring":
            time.sleep(0.1)
        polled, sent = asyncio.run(_all(f"{url}/v1/rankings/{ranking}", url, seconds))
        state = client.rankings.get(ranking)["state"]
        client.rankings.cancel(ranking)
    answers = polled.statuses | dict(sent.items())
    print(
        f"{POLLERS} pollers, every {EVERY_S:g} s, and {UPLOADERS} uploaders of {UPLOAD_BYTES >> 20} MiB for {seconds:g} s "
        f"beside a ranking that is {state}: {len(polled.seconds)} polls {polled.statuses}, uploads {sent}; "
        f"polls took {polled.percentile_ms(50):.0f} ms, p99 {polled.percentile_ms(99):.0f} ms"
    )
    return set(answers) <= {200, 304, 202} and state == "running"


async def _all(path: str, url: str, seconds: float) -> tuple[Heard, dict[int, int]]:
    sent: dict[int, int] = {}
    polling = ask(path, seconds=seconds, connections=POLLERS, every_s=EVERY_S, follow_etag=True)
    async with httpx.AsyncClient(base_url=url, timeout=60) as http:
        heard, *_ = await asyncio.gather(polling, *(_upload(http, seconds, sent) for _ in range(UPLOADERS)))
    return heard, sent


async def _upload(http: httpx.AsyncClient, seconds: float, sent: dict[int, int]) -> None:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        # of its own content each time, so that none is there already
        answer = await http.post("/v1/checkpoints", content=os.urandom(64) + bytes(UPLOAD_BYTES))
        sent[answer.status_code] = sent.get(answer.status_code, 0) + 1
        if answer.status_code == 202:
            await http.post(f"/v1/jobs/{answer.json()['job_id']}:cancel")
            await http.delete(answer.headers["Location"])


def prepared(client: Client, folder: Path) -> str:
    """The id of a ranking of untrained detectors on drawn scenes that has just begun and will last."""
    archive = folder / "scenes.zip"
    command = [sys.executable, "-m", "app.cli", "datasets", "synth", str(archive)]
    subprocess.run([*command, "--style", "scenes", "--train", "400"], check=True, stdout=subprocess.DEVNULL)
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
