"""What a pretraining found."""

from typing import Any

from typing_extensions import TypedDict


class PretrainingResult(TypedDict, total=False):
    """Written by the jobs of a pretraining, one after the other: `learn`, or the last student, all but the last two."""

    recall: dict[str, Any]  # {"start": by kind and k, "end": {"proposals", "objects"}}
    pictures: int
    without_region: int
    held_out: dict[str, int]
    iterations: int
    finished: str
    warnings: list[str]
    self_training: dict[
        str, Any
    ]  # {"teacher", "rounds"}: what each said of the pictures, and its student's mAP
    cost: dict[str, float]
    comparison: dict[str, Any] | None
