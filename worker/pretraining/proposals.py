"""Where things may be in a picture nobody labelled: the regions that a pretraining takes for objects."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Generator, Mapping, Sequence
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from worker.data.batches import read_checked
from worker.data.dataset import Image
from worker.data.lookahead import in_order
from worker.pretraining import edge_boxes, selective_search
from worker.pretraining.errors import Unpretrainable
from worker.training.randomness import stream

SELECTIVE_SEARCH, OBJECTNESS, RANDOM = "selective_search", "objectness", "random"
STRATEGIES = (SELECTIVE_SEARCH, OBJECTNESS, RANDOM)
# What is searched for in the pixels, once for each picture; the others are drawn where they are used.
SEARCHED: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    SELECTIVE_SEARCH: selective_search.selective_search,
    OBJECTNESS: edge_boxes.edge_boxes,
}
VERSIONS = {SELECTIVE_SEARCH: selective_search.VERSION, OBJECTNESS: edge_boxes.VERSION}
# Shares of a picture's sides that a random box takes, evenly in the logarithm.
RANDOM_SIDES = (0.05, 0.9)
# A region of one pixel of the squashed picture shows nothing.
LEAST_SIDE = 2 / selective_search.SIDE
PROPOSAL = 100  # a stream of its own beside those of worker.training.randomness

Boxes = Mapping[int, np.ndarray]


def proposed(
    images: Sequence[Image], strategy: str, *, threads: int = 2
) -> Generator[tuple[Image, np.ndarray]]:
    """Yield each image with its (n, 4) float32 regions, xyxy in [0, 1]; n may be 0. Searched in threads.

    Raises BadPicture at the place of a picture that cannot be decoded, and KeyError for a strategy that searches
    nothing.
    """
    search = SEARCHED[strategy]

    def look(image: Image) -> tuple[Image, np.ndarray]:
        return image, search(read_checked(image))

    yield from in_order(look, images, threads=threads, ahead=4 * threads)


def chosen(
    strategy: str, regions: np.ndarray | None, count: int, seed: int, *, epoch: int, image_id: int
) -> np.ndarray:
    """(n, 4) float32 xyxy in [0, 1], n <= count: the regions of one image that one epoch learns from.

    `selective_search`: drawn by the diversified order of the paper (Uijlings et al., section 4.3: a region's position
    in the hierarchy times a random number), with the position by area for that in the hierarchy, where regions only
    ever grow; anew each epoch, as DETReg's are. `objectness`: always the best. `random`: boxes drawn anew each epoch.
    """
    if strategy == RANDOM:
        return _random_boxes(count, stream(seed, PROPOSAL, epoch, image_id))
    if regions is None:
        raise AssertionError(f"{strategy} searches pictures, and nobody did")
    sides = regions[:, 2:] - regions[:, :2]
    wide_enough = regions[(sides >= LEAST_SIDE).all(axis=1)]
    if strategy == OBJECTNESS:
        return wide_enough[:count]
    areas = np.prod(wide_enough[:, 2:] - wide_enough[:, :2], axis=1)
    position = np.empty(len(areas))
    position[np.argsort(-areas, kind="stable")] = np.arange(1, len(areas) + 1)
    drawn = stream(seed, PROPOSAL, epoch, image_id).random(len(areas))
    return wide_enough[np.argsort(position * drawn, kind="stable")[:count]]


def _random_boxes(count: int, rng: np.random.Generator) -> np.ndarray:
    sides = np.exp(rng.uniform(np.log(RANDOM_SIDES[0]), np.log(RANDOM_SIDES[1]), (count, 2)))
    corner = rng.random((count, 2)) * (1 - sides)
    return np.concatenate([corner, corner + sides], axis=1).astype(np.float32)


def key_of(dataset_digest: str, strategy: str, part: int, parts: int) -> str:
    """SHA-256 of all that the regions of a part of a dataset depend on: whoever searches the same finds them."""
    text = f"proposals/{VERSIONS[strategy]}/{dataset_digest}/{part}/{parts}"
    return hashlib.sha256(text.encode()).hexdigest()


def part_of(images: Sequence[Image], part: int, parts: int) -> list[Image]:
    """Every `parts`-th image, from `part` on: parts that take about equally long."""
    return list(images[part::parts])


def save(path: Path, found: Boxes) -> None:
    """Writes the regions of many images into one file, by rename."""
    ids = np.array(sorted(found), np.int64)
    counts = np.array([len(found[int(id)]) for id in ids], np.int64)
    boxes = [np.asarray(found[int(id)], np.float32).reshape(-1, 4) for id in ids]
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.partial")
    save_file(
        {"image_ids": ids, "counts": counts, "boxes": np.concatenate([*boxes, np.zeros((0, 4), np.float32)])},
        beside,
    )
    beside.replace(path)


def load(path: Path) -> dict[int, np.ndarray]:
    """What `save` wrote. Raises Unpretrainable `broken_proposals`."""
    try:
        found = load_file(path)
        ends = np.cumsum(found["counts"])[:-1]
        parts = np.split(found["boxes"], ends) if len(found["image_ids"]) else []
        return dict(zip(found["image_ids"].tolist(), parts, strict=True))
    except (OSError, KeyError, ValueError, SafetensorError) as error:
        raise Unpretrainable(
            "broken_proposals",
            f"the proposals in {path.name} cannot be read ({error}): they have to be searched anew",
        ) from None
