"""Where the seconds of a ranking go, and what of them is neither a forward pass of a candidate nor of a zero point.

    PYTHONPATH=. python benchmarks/ranking.py [--threads N] [--images 200] [--image-size 256]

Six backbones of four architectures with seeded weights, on scenes of drawn digits, on an embedded service of its own; the
size of the demo by default. The second ranking of the same candidates takes another seed, so that it draws other images: nothing
of the first is found again but the loaded networks. The third repeats the second: features and zero points are found. Prints
seconds of every step, summed over the candidates, and the share of the ranking's seconds that is outside of forward passes.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from collections import Counter
from datetime import datetime
from pathlib import Path

import timm
import torch

from detrank import Client
from detrank.embedded import started

# as the demo has them: two of one architecture, and others
BODIES = (
    "mobilenetv2_100",
    "mobilenetv2_100",
    "tf_efficientnet_lite0",
    "tf_efficientnet_lite1",
    "tf_efficientnet_lite2",
    "resnet18",
)
STEPS = ("load", "decode", "prepare", "forward", "pool", "score", "calibrate", "zero_point", "cost")
PATIENCE_S = 1800


def seeded(folder: Path, name: str, seed: int) -> Path:
    torch.manual_seed(seed)
    path = folder / f"{seed}-{name}.pth"
    torch.save(timm.create_model(name).state_dict(), path)
    return path


def prepared(client: Client, folder: Path) -> tuple[str, list[str]]:
    """The ids of a dataset and of candidates."""
    archive = folder / "scenes.zip"
    command = [sys.executable, "-m", "app.cli", "datasets", "synth", str(archive), "--style", "scenes"]
    subprocess.run(
        [*command, "--train", "300", "--test", "60", "--seed", "0"], check=True, capture_output=True
    )
    dataset = client.datasets.add(archive, name="scenes")
    bodies = [
        client.checkpoints.add(seeded(folder, name, seed), name=f"{name} {seed}", architecture=f"timm/{name}")
        for seed, name in enumerate(BODIES, 1)
    ]
    for record in bodies:
        assert client.checkpoints.wait(record["id"], timeout_s=PATIENCE_S)["state"] == "ready", record
    assert client.datasets.wait(dataset["id"], timeout_s=PATIENCE_S)["state"] == "ready"
    return dataset["id"], [record["id"] for record in bodies]


def tell(what: str, ranking: dict) -> None:
    assert ranking["state"] == "succeeded", ranking["error"]
    begin, end = (datetime.fromisoformat(ranking[name]) for name in ("started_at", "finished_at"))
    total = (end - begin).total_seconds()
    spent: Counter[str] = Counter()
    for candidate in ranking["candidates"]:
        numbers = {name: value for name, value in candidate["timings"].items() if isinstance(value, float)}
        spent.update(numbers)
    waiting = total - spent["total"]
    passes = spent["forward"] + spent["zero_point_forward"]
    steps = ", ".join(f"{name} {spent[name]:.1f}" for name in STEPS)
    steps += f" (of it forward {spent['zero_point_forward']:.1f}), between candidates {waiting:.1f}"
    print(f"{what}: {total:.1f} s; {steps}")
    print(
        f"{'':{len(what)}}  forward passes {passes:.1f} s, outside of them {100 * (1 - passes / total):.0f} %"
    )


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    options.add_argument(
        "--threads", type=int, help="OMP_NUM_THREADS of the service; as the machine has it by default"
    )
    options.add_argument("--images", type=int, default=200)
    options.add_argument("--image-size", type=int, default=256)
    asked = options.parse_args()
    settings = {"DETRANK_MIN_FREE_DISK_BYTES": "0"}
    if asked.threads:
        settings["OMP_NUM_THREADS"] = str(asked.threads)
    else:
        os.environ.pop("OMP_NUM_THREADS", None)
    with tempfile.TemporaryDirectory() as home:
        folder = Path(home)
        with started(folder / "data", settings) as url, Client(url) as client:
            dataset, bodies = prepared(client, folder)
            for what, seed in (("first", 0), ("other images", 1), ("the same again", 1)):
                asks = {"max_images": asked.images, "image_size": asked.image_size, "seed": seed}
                made = client.rankings.create(dataset, bodies, name=what, **asks)
                tell(what, client.rankings.wait(made["id"], timeout_s=PATIENCE_S))


if __name__ == "__main__":
    main()
