"""What a belief is made from and what it says: plain values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

# (metric, quantity): standardised within the pool of one target, then the mean over the maps where it is defined.
SCORES: tuple[tuple[str, str], ...] = (
    ("detection_evidence_single", "gain"),
    ("detection_evidence", "gain"),
    ("logme_deltas", "gain"),
    ("logme_iou", "gain"),
    ("logme_regions", "gain"),
    ("detection_evidence_single", "value"),
)
MAPS = ("backbone.c3", "backbone.c4")
# The share of a look at validation images at the very end, which is not yet the test mAP that a share of 1 stands for.
AT_THE_END = 1 - 1e-6
# Shorter side that pictures were trained at in the studies, so the budget of whoever names none.
PIXELS = 256
# Parts of what is believed of a candidate on a target, in the order in which they are said.
SOURCES = ("prior", "target", "candidate", "object_sizes", "scores", "pair")


@dataclass(frozen=True)
class TargetFacts:
    """A dataset and a budget. key: equal for equal both. images: that are trained on; objects: of an image, on average;
    sides: how large they are (`worker.data.object_sizes`); pixels: shorter side that images are trained at. None where not
    known."""

    key: str
    images: int | None = None
    classes: int | None = None
    objects: float | None = None
    sides: tuple[float, ...] | None = None
    pixels: int | None = None


@dataclass(frozen=True)
class Facts:
    """A candidate. key: equal for equal weights; architecture: with its body; parameters: those that were trained before;
    detector: its head was trained too; untrained: nothing was. scores: of SCORES, standardised within its pool; one that is
    not there says nothing. stride: pixels between two cells of the finest map that its head reads, None where not known."""

    key: str
    architecture: str
    parameters: int | None = None
    detector: bool = False
    untrained: bool = False
    scores: Mapping[tuple[str, str], float] = field(default_factory=dict)
    stride: int | None = None


@dataclass(frozen=True)
class Observed:
    """What a fine-tuning showed. map: of its test images at its end, or with `share` below 1 of its validation images at
    that share of its steps. id: of what it is known from, to name it and to take it back; `own`: from this workspace."""

    map: float
    share: float = 1.0
    id: str | None = None
    own: bool = False


@dataclass(frozen=True)
class Evidence:
    """One fine-tuning of one candidate on one target."""

    candidate: Facts
    target: TargetFacts
    observed: Observed


@dataclass(frozen=True)
class Believed:
    """Of one candidate. mean, low, high: mAP that one training will reach, with the interval's level. parts: what each of
    SOURCES adds to the mean, on the square root of mAP, where they add up. architecture_seen: something was learned from it."""

    key: str
    mean: float
    low: float
    high: float
    chance_of_best: float
    parts: Mapping[str, float]
    architecture_seen: bool = True
    far: tuple[str, ...] = ()


@dataclass(frozen=True)
class Belief:
    """All candidates of a pool. level: of the intervals; used: ids of own trainings that it stands on; warnings: of the
    target."""

    level: float
    candidates: tuple[Believed, ...]
    used: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
