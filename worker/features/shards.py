"""A reading in parts: which images each part holds, its vectors as a file, and the features of all parts together."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Unpack

import numpy as np

from worker.data.dataset import Image
from worker.features import cache as store
from worker.features.cost import Cost, known
from worker.features.extract import Features, features_of, fillings
from worker.features.forward import BATCH_SIZE
from worker.features.layers import SOURCE_LAYER, SOURCE_LEVEL
from worker.features.reading import Batch, HowToRead, Progress, Reading, in_batch_order, read_into

# Parts are made of whole batches of the undivided reading, since which images share one changes the last bits.
_PIECES_EACH = 4
_KEEP_ALL = 2**63


@dataclass(frozen=True)
class ReadPart:
    """What reading some images of a reading gave: arrays, and what it took. cost is None where there was no image."""

    arrays: dict[str, np.ndarray]
    seconds: dict[str, float]
    cost: Cost | None
    warnings: tuple[str, ...]

    def save(self, folder: Path, key: str, max_bytes: int = _KEEP_ALL) -> Path:
        """Writes a file that `load_part` finds under the same key, readable by safetensors alone."""
        facts = {
            "seconds": self.seconds,
            "cost": self.cost and dataclasses.asdict(self.cost),
            "warnings": list(self.warnings),
        }
        return store.save(folder, key, self.arrays, facts, max_bytes)


def load_part(folder: Path, key: str) -> ReadPart | None:
    """The part kept under `key`, None where there is none that can be read."""
    kept = store.load(folder, key)
    if kept is None:
        return None
    arrays, facts = kept
    cost = facts["cost"]
    return ReadPart(
        arrays,
        facts["seconds"],
        cost and Cost(**{**cost, "image_hw": tuple(cost["image_hw"])}),
        tuple(facts["warnings"]),
    )


def images_of_shard(reading: Reading, position: int, shards: int) -> tuple[Image, ...]:
    """The images of one of `shards` parts, position from 0; together all of the reading's, each once.

    The parts are of nearly equal size and follow the reading alone, so every host cuts the same ones. One may be empty
    where there are few images.
    """
    if not 0 <= position < shards:
        raise ValueError(f"there is no part {position} of {shards}")
    ordered = in_batch_order(reading)
    groups = [list(group) for _, group in groupby(ordered, key=reading.target_size)]
    batch = BATCH_SIZE.get(reading.device.type, 4)
    while len(ordered) >= 2 * batch * _PIECES_EACH * shards:
        batch *= 2
    pieces = [group[start : start + batch] for group in groups for start in range(0, len(group), batch)]
    # the largest first, each to the part that has fewest so far
    held: list[list[Image]] = [[] for _ in range(shards)]
    for piece in sorted(pieces, key=len, reverse=True):
        min(held, key=len).extend(piece)
    return tuple(held[position])


def key_of_part(reading: Reading, position: int, shards: int) -> str:
    """Digest of all that the part's vectors depend on."""
    return store.key_of({"reading": reading.key, "part": [position, shards]})


def read_vectors(
    reading: Reading,
    images: Sequence[Image],
    *,
    progress: Progress = lambda done, total, message: None,
    **how: Unpack[HowToRead],
) -> ReadPart:
    """The vectors of the objects and regions of some images, under the names of feature files.

    Those of objects belong to `annotation_ids` (n,) int64, those of regions to `regions/rows` (m,) int64 of the reading's.
    """
    rows: list[np.ndarray] = []
    region_rows: list[np.ndarray] = []
    tables: dict[str, list[np.ndarray]] = {}

    def take(batch: Batch) -> None:
        rows.append(batch.rows)
        region_rows.append(batch.region_rows)
        for place, vectors in batch.vectors.items():
            tables.setdefault(_name(place), []).append(vectors)
        for layer, vectors in batch.region_vectors.items():
            tables.setdefault(_region_name(layer), []).append(vectors)

    account = read_into(take, reading, images, progress=progress, **how)
    arrays = {name: np.concatenate(parts) for name, parts in tables.items()}
    arrays["annotation_ids"] = reading.objects.annotation_ids[_joined_rows(rows)]
    if reading.regions is not None:
        arrays["regions/rows"] = _joined_rows(region_rows)
    return ReadPart(arrays, account.seconds, account.cost, tuple(account.warnings))


def joined(reading: Reading, parts: Iterable[ReadPart]) -> Features:
    """The features of the whole reading from all its parts, which are looked at one by one.

    Raises AssertionError where they do not hold every object and region once.
    """
    ids = reading.objects.annotation_ids
    objects, regions = fillings(reading)
    places = [*reading.wanted, *([(SOURCE_LAYER, SOURCE_LEVEL)] if reading.source_maps else [])]
    took = Took()
    for part in parts:
        took.add(part)
        arrays = part.arrays
        rows = np.searchsorted(ids, arrays["annotation_ids"])
        if not np.array_equal(ids[rows], arrays["annotation_ids"]):
            raise AssertionError("a part stands for other objects than the sample")
        if not len(rows):
            continue
        objects.add(rows, {place: arrays[_name(place)] for place in places})
        if reading.regions is not None:
            vectors = {layer: arrays[_region_name(layer)] for layer in reading.region_layers}
            regions.add(arrays["regions/rows"], vectors)
    tables = objects.complete("objects are not in exactly one part")
    region_tables = regions.complete("regions are not in exactly one part")
    return features_of(reading, tables, region_tables, took.seconds, known(took.cost), took.warnings)


@dataclass
class Took:
    """What parts took together: seconds add up; the cost is the first's."""

    seconds: dict[str, float] = dataclasses.field(default_factory=dict)
    cost: Cost | None = None
    warnings: tuple[str, ...] = ()

    def add(self, part: ReadPart) -> None:
        for step, value in part.seconds.items():
            self.seconds[step] = self.seconds.get(step, 0.0) + value
        self.cost = self.cost or part.cost
        self.warnings = tuple(dict.fromkeys((*self.warnings, *part.warnings)))


def _name(place: tuple[str, str]) -> str:
    return (
        "source_probabilities" if place == (SOURCE_LAYER, SOURCE_LEVEL) else f"features/{place[0]}/{place[1]}"
    )


def _region_name(layer: str) -> str:
    return f"region_features/{layer}"


def _joined_rows(rows: Sequence[np.ndarray]) -> np.ndarray:
    return np.concatenate([np.empty(0, dtype=np.int64), *rows])
