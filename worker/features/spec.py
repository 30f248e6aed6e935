"""What is read of a dataset, before it is known of which detector."""

from __future__ import annotations

from dataclasses import dataclass

from worker.features.layers import DEFAULT_LEVELS
from worker.features.regions import RegionSampling


@dataclass(frozen=True)
class Spec:
    """What to extract.

    layers: names, ("all",) for every trained one, or None for the default; levels: "local", "global" or both;
    max_images: at most so many sampled images, None for all; image_size: shorter side in pixels, None for the
    checkpoint's own; seed: of the sample and of the regions; split: whose images, None for all splits;
    source_probabilities: also the detector's own class probabilities of every object; regions: how regions are drawn
    that are read beside the objects, None for none.
    """

    layers: tuple[str, ...] | None = None
    levels: tuple[str, ...] = DEFAULT_LEVELS
    max_images: int | None = None
    image_size: int | None = None
    seed: int = 0
    split: str | None = "train"
    source_probabilities: bool = False
    regions: RegionSampling | None = None
