"""Statistics of a reading, gathered while it runs, so that its features need not be kept; in parts, and put together."""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence

import numpy as np
from scipy.linalg import lapack

from worker.data.dataset import Image
from worker.data.pixels import PixelCache
from worker.features import cache as store
from worker.features.reading import Batch, Reading, reading_of
from worker.features.shards import Part, Progress, Took, read_into
from worker.metrics.gathering import Design, Gathered, Gathering
from worker.metrics.moments import Moments
from worker.metrics.statistics import BoxStatistics, Statistics

Places = dict[tuple[str, str], Gathered]

# Goes up whenever what is gathered, or how it is written, changes.
_VERSION = 1


def design_of(reading: Reading, metrics: Sequence[str], **calibration: int) -> Design:
    """The design for a reading's objects; `permutations`, `groups` and `seed` as for `score`."""
    objects = reading.objects
    return Design.of(objects.labels, objects.normalised, objects.image_ids, metrics, **calibration)


def without_source(reading: Reading) -> Reading:
    """The reading of the features alone: nothing that metrics need of source probabilities can be added up."""
    spec = dataclasses.replace(reading.spec, source_probabilities=False)
    return reading_of(
        reading.detector, reading.dataset, spec, device=reading.device, precision=reading.precision
    )


def key_of_statistics(reading: Reading, design: Design, position: int, shards: int) -> str:
    """Digest of all that the statistics of a part depend on."""
    return store.key_of(
        {
            "version": _VERSION,
            "reading": reading.key,
            "part": [position, shards],
            "calibration": [design.permutations, design.groups, design.seed, design.kinds],
        }
    )


def read_statistics(
    reading: Reading,
    images: Sequence[Image],
    design: Design,
    *,
    decode_threads: int = 2,
    pixels: PixelCache | None = None,
    progress: Progress = lambda done, total, message: None,
    check: Callable[[], None] = lambda: None,
) -> Part:
    """What is gathered of every layer and level over some images; memory does not grow with their number."""
    gatherings = {place: Gathering(design) for place in reading.wanted}

    def take(batch: Batch) -> None:
        for place, gathering in gatherings.items():
            gathering.add(batch.rows, batch.vectors[place])

    account = read_into(
        take, reading, images, decode_threads=decode_threads, pixels=pixels, progress=progress, check=check
    )
    arrays: dict[str, np.ndarray] = {}
    for (layer, level), gathering in gatherings.items() if images else ():
        arrays |= {f"{layer}/{level}/{name}": array for name, array in _arrays(gathering.result()).items()}
    return Part(arrays, account.seconds, account.cost, tuple(account.warnings))


def gathered(reading: Reading, parts: Iterable[Part]) -> tuple[Places, Took]:
    """What all parts of a reading gathered, by layer and level; parts are looked at one by one."""
    places: Places = {}
    took = Took()
    for part in parts:
        took.add(part)
        for layer, level in reading.wanted if part.arrays else ():
            found = _restored(part.arrays, f"{layer}/{level}/")
            before = places.get((layer, level))
            places[layer, level] = found if before is None else before + found
    objects = {one.total.objects + one.total.bad for one in places.values()}
    if objects != {len(reading.objects)}:
        raise AssertionError(
            f"statistics of {objects} objects were gathered, {len(reading.objects)} are in the sample"
        )
    return places, took


def _arrays(found: Gathered) -> dict[str, np.ndarray]:
    arrays = {"point": found.point, "sums": found.sums, "weights": found.weights}
    for group, statistics in found.groups.items():
        m, boxes = statistics.moments, statistics.boxes
        own = {
            "numbers": np.array([m.objects, m.quartic, statistics.bad, statistics.largest], dtype=np.float64),
            "mean": statistics.mean,
            "scatter": lapack.dtrttp(m.scatter, uplo="L")[0],
            "cubic": m.cubic,
            "classes": statistics.classes,
            "counts": statistics.counts,
            "class_means": statistics.class_means,
        }
        if boxes is not None:
            own |= {
                "box_numbers": np.array([boxes.largest, boxes.bad], dtype=np.float64),
                "box_means": boxes.means,
                "box_scatter": boxes.scatter,
                "box_cross": boxes.cross,
            }
        arrays |= {f"groups/{group}/{name}": array for name, array in own.items()}
    return arrays


def _restored(arrays: dict[str, np.ndarray], prefix: str) -> Gathered:
    own: dict[str, np.ndarray] = {}
    groups: dict[int, dict[str, np.ndarray]] = defaultdict(dict)
    for name, array in arrays.items():
        if name.startswith(f"{prefix}groups/"):
            group, _, field = name.removeprefix(f"{prefix}groups/").partition("/")
            groups[int(group)][field] = array
        elif name.startswith(prefix):
            own[name.removeprefix(prefix)] = array
    return Gathered({group: _statistics(fields) for group, fields in groups.items()}, **own)


def _statistics(own: dict[str, np.ndarray]) -> Statistics:
    objects, quartic, bad, largest = own["numbers"].tolist()
    boxes = None
    if "box_means" in own:
        box_largest, box_bad = own["box_numbers"].tolist()
        boxes = BoxStatistics(
            own["box_means"], own["box_scatter"], own["box_cross"], box_largest, int(box_bad)
        )
    scatter = lapack.dtpttr(len(own["mean"]), own["scatter"], uplo="L")[0]
    return Statistics(
        mean=own["mean"],
        moments=Moments(int(objects), scatter, own["cubic"], quartic),
        classes=own["classes"],
        counts=own["counts"],
        class_means=own["class_means"],
        boxes=boxes,
        bad=int(bad),
        largest=largest,
    )
