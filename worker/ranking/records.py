"""What an ordering is made from and what it answers: plain values, no database and no tensors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from worker.metrics import Interval

# What of a score orders the candidates.
VALUE, GAIN = "value", "gain"


@dataclass(frozen=True)
class Scored:
    """A metric's value for one candidate at one layer and level; `value` None goes with a reason in `undefined`.

    z: against the null, None where there is none. interval: over images; where it is None, `notes` may say why.
    zero_point: the value of the same architecture with its initial weights, None where that is not known. gain_interval:
    of the gain, over the same images.
    """

    metric: str
    layer: str
    level: str
    value: float | None
    undefined: str | None = None
    z: float | None = None
    interval: Interval | None = None
    notes: tuple[str, ...] = ()
    zero_point: float | None = None
    gain_interval: Interval | None = None

    @property
    def known_value(self) -> float:
        """The value of a score that is known to have one."""
        if self.value is None:
            raise ValueError(f"{self.metric} at {self.layer} has no value: {self.undefined}")
        return self.value

    @property
    def gain(self) -> float | None:
        """What the weights bring: the value less its zero point. None where either is not known."""
        if self.value is None or self.zero_point is None:
            return None
        return self.value - self.zero_point

    def measured_by(self, quantity: str) -> Scored:
        """The score with VALUE or GAIN, and its interval, for its value."""
        return self if quantity == VALUE else replace(self, value=self.gain, interval=self.gain_interval)


@dataclass(frozen=True)
class Candidate:
    """A checkpoint in a ranking.

    error: why it has no scores, None where it ran; parameters, peak_memory_bytes, ms_per_image (of reading it), inference_ms,
    inference_memory_bytes (of finding the objects of one picture), training_s, training_memory_bytes, fits (of fine-tuning
    it): its cost, None where unknown; coco_box_map, rf100_vl_ap: published box mAP on COCO and RF100-VL, imagenet_top1: published accuracy, in
    per cent; untrained: names of layers with untrained weights;
    architecture: with its backbone where it takes any; object_pixels: the median side of an object, sqrt(w h), in pixels
    of its input; unread: what its file could not tell and may be read wrongly.
    """

    id: str
    name: str
    scores: tuple[Scored, ...] = ()
    error: str | None = None
    parameters: int | None = None
    peak_memory_bytes: int | None = None
    ms_per_image: float | None = None
    inference_ms: float | None = None
    inference_memory_bytes: int | None = None
    training_s: float | None = None
    training_memory_bytes: int | None = None
    fits: bool | None = None
    licence: str | None = None
    coco_box_map: float | None = None
    imagenet_top1: float | None = None
    rf100_vl_ap: float | None = None
    untrained: frozenset[str] = frozenset()
    architecture: str | None = None
    object_pixels: float | None = None
    unread: tuple[str, ...] = ()


@dataclass(frozen=True)
class RankBy:
    """Which score orders the candidates; what is None is chosen by the default rule.

    layer: a name, or `worker.ranking.rule.SIZE_MATCHED`, the backbone map that fits the size of the objects. quantity: GAIN,
    which needs zero points, or VALUE.
    """

    metric: str | None = None
    layer: str | None = None
    level: str | None = None
    quantity: str | None = None


@dataclass(frozen=True)
class Filters:
    """Limits a candidate must keep; None is no limit. `fits`: whether fine-tuning fits into the device's memory, as wanted.
    `licences` are the names allowed.
    """

    max_parameters: int | None = None
    max_memory_bytes: int | None = None
    max_ms_per_image: float | None = None
    max_inference_ms: float | None = None
    max_inference_memory_bytes: int | None = None
    max_training_s: float | None = None
    max_training_memory_bytes: int | None = None
    fits: bool | None = None
    licences: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Target:
    """What the scores were computed on: objects in the sample, by category; categories without objects included."""

    objects_by_category: Mapping[str, int]

    @property
    def objects(self) -> int:
        return sum(self.objects_by_category.values())


@dataclass(frozen=True)
class Row:
    """A place in the order. Equal values share a rank, and the next rank is skipped (1, 1, 3).

    near: ids of candidates that cannot be told apart from this one, of its group or not.
    z, interval and gain_interval (low, high), score_chance_of_highest, group (1, 2, ... in `Ordering.groups`), zero_point and gain:
    None where not known.
    static_ranks: rank of this candidate by each static baseline, None where the baseline has no value.
    """

    rank: int
    id: str
    name: str
    value: float
    near: tuple[str, ...] = ()
    static_ranks: Mapping[str, int | None] = field(default_factory=dict)
    z: float | None = None
    interval: tuple[float, float] | None = None
    score_chance_of_highest: float | None = None
    group: int | None = None
    zero_point: float | None = None
    gain: float | None = None
    gain_interval: tuple[float, float] | None = None


@dataclass(frozen=True)
class LeftOut:
    """A candidate without a place. code: failed, filtered, no_score or undefined."""

    id: str
    name: str
    code: str
    reason: str


@dataclass(frozen=True)
class Caution:
    """What to know before trusting the order; `code` is for programs."""

    code: str
    detail: str


@dataclass(frozen=True)
class Ordering:
    """The answer of a ranking; metric, layer and level are None when nothing could be ordered.

    quantity: what of that score orders, VALUE or GAIN. groups: ids in order, those of one group cannot be told apart from its first; only candidates with an interval.
    ties: groups of two or more, and runs of equal values without intervals; summary: the groups in a sentence;
    chosen_by: "request", "default rule" or, of the layer, "size of the objects"; static: names of the baselines with their values by candidate id.
    """

    metric: str | None
    layer: str | None
    level: str | None
    chosen_by: str
    rows: tuple[Row, ...]
    ties: tuple[tuple[str, ...], ...]
    left_out: tuple[LeftOut, ...]
    warnings: tuple[Caution, ...]
    static: Mapping[str, Mapping[str, float | None]]
    groups: tuple[tuple[str, ...], ...] = ()
    summary: str = ""
    quantity: str = VALUE
