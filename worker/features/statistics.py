"""Statistics of a reading, gathered while it runs, so that its features need not be kept; in parts, and put together."""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Unpack, cast

import numpy as np
from scipy.linalg import lapack

from worker.data.dataset import Image
from worker.features import cache as store
from worker.features.layers import REGION_LEVEL
from worker.features.reading import Batch, HowToRead, Progress, Reading, read_into, reading_of
from worker.features.shards import ReadPart, Took
from worker.metrics.base import RegionSet, Rows
from worker.metrics.gathering import Design, Gathered, Gathering
from worker.metrics.moments import Moments
from worker.metrics.statistics import BoxStatistics, Statistics

Places = dict[tuple[str, str], Gathered]

# Goes up whenever what is gathered, or how it is written, changes.
_VERSION = 2


def design_of(reading: Reading, metrics: Sequence[str], **calibration: int) -> Design:
    """The design for a reading's objects and regions; `permutations`, `groups` and `seed` as for `score`."""
    objects, drawn = reading.objects, reading.regions
    regions = None
    if drawn is not None:
        nothing = np.empty((len(drawn), 0))
        regions = RegionSet(nothing, drawn.labels, drawn.deltas, drawn.ious, drawn.image_ids, drawn.objects)
    return Design.of(
        objects.labels, objects.normalised, objects.image_ids, metrics, regions=regions, **calibration
    )


def without_source(reading: Reading) -> Reading:
    """The reading of the features alone: nothing that metrics need of source probabilities can be added up."""
    spec = dataclasses.replace(reading.spec, source_probabilities=False)
    return reading_of(
        reading.detector, reading.dataset, spec, device=reading.device, precision=reading.precision
    )


def key_of_statistics(reading: Reading, design: Design, position: int, shards: int) -> str:
    """Digest of all that the statistics of a part depend on."""
    kinds = {rows: of_regions.kinds for rows, of_regions in design.regions.items()}
    asked = design.calibration
    return store.key_of(
        {
            "version": _VERSION,
            "reading": reading.key,
            "part": [position, shards],
            "calibration": [asked.permutations, asked.groups, asked.seed, design.kinds, kinds],
        }
    )


def read_statistics(
    reading: Reading,
    images: Sequence[Image],
    design: Design,
    *,
    progress: Progress = lambda done, total, message: None,
    **how: Unpack[HowToRead],
) -> ReadPart:
    """What is gathered of every layer and level over some images; memory does not grow with their number.

    Regions are gathered with the objects of the local level, where that was asked for.
    """
    gatherings = {place: Gathering(design) for place in reading.wanted}

    def take(batch: Batch) -> None:
        for place, gathering in gatherings.items():
            gathering.add(batch.rows, batch.vectors[place])
        for layer, vectors in batch.region_vectors.items():
            if (layer, REGION_LEVEL) in gatherings:
                gatherings[layer, REGION_LEVEL].add_regions(batch.region_rows, vectors)

    account = read_into(take, reading, images, progress=progress, **how)
    arrays: dict[str, np.ndarray] = {}
    for (layer, level), gathering in gatherings.items() if images else ():
        arrays |= {f"{layer}/{level}/{name}": array for name, array in _arrays(gathering.result()).items()}
    return ReadPart(arrays, account.seconds, account.cost, tuple(account.warnings))


def gathered(reading: Reading, parts: Iterable[ReadPart]) -> tuple[Places, Took]:
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
    _check_regions(reading, places)
    return places, took


def _check_regions(reading: Reading, places: Places) -> None:
    for (layer, level), found in places.items():
        if reading.regions is None or level != REGION_LEVEL or layer not in reading.region_layers:
            continue
        drawn = {"regions": len(reading.regions), "jittered": int(reading.regions.jittered.sum())}
        for rows, own in found.regions.items():
            count = own.total.objects + own.total.bad
            if count != drawn[rows]:
                raise AssertionError(f"statistics of {count} of {drawn[rows]} regions were gathered ({rows})")


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
    for rows, inner in found.regions.items():
        arrays |= {f"rows/{rows}/{name}": array for name, array in _arrays(inner).items()}
    return arrays


def _restored(arrays: dict[str, np.ndarray], prefix: str) -> Gathered:
    own: dict[str, np.ndarray] = {}
    kinds: set[Rows] = set()
    groups: dict[int, dict[str, np.ndarray]] = defaultdict(dict)
    for name, array in arrays.items():
        if name.startswith(f"{prefix}groups/"):
            group, _, field = name.removeprefix(f"{prefix}groups/").partition("/")
            groups[int(group)][field] = array
        elif name.startswith(f"{prefix}rows/"):
            kinds.add(cast(Rows, name.removeprefix(f"{prefix}rows/").partition("/")[0]))
        elif name.startswith(prefix):
            own[name.removeprefix(prefix)] = array
    statistics = {group: _statistics(fields) for group, fields in groups.items()}
    regions = {rows: _restored(arrays, f"{prefix}rows/{rows}/") for rows in sorted(kinds)}
    return Gathered(statistics, regions=regions, **own)


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
