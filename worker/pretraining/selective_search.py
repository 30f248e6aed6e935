"""Regions of a picture by selective search (Uijlings et al., IJCV 104, 2013), through OpenCV's contributed modules."""

from __future__ import annotations

from functools import cache

import cv2
import numpy as np

# DETReg squashes a picture to this before it searches; its authors found native resolution worse.
SIDE = 128
VERSION = f"selective_search/1/{SIDE}/opencv {cv2.__version__}"


def selective_search(pixels: np.ndarray) -> np.ndarray:
    """(n, 4) float32 xyxy in [0, 1]: the regions of the `fast` mode, largest first; the same for every call.

    `pixels` uint8 (h, w, 3) RGB. OpenCV draws the order of its regions from a generator that nobody can seed, while
    their set is always the same: the set is what is returned, and whoever wants an order draws one (order.py).
    """
    squashed = cv2.resize(pixels, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    _one_thread_each()
    search = cv2.ximgproc.segmentation.createSelectiveSearchSegmentation()
    search.setBaseImage(np.ascontiguousarray(squashed[..., ::-1]))
    search.switchToSelectiveSearchFast()
    found = np.unique(np.asarray(search.process(), np.int64).reshape(-1, 4), axis=0)
    areas = found[:, 2] * found[:, 3]
    found = found[np.argsort(-areas, kind="stable")]
    corners = np.concatenate([found[:, :2], found[:, :2] + found[:, 2:]], axis=1)
    return (corners / SIDE).clip(0, 1).astype(np.float32)


@cache
def _one_thread_each() -> None:
    """Pictures are searched in threads of ours; threads inside of them would only wait for each other."""
    cv2.setNumThreads(1)
