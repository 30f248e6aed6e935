"""Deltas applied, to hold those of regions against the true boxes."""

import numpy as np


def corrected(boxes: np.ndarray, deltas: np.ndarray) -> np.ndarray:
    """The boxes (n, 4) that `deltas` (n, 4) make of xyxy `boxes` (n, 4): the inverse of `deltas_between`."""
    sides = boxes[:, 2:] - boxes[:, :2]
    centres = (boxes[:, 2:] + boxes[:, :2]) / 2 + deltas[:, :2] * sides
    halves = sides * np.exp(deltas[:, 2:]) / 2
    return np.concatenate([centres - halves, centres + halves], axis=1)
