"""Geometry of boxes: overlaps, and the deltas by which a detector's box head corrects a box."""

from __future__ import annotations

import numpy as np


def areas(boxes: np.ndarray) -> np.ndarray:
    """(...) areas of xyxy boxes (..., 4); 0 where an end lies before its beginning."""
    return _length(boxes[..., 0], boxes[..., 2]) * _length(boxes[..., 1], boxes[..., 3])


def shared_areas(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Areas of the intersections of xyxy boxes, (..., 4) each and broadcast against each other."""
    return _shared_length(a, b, 0) * _shared_length(a, b, 1)


def ious(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Intersection over union of xyxy boxes, (..., 4) each and broadcast; a box without area overlaps nothing."""
    shared = shared_areas(a, b)
    union = areas(a) + areas(b) - shared
    return np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)


def deltas_between(boxes: np.ndarray, true: np.ndarray) -> np.ndarray:
    """(n, 4) dx, dy, dw, dh that turn xyxy `boxes` (n, 4) into `true` (n, 4), all with an area.

    Source: arXiv 1311.2524, appendix C: the centres' distance over the box's sides, the log of the sides' ratios; without the
    constants (10, 10, 5, 5) by which implementations multiply them.
    """
    sides, true_sides = boxes[:, 2:] - boxes[:, :2], true[:, 2:] - true[:, :2]
    centres, true_centres = (boxes[:, 2:] + boxes[:, :2]) / 2, (true[:, 2:] + true[:, :2]) / 2
    return np.concatenate([(true_centres - centres) / sides, np.log(true_sides / sides)], axis=1)


def _shared_length(a: np.ndarray, b: np.ndarray, axis: int) -> np.ndarray:
    # Axis by axis: with both in one array, numpy's loops would run over two numbers each.
    return _length(np.maximum(a[..., axis], b[..., axis]), np.minimum(a[..., axis + 2], b[..., axis + 2]))


def _length(low: np.ndarray, high: np.ndarray) -> np.ndarray:
    return np.maximum(high - low, 0.0)
