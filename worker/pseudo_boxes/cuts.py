"""Regions of a picture by cutting what a self-supervised transformer sees: normalised cuts at several scales, several cuts each.

After the published pseudo-box generator of a weakly supervised DETR and TokenCut (arXiv 2202.11539): tokens whose attention
times value is alike belong together, what the class token looks at may be an object.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy import ndimage
from scipy.cluster.vq import kmeans2

from models_store.detector import Detector
from worker.pseudo_boxes.attention import Tokens, tokens_of
from worker.pseudo_boxes.normalised_cuts import affinity_of, cut_vectors

VERSION = "cuts/1"
# Parts of the map of what may be an object, as published.
LOOKED_AT, ALIKE = 0.8, 0.2


@dataclass(frozen=True)
class CutSettings:
    """`scales`: shorter sides in pixels. `threshold`: similarity above which tokens are joined. `vectors`: of the cut, from the
    second on; each divides the picture at its mean, and all together in `clusters` groups by k-means (`seed`).

    Kept is a connected part with a mean objectness of at least `least` that is longer than a patch on both sides.
    """

    scales: tuple[int, ...] = (224, 384)
    threshold: float = 0.2
    vectors: int = 5
    clusters: tuple[int, ...] = (2, 5, 10)
    least: float = 0.1
    seed: int = 5


def cut_boxes(detector: Detector, pixels: np.ndarray, settings: CutSettings = CutSettings()) -> np.ndarray:
    """(n, 4) float32 xyxy in [0, 1], half-open, the highest objectness first; the same for every call.

    `pixels` uint8 (h, w, 3) RGB. Raises Unteachable `no_attention`.
    """
    found = [boxes_of(tokens_of(detector, pixels, scale), settings) for scale in settings.scales]
    rows = np.concatenate([np.zeros((0, 5)), *found])
    return rows[np.argsort(-rows[:, 4], kind="stable"), :4].astype(np.float32)


def boxes_of(tokens: Tokens, settings: CutSettings) -> np.ndarray:
    """(n, 5) float64: xyxy in [0, 1] and objectness, of the parts of one scale, without repeats."""
    height, width = tokens.attention.shape
    objectness = objectness_of(tokens)
    _, vectors = cut_vectors(affinity_of(tokens.vectors, settings.threshold), settings.vectors)
    found: dict[tuple[int, int, int, int], float] = {}
    for groups in _groupings(vectors, settings):
        for label in np.unique(groups):
            parts, _ = ndimage.label(groups.reshape(height, width) == label)
            means = ndimage.mean(objectness, parts, np.arange(1, parts.max() + 1))
            for place, mean in zip(ndimage.find_objects(parts), np.atleast_1d(means), strict=True):
                rows, columns = place
                long = rows.stop - rows.start > 1 and columns.stop - columns.start > 1
                if long and mean >= settings.least:
                    key = (columns.start, rows.start, columns.stop, rows.stop)
                    found[key] = max(found.get(key, 0.0), float(mean))
    extent = (width, height, width, height)
    table = [
        [*(side / whole for side, whole in zip(box, extent, strict=True)), mean]
        for box, mean in found.items()
    ]
    return np.array(table).reshape(-1, 5)


def objectness_of(tokens: Tokens) -> np.ndarray:
    """(h, w) in [0, 1]: four parts of what is looked at, one of how much else is alike; each brought to [0, 1]."""
    alike = tokens.vectors @ tokens.vectors.sum(axis=0)
    return LOOKED_AT * _unit(tokens.attention) + ALIKE * _unit(alike.reshape(tokens.attention.shape))


def _groupings(vectors: np.ndarray, settings: CutSettings) -> Iterator[np.ndarray]:
    """Each (N,) int: which group a token is in."""
    for column in vectors.T:
        yield (column > column.mean()).astype(np.int64)
    if not vectors.shape[1]:
        return
    for count in settings.clusters:
        if count <= len(vectors):
            # An empty group is only one fewer.
            yield kmeans2(vectors, count, minit="++", rng=settings.seed, missing="warn")[1]


def _unit(values: np.ndarray) -> np.ndarray:
    low, high = float(values.min()), float(values.max())
    return (
        np.zeros_like(values, np.float64)
        if high - low < 1e-12
        else (values.astype(np.float64) - low) / (high - low)
    )
