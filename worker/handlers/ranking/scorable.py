"""What the metrics of a candidate are computed from: its features, or statistics gathered while they passed by."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from app.db.documents import ScoreFacts
from worker.attempt import Attempt, ClaimedJob
from worker.features.cost import Cost, known
from worker.features.extract import Features
from worker.features.layers import SOURCE_LAYER, SOURCE_LEVEL
from worker.features.statistics import Places, design_of, without_source
from worker.handlers.ranking.calibration import calibration_of
from worker.handlers.ranking.candidate import InHand
from worker.handlers.ranking.features import Wanted, keeps_features
from worker.handlers.ranking.pool import per_candidate
from worker.metrics import METRICS, OF_SOURCE, FeatureSet, Score, score
from worker.metrics.base import RegionSet
from worker.metrics.gathering import Design, score_gathered
from worker.metrics.on_device import score_on_device
from worker.metrics.statistics import NEEDS_FEATURES

Place = tuple[str, str]
NOT_KEPT = "features were not kept, only statistics of them: metrics that need the features are undefined"


def wanted_of(attempt: Attempt, hand: InHand, job: ClaimedJob) -> Wanted:
    """What a `score` or `shard` job is to get of the candidate; both decide alike."""
    request, shards = hand.ranking.request, job.payload.get("shards") or 1
    if keeps_features(request.get("keep_features"), hand.reading, attempt.settings):
        return Wanted(attempt, hand, shards)
    design = design_of(hand.reading, per_candidate(request["metrics"]), **calibration_of(request))
    return Wanted(attempt, replace(hand, reading=without_source(hand.reading)), shards, design)


@dataclass(frozen=True)
class PlaceStatistics:
    """What was gathered by layer and level while the features passed by, and what it was gathered for."""

    places: Places
    design: Design


@dataclass(frozen=True)
class Expense:
    """The cost of getting it: seconds by step, cost of an image, warnings, and whether it existed before."""

    seconds: Mapping[str, float]
    cost: Cost
    warnings: tuple[str, ...]
    cached: bool


@dataclass(frozen=True)
class Scorable:
    """What a candidate's scores are computed from, and what getting it took.

    region_layers: where `regions` regions were read. object_pixels: the median side of an object, sqrt(w h), in pixels of the input.
    """

    attempt: Attempt
    read: Features | PlaceStatistics
    account: Expense
    device: str
    region_layers: tuple[str, ...]
    regions: int
    object_pixels: float

    @classmethod
    def of(cls, wanted: Wanted) -> "Scorable":
        """Gets what is wanted. Raises CandidateFailed and whatever stops the job."""
        reading = wanted.hand.reading
        read: Features | PlaceStatistics
        if wanted.design is None:
            read = wanted.features()
            account = Expense(read.seconds, read.cost, read.warnings, read.cached)
        else:
            places, took, cached = wanted.statistics()
            read = PlaceStatistics(places, wanted.design)
            warnings = (*reading.warnings, *took.warnings, NOT_KEPT)
            account = Expense(took.seconds, known(took.cost), warnings, cached)
        return cls(
            wanted.attempt,
            read,
            account,
            wanted.hand.device,
            region_layers=reading.region_layers,
            regions=0 if reading.regions is None else len(reading.regions),
            object_pixels=float(np.median(reading.object_pixels)),
        )

    def places(self, metrics: Sequence[str]) -> dict[Place, list[str]]:
        """What is scored where, in the order asked for.

        Metrics of the detector's own classes once; those of regions at the local level of the layers that regions are read
        from; the others at every layer and level.
        """
        there = self.read.places if isinstance(self.read, PlaceStatistics) else self.read.layers
        places = {
            place: [
                name
                for name in metrics
                if name not in OF_SOURCE and (self._has_regions(place) or not of_regions(name))
            ]
            for place in there
        }
        places[SOURCE_LAYER, SOURCE_LEVEL] = [name for name in metrics if name in OF_SOURCE]
        return {place: names for place, names in places.items() if names}

    def scores(
        self, place: Place, metrics: Sequence[str], calibration: Mapping[str, int]
    ) -> dict[str, Score]:
        """Scores of `metrics` at a place, with nulls and intervals by `calibration`; without any where that is empty."""
        read = self.read
        if isinstance(read, PlaceStatistics):
            if place == (SOURCE_LAYER, SOURCE_LEVEL):
                return dict.fromkeys(metrics, Score(None, NEEDS_FEATURES, 0.0))
            return score_gathered(
                read.places[place],
                read.design,
                metrics,
                calibrated=bool(calibration),
                check=self.attempt.check,
            )
        table = _table(read, place)
        if table is None:
            reason = f"no source class probabilities: {read.no_source}"
            return dict.fromkeys(metrics, Score(None, reason, 0.0))
        found = FeatureSet(
            features=table,
            labels=read.labels,
            boxes=read.boxes,
            source_probabilities=read.source_probabilities,
            image_ids=read.image_ids,
            regions=_regions(read, place) if any(map(of_regions, metrics)) else None,
        )
        return compute(found, metrics, self.device, check=self.attempt.check, **calibration)

    def facts(self, place: Place) -> ScoreFacts:
        """The numbers of objects, regions and dimensions behind the scores at a place, and the size of objects in the input."""
        if isinstance(self.read, PlaceStatistics):
            gathered = self.read.places.get(place)
            objects, dimensions = (
                len(self.read.design.targets.labels),
                None if gathered is None else len(gathered.point),
            )
        else:
            table = _table(self.read, place)
            objects, dimensions = len(self.read.labels), None if table is None else table.shape[1]
        return {
            "objects": objects,
            "regions": self.regions if self._has_regions(place) else 0,
            "dimensions": dimensions,
            "object_pixels": round(self.object_pixels, 2),
        }

    def _has_regions(self, place: Place) -> bool:
        layer, level = place
        return level == "local" and layer in self.region_layers


def _regions(read: Features, place: Place) -> RegionSet | None:
    found = read.regions
    if found is None:
        return None
    return RegionSet(
        read.region_layers[place[0]], found.labels, found.deltas, found.ious, found.image_ids, found.objects
    )


def _table(read: Features, place: Place) -> np.ndarray | None:
    if place == (SOURCE_LAYER, SOURCE_LEVEL):
        return read.source_probabilities
    return read.layers[place]


def of_regions(metric: str) -> bool:
    return METRICS[metric].rows != "objects"


def compute(features: FeatureSet, metrics: Sequence[str], device: str, **asked: Any) -> dict[str, Score]:
    """Scores, on a CUDA device where there is one with room: the same numbers to 1e-9."""
    if not device.startswith("cuda"):
        return score(features, metrics, **asked)
    try:
        return score_on_device(features, metrics, device=device, **asked)
    except torch.OutOfMemoryError:
        torch.cuda.empty_cache()
        return score(features, metrics, **asked)
