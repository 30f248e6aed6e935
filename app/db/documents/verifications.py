"""What a fine-tuning is asked for and came to."""

from typing import Any, NotRequired

from typing_extensions import TypedDict


class StopAt(TypedDict):
    """Where a verification pauses as a part of a search. conclude: with a look at test; timing: thrown away after it."""

    iterations: int
    seconds: NotRequired[float | None]
    conclude: NotRequired[bool]
    timing: NotRequired[bool]


class Evaluation(TypedDict):
    """Of worker/evaluation/evaluate.py's form what is computed with; callers are given all of it."""

    box: dict[str, float | None]  # COCO's numbers: map, ap50, ...
    images: int
    objects: int


class PartSeconds(TypedDict, total=False):
    """Of a worker, for a part of a search. worker_seconds: all in."""

    worker_seconds: float
    loading_s: float  # until the first step
    evaluating_s: float  # beside the steps of training


class VerificationResult(PartSeconds):
    """What the `verify` job writes; callers are given the evaluations whole."""

    val: Evaluation
    test: Evaluation | None
    best: dict[str, Any]  # the point of the curves that was chosen
    iterations: int
    finished: str  # completed, plateau, budget or paused
    warnings: list[str]
    reused_from: NotRequired[str]  # the verification whose result was taken over
    taught: NotRequired[dict[str, Any]]  # by a teacher: which, its confidence, how many pseudo boxes
