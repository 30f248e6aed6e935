"""What pretraining costs beside what it is made of; ratios in one run, so that a busy machine weighs on both.

    python benchmarks/pretraining.py --pictures FOLDER [--count 10] [--size 192] [--steps 15]

Regions: pictures a second of `proposed` beside OpenCV's own call on as many threads. A step: a whole pretraining step
(pictures made ready, crops, encoder, detector, loss, optimiser) beside the plain forward and backward of the same detector on
as many pixels and the encoder's forward on as many crops, without matching or optimiser; by the clock, where pictures are made
ready beside the step, and by the seconds of CPU of all threads. Memory: of the process after each epoch.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import torch
import torchvision
from PIL import Image as PilImage

import models_store
from models_store.pretraining import placed_over
from worker.data.dataset import Dataset, Image
from worker.pretraining.pretrain import prepared, pretrain
from worker.pretraining.proposals import proposed
from worker.pretraining.recipe import pretraining_plan_of
from worker.pretraining.selective_search import SIDE
from worker.training.inputs import Host, Ids, Watch

CONFIG = {"encoder_layers": 3, "decoder_layers": 3, "num_queries": 100}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pictures", type=Path, required=True)
    parser.add_argument(
        "--backbone", type=Path, help="weights of a torchvision ResNet-18; random where not given"
    )
    parser.add_argument("--count", type=int, default=10)
    parser.add_argument("--size", type=int, default=192)
    parser.add_argument("--steps", type=int, default=15)
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--threads", type=int, default=2)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    images = pictures_in(asked.pictures, asked.count)
    regions = proposals_pace(images, asked.threads)
    with tempfile.TemporaryDirectory() as scratch:
        training(images, regions, asked, Path(scratch))


def pictures_in(folder: Path, count: int) -> list[Image]:
    found = sorted([*folder.rglob("*.jpg"), *folder.rglob("*.png")])[:count]
    images = []
    for number, path in enumerate(found, 1):
        with PilImage.open(path) as opened:
            width, height = opened.size
        images.append(Image(number, path, width, height, "train"))
    return images


def proposals_pace(images: list[Image], threads: int) -> dict[int, np.ndarray]:
    def plain(image: Image) -> int:
        pixels = np.asarray(PilImage.open(image.path).convert("RGB"))
        search = cv2.ximgproc.segmentation.createSelectiveSearchSegmentation()
        small = cv2.resize(pixels, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
        search.setBaseImage(np.ascontiguousarray(small[..., ::-1]))
        search.switchToSelectiveSearchFast()
        return len(search.process())

    cv2.setNumThreads(1)
    ratios = []
    found: dict[int, np.ndarray] = {}
    for _ in range(2):
        began = time.perf_counter()
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(plain, images))
        theirs = time.perf_counter() - began
        began = time.perf_counter()
        found = {image.id: boxes for image, boxes in proposed(images, "selective_search", threads=threads)}
        ratios.append((time.perf_counter() - began) / theirs)
    print(
        f"regions: {theirs / len(images):.3f} s a picture by the library's call on {threads} threads, ours takes "
        f"{statistics.mean(ratios):.2f} of it (mean of 2)"
    )
    return found


def training(
    images: list[Image], found: dict[int, np.ndarray], asked: argparse.Namespace, folder: Path
) -> None:
    torch.manual_seed(0)
    weights = asked.backbone
    if weights is None:
        weights = folder / "resnet18.pth"
        torch.save(torchvision.models.resnet18().state_dict(), weights)
    models_store.convert(weights, folder / "backbone", architecture="torchvision/resnet18")
    encoder = models_store.load_detector(folder / "backbone")
    placed = placed_over(encoder, "deformable_detr", config=CONFIG, seed=0)
    detector = prepared(placed, models_store.load_detector(folder / "backbone"), "backbone.c3", None, 0)
    empty = np.zeros(0, np.int64)
    dataset = Dataset(
        folder,
        (),
        "none",
        tuple(images),
        empty,
        empty,
        empty,
        np.zeros((0, 4)),
        np.zeros(0, bool),
        "benchmark",
    )
    plan = pretraining_plan_of(
        "detreg_quick",
        manifest=detector.manifest,
        images=len(images),
        iterations=asked.steps,
        image_size=asked.size,
        batch_size=asked.batch,
        evaluations=1,
        seed=0,
    )
    epoch = -(-len(images) // asked.batch)
    sizes = watch_sizes(detector)
    steps: list[float] = []
    plain: list[float] = []
    memory: list[int] = []
    clock = {"last": 0.0, "plain_cpu": 0.0}

    def progress(done: int, total: int | None, message: str) -> None:
        steps.append(time.perf_counter() - clock["last"])
        if done % epoch == 0:
            memory.append(resident_mib())
            # in blocks, so that the pictures of most steps are made ready beside a step, as ever
            cpu = time.thread_time()
            plain.extend(plain_step(detector, sizes) for _ in range(epoch))
            clock["plain_cpu"] += time.thread_time() - cpu
            # at once: on a busy machine whoever waits may lose patience
            told(steps, plain, epoch, sizes, asked)
        clock["last"] = time.perf_counter()

    cpu = time.process_time()
    clock["last"] = time.perf_counter()
    pretrain(
        detector,
        dataset,
        plan,
        Ids([image.id for image in images], [images[0].id], []),
        found,
        folder / "state",
        host=Host(decode_threads=asked.threads, save_every_s=1e9),
        watch=Watch(progress=progress),
    )
    cpu = time.process_time() - cpu - clock["plain_cpu"]
    print(
        f"step in seconds of CPU, all threads: ratio {cpu / len(steps) / (clock['plain_cpu'] / len(plain)):.2f} "
        f"({cpu / len(steps):.2f} s, with two looks at recall)"
    )
    print(f"memory after each epoch: {', '.join(map(str, memory))} MiB")


def told(
    steps: list[float],
    plain: list[float],
    epoch: int,
    sizes: dict[str, object],
    asked: argparse.Namespace,
) -> None:
    """The ratio so far: without the first two steps of a block, whose pictures were ready, and the first epoch once there are more."""
    cold = epoch if len(steps) > epoch else 0
    ours = [each for number, each in enumerate(steps) if number % epoch >= 2 and number >= cold]
    theirs = plain[cold:]
    ratio = statistics.median(ours) / statistics.median(theirs)
    print(
        f"step: {statistics.median(ours):.2f} s, its parts alone {statistics.median(theirs):.2f} s, ratio {ratio:.2f} (medians "
        f"of {len(ours)} and {len(theirs)}; batch {asked.batch}, {asked.size} pixels, {sizes['crops']} crops)",
        flush=True,
    )


def watch_sizes(detector: object) -> dict[str, object]:
    """Filled with the shape of the pixels and the number of crops of the newest step."""
    seen: dict[str, object] = {}
    padded, vectors = detector._padded, detector.encoder.vectors

    def seen_padded(images: object, image_size: object) -> object:
        made = padded(images, image_size)
        seen["pixels"] = tuple(made[0].shape)
        return made

    def seen_vectors(crops: torch.Tensor) -> torch.Tensor:
        seen["crops"] = len(crops)
        return vectors(crops)

    detector._padded = seen_padded
    object.__setattr__(detector.encoder, "vectors", seen_vectors)
    return seen


def plain_step(detector: object, sizes: dict[str, object]) -> float:
    """Forward and backward of the detector and the encoder's forward, on random pixels of the same sizes; seconds."""
    rng = np.random.default_rng(0)
    pixels = torch.from_numpy(rng.normal(size=sizes["pixels"])).float()
    crops = torch.from_numpy(rng.integers(0, 255, (sizes["crops"], 3, 128, 128), dtype=np.uint8))
    module = detector.module
    began = time.perf_counter()
    detector.encoder.vectors(crops)
    module.train()
    outputs = module(pixel_values=pixels.contiguous(memory_format=torch.channels_last))
    (outputs.logits.square().mean() + outputs.pred_boxes.square().mean()).backward()
    module.zero_grad(set_to_none=True)
    module.eval()
    return time.perf_counter() - began


def resident_mib() -> int:
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") >> 20


if __name__ == "__main__":
    main()
