"""What is kept beside a score."""

from typing import NotRequired

from typing_extensions import TypedDict

Interval = list[float]  # [low, high]


class Null(TypedDict):
    mean: float
    std: float
    permutations: int


class ScoreFacts(TypedDict, total=False):
    """Of how many rows a score is. object_pixels: the median side of an object in the input."""

    objects: int
    regions: int
    dimensions: int | None
    object_pixels: float


class ScoreDetails(ScoreFacts):
    """What is kept beside a score's value."""

    notes: list[str]
    null: NotRequired[Null | None]
    z: NotRequired[float | None]
    interval: NotRequired[Interval | None]
    zero_point: NotRequired[float | None]
    gain: NotRequired[float | None]
    gain_interval: NotRequired[Interval | None]
