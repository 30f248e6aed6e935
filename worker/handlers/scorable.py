"""What the metrics of a candidate are computed from: its features, or statistics gathered while they passed by."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from worker.features.cost import Cost
from worker.features.extract import Features
from worker.features.layers import SOURCE_LAYER, SOURCE_LEVEL
from worker.features.statistics import Places, design_of, without_source
from worker.handlers.calibration import calibration_of
from worker.handlers.candidate import InHand
from worker.handlers.features import Wanted, keeps_features
from worker.handlers.pool import per_candidate
from worker.metrics import METRICS, OF_SOURCE, FeatureSet, Score, score
from worker.metrics.base import RegionSet
from worker.metrics.gathering import Design, score_gathered
from worker.metrics.statistics import NEEDS_FEATURES
from worker.metrics.torch_scan import score_on_device
from worker.step import JobView, Step

Place = tuple[str, str]
NOT_KEPT = "features were not kept, only statistics of them: metrics that need the features are undefined"


def wanted_of(step: Step, hand: InHand, job: JobView) -> Wanted:
    """What a `score` or `shard` job is to get of the candidate; both decide alike."""
    request, shards = hand.ranking.request, job.payload.get("shards") or 1
    if keeps_features(request.get("keep_features"), hand.reading, step.settings):
        return Wanted(step, hand, shards)
    design = design_of(hand.reading, per_candidate(request["metrics"]), **calibration_of(request))
    return Wanted(step, replace(hand, reading=without_source(hand.reading)), shards, design)


@dataclass(frozen=True)
class Scorable:
    """One of `features` and `statistics`, and what they took: seconds by step, cost of an image, warnings.

    region_layers: where `regions` regions were read. object_pixels: the median side of an object, sqrt(w h), in pixels of the input.
    """

    step: Step
    features: Features | None
    statistics: Places | None
    design: Design | None
    device: str
    seconds: Mapping[str, float]
    cost: Cost
    warnings: tuple[str, ...]
    cached: bool
    region_layers: tuple[str, ...]
    regions: int
    object_pixels: float

    @classmethod
    def of(cls, wanted: Wanted) -> "Scorable":
        """Gets what is wanted. Raises CandidateFailed and whatever stops the job."""
        step, device, reading = wanted.step, wanted.hand.device, wanted.hand.reading
        about = {
            "region_layers": reading.region_layers,
            "regions": 0 if reading.regions is None else len(reading.regions),
            "object_pixels": float(np.median(reading.object_pixels)),
        }
        if wanted.design is None:
            found = wanted.features()
            return cls(
                step, found, None, None, device, found.seconds, found.cost, found.warnings, found.cached, **about,
            )  # fmt: skip
        places, took, cached = wanted.statistics()
        warnings = (*reading.warnings, *took.warnings, NOT_KEPT)
        return cls(
            step, None, places, wanted.design, device, took.seconds, took.cost, warnings, cached, **about,
        )  # fmt: skip

    def places(self, metrics: Sequence[str]) -> dict[Place, list[str]]:
        """What is scored where, in the order asked for.

        Metrics of the detector's own classes once; those of regions at the local level of the layers that regions are read
        from; the others at every layer and level.
        """
        read = self.statistics if self.features is None else self.features.layers
        places = {
            place: [name for name in metrics if name not in OF_SOURCE and (self._has_regions(place) or not of_regions(name))]
            for place in read
        }
        places[SOURCE_LAYER, SOURCE_LEVEL] = [name for name in metrics if name in OF_SOURCE]
        return {place: names for place, names in places.items() if names}

    def scores(
        self, place: Place, metrics: Sequence[str], calibration: Mapping[str, int]
    ) -> dict[str, Score]:
        if self.features is None:
            if place == (SOURCE_LAYER, SOURCE_LEVEL):
                return dict.fromkeys(metrics, Score(None, NEEDS_FEATURES, 0.0))
            return score_gathered(self.statistics[place], self.design, metrics, check=self.step.check)
        table = self._table(place)
        if table is None:
            reason = f"no source class probabilities: {self.features.no_source}"
            return dict.fromkeys(metrics, Score(None, reason, 0.0))
        found = FeatureSet(
            features=table,
            labels=self.features.labels,
            boxes=self.features.boxes,
            source_probabilities=self.features.source_probabilities,
            image_ids=self.features.image_ids,
            regions=self._regions(place) if any(map(of_regions, metrics)) else None,
        )
        return compute(found, metrics, self.device, check=self.step.check, **calibration)

    def facts(self, place: Place) -> dict[str, int | float | None]:
        """Of how many objects, regions and dimensions the scores at a place are, and how large objects are in the input."""
        if self.features is None:
            gathered = self.statistics.get(place)
            objects, dimensions = len(self.design.group), None if gathered is None else len(gathered.point)
        else:
            table = self._table(place)
            objects, dimensions = len(self.features.labels), None if table is None else table.shape[1]
        return {
            "objects": objects,
            "regions": self.regions if self._has_regions(place) else 0,
            "dimensions": dimensions,
            "object_pixels": round(self.object_pixels, 2),
        }

    def _has_regions(self, place: Place) -> bool:
        layer, level = place
        return level == "local" and layer in self.region_layers

    def _regions(self, place: Place) -> RegionSet:
        regions = self.features.regions
        return RegionSet(
            self.features.region_layers[place[0]], regions.labels, regions.deltas, regions.ious, regions.image_ids,
            regions.objects,
        )  # fmt: skip

    def _table(self, place: Place) -> Any:
        if place == (SOURCE_LAYER, SOURCE_LEVEL):
            return self.features.source_probabilities
        return self.features.layers[place]


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
