"""What it costs to find the objects of one picture with a whole detector, up to its boxes."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

import numpy as np
import torch
from torch import nn

from models_store.detector import Detector
from models_store.sizes import Size
from worker.features.cost import Cost, Meter, known

MEASURES = "the whole detector, one picture at a time"
# The first of them is weighed. On a CPU that added less than a sixth to one of 0.9 s, so where it takes long it is enough;
# on CUDA it also loads kernels.
PASSES = 3
LONG_S = 0.25
# No class of no box is surer.
_NEVER = 1.1


def inference_cost(
    detector: Detector, picture: np.ndarray, image_size: Size | None, device: str | torch.device
) -> Cost:
    """Of a uint8 (h, w, 3) RGB picture: a first pass is weighed, the fastest of all is the time.

    A fresh head is unsure of all boxes and would leave thousands to be told apart, a trained one leaves few: so none is
    left, and what that saves a trained one is next to nothing.
    """
    size = detector.resized(picture.shape[0], picture.shape[1], image_size)
    meter = Meter(detector.module, torch.device(device), MEASURES)

    def find() -> None:
        detector.predictions([picture], image_size=image_size)

    with nothing_found(detector.module):
        for _ in range(PASSES):
            began = time.perf_counter()
            meter.run(find, 1, size)
            if meter.device.type == "cpu" and time.perf_counter() - began > LONG_S:
                break
    return known(meter.cost())


@contextlib.contextmanager
def nothing_found(module: nn.Module) -> Iterator[None]:
    """Within, a detector of torchvision's kind takes no box for sure enough."""
    heads = getattr(module, "roi_heads", module)
    before = getattr(heads, "score_thresh", None)
    if before is None:
        yield
        return
    heads.score_thresh = _NEVER
    try:
        yield
    finally:
        heads.score_thresh = before
