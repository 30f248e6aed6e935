"""What a training gave."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from models_store.detector import Detector
from worker.evaluation.evaluate import Evaluation


@dataclass
class Trained:
    """`detector`: with the best weights, in evaluation mode. `curves`: points in order, each with `iteration`, `epoch`,
    `seconds` of training, `lr` (the highest), `loss`, `losses` by name (means since the point before), and where it was
    evaluated `val` with `map` and `ap50`. `best`: `iteration`, `epoch`, `map`, `ap50`. `finished`: `completed`,
    `plateau` (no better mAP for the plan's patience), `budget` or `paused` (the plan's stop; goes on with a later one).
    `val` is of the best weights; `test` None while paused or without test images. `start`: of the
    data-dependent initialisation, `factors` on the weights by fresh layer and `seconds`; empty where the plan
    has none. `image_s`: seconds of an evaluation for one picture, as far as this process evaluated. `peak_memory_bytes`: on
    CUDA what the allocator had at most, else None.
    """

    detector: Detector
    curves: list[dict[str, Any]]
    best: dict[str, Any]
    iterations: int
    seconds: float
    finished: str
    val: Evaluation
    test: Evaluation | None
    warnings: list[str] = field(default_factory=list)
    start: dict[str, Any] = field(default_factory=dict)
    image_s: float | None = None
    peak_memory_bytes: int | None = None
