"""What pseudo boxes from image labels cost, part by part; ratios in one run, so that a busy machine weighs on both.

    python benchmarks/pseudo_boxes.py [--side 60] [--pictures 200] [--regions 150] [--epochs 2]

Cuts: the sparse normalised cut of `side` x `side` tokens beside the published tools' dense generalised eigenproblem on the
same affinity, and whether both cut alike. Features: read again from the file where they are kept beside computed anew. Learning:
seconds of an epoch over kept features. All in seconds of CPU of one thread.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.linalg import eigh
from timm import create_model

import models_store
from worker.pseudo_boxes.instance_learning import LearningSettings, learn
from worker.pseudo_boxes.looked import Looked, save
from worker.pseudo_boxes.normalised_cuts import WEAK, affinity_of, cut_vectors
from worker.pseudo_boxes.region_features import FeatureSettings, region_vectors

THRESHOLD, VECTORS, WIDTH = 0.2, 5, 384


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--side", type=int, default=60)
    parser.add_argument("--pictures", type=int, default=200)
    parser.add_argument("--regions", type=int, default=150)
    parser.add_argument("--epochs", type=int, default=2)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        features(asked.regions, Path(folder))
    learning(asked.pictures, asked.regions, asked.epochs)
    cuts(asked.side)


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    began = time.process_time()
    made = work()
    return time.process_time() - began, made


def tokens(side: int) -> np.ndarray:
    """(side * side, WIDTH) of length 1: ground that changes smoothly, with nine objects on it."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:side, :side] / side
    kinds = np.zeros((side, side), int)
    for number in range(9):
        row, column = divmod(number, 3)
        top, left = (side * (1 + 3 * k) // 10 for k in (row, column))
        kinds[top : top + side // 6 + row, left : left + side // 6 + column] = number + 1
    drift = np.stack([x, y, 1 - x], axis=-1).reshape(-1, 3) @ rng.normal(0, 0.5, (3, WIDTH))
    found = rng.normal(0, 1, (10, WIDTH))[kinds.ravel()] + drift + rng.normal(0, 0.4, (side * side, WIDTH))
    return (found / np.linalg.norm(found, axis=1, keepdims=True)).astype(np.float32)


def cuts(side: int) -> None:
    vectors = tokens(side)
    sparse_s, (values, ours) = timed(lambda: cut_vectors(affinity_of(vectors, THRESHOLD), VECTORS))

    def dense() -> tuple[np.ndarray, np.ndarray]:
        alike = vectors @ vectors.T
        whole = np.where(alike > THRESHOLD, alike, WEAK).astype(np.float64)
        degrees = np.diag(whole.sum(axis=1))
        return eigh(degrees - whole, degrees)

    dense_s, (wanted, theirs) = timed(dense)
    second = theirs[:, 1]
    same = ((ours[:, 0] > ours[:, 0].mean()) == (second > second.mean())).mean()
    apart = np.abs(values - wanted[1 : VECTORS + 1]).max()
    print(
        f"cuts of {side} x {side} tokens: sparse {sparse_s:.2f} s, dense {dense_s:.2f} s, ratio {dense_s / sparse_s:.1f}; "
        f"eigenvalues differ by {apart:.1e} at most, the second vector puts {100 * max(same, 1 - same):.1f} % of the tokens "
        "on the same side"
    )


def features(regions: int, folder: Path) -> None:
    torch.manual_seed(0)
    torch.save(create_model("resnet18").state_dict(), folder / "body.pth")
    models_store.convert(folder / "body.pth", folder / "body", architecture="timm/resnet18")
    detector = models_store.load_detector(folder / "body")
    rng = np.random.default_rng(0)
    pictures = {id: rng.integers(0, 256, (320, 400, 3), np.uint8) for id in range(8)}
    boxes = boxes_of(rng, regions)
    computed_s, seen = timed(
        lambda: {
            id: {"boxes": boxes, "vectors": region_vectors(detector, pixels, boxes, FeatureSettings())}
            for id, pixels in pictures.items()
        }
    )
    save(folder / "looked", seen)

    def read() -> int:
        found = Looked([folder / "looked"])
        return sum(found[id]["vectors"].size for id in found)

    kept_s, _ = timed(read)
    print(
        f"features of {regions} regions of a picture, ResNet-18 at 320 pixels: computed {1000 * computed_s / 8:.0f} ms, "
        f"kept {1000 * kept_s / 8:.1f} ms, ratio {computed_s / kept_s:.0f}"
    )


def learning(pictures: int, regions: int, epochs: int) -> None:
    rng = np.random.default_rng(0)
    looked = {
        id: {"boxes": boxes_of(rng, regions), "vectors": rng.normal(0, 1, (regions, 560)).astype(np.float16)}
        for id in range(pictures)
    }
    present = {id: rng.random(6) < 0.4 for id in looked}
    seconds, _ = timed(lambda: learn(looked, present, LearningSettings(epochs=epochs)))
    print(
        f"learning: {seconds / epochs:.2f} s an epoch over {pictures} pictures of {regions} regions, 6 classes"
    )


def boxes_of(rng: np.random.Generator, regions: int) -> np.ndarray:
    corner = rng.uniform(0, 250, (regions, 2))
    return np.concatenate([corner, corner + rng.uniform(20, 70, (regions, 2))], axis=1).astype(np.float32)


if __name__ == "__main__":
    main()
