"""How well single images went: detections above the score at which all of them together do best."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from worker.data.dataset import Dataset
from worker.evaluation.matching import FALSE, HIT, IGNORED, Matches


@dataclass(frozen=True)
class ImageScore:
    """Detections of one image at or above the threshold, at IoU .5. `f1` is None where nothing was to be found or said."""

    image_id: int
    hits: int
    false: int
    missed: int

    @property
    def f1(self) -> float | None:
        counted = 2 * self.hits + self.false + self.missed
        return 2 * self.hits / counted if counted else None


def best_threshold(matches: Matches) -> float | None:
    """The score from which on F1 over all images and classes is best, the highest of equals; None without detections.

    Detections on crowds and on objects to ignore do not count.
    """
    counted = matches.outcome != IGNORED
    scores, hits = matches.scores[counted], np.cumsum(matches.outcome[counted] == HIT)
    if not len(scores):
        return None
    f1 = 2 * hits / (np.arange(1, len(scores) + 1) + matches.objects.sum())
    # A threshold takes all detections of its score.
    last_of_score = np.append(scores[1:] != scores[:-1], True)
    places = np.flatnonzero(last_of_score)
    return float(scores[places[np.argmax(f1[places])]])


def image_scores(
    dataset: Dataset, image_ids: Sequence[int], matches: Matches, threshold: float | None
) -> list[ImageScore]:
    """One for each image, by id."""
    ids = np.array(sorted(set(image_ids)), dtype=np.int64)
    kept = matches.scores >= (np.inf if threshold is None else threshold)
    hits, false = (
        _counted(matches.image_ids[kept & (matches.outcome == outcome)], ids) for outcome in (HIT, FALSE)
    )
    objects = matches.truth[~dataset.aside[matches.truth]]
    missed = _counted(dataset.annotation_image_ids[objects], ids) - hits
    rows = zip(ids.tolist(), hits.tolist(), false.tolist(), missed.tolist(), strict=True)
    return [ImageScore(*row) for row in rows]


def _counted(values: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """How often each of the sorted ids occurs."""
    return np.bincount(np.searchsorted(ids, values), minlength=len(ids))


def best_and_worst(scores: Sequence[ImageScore], count: int) -> tuple[list[ImageScore], list[ImageScore]]:
    """At most `count` of the highest and of the lowest F1, no image in both.

    Among equals those with more hits, or more errors, come first, then by image id. Images without F1 are left out.
    """
    scored = [score for score in scores if score.f1 is not None]
    best = sorted(scored, key=lambda s: (-s.f1, -s.hits, s.image_id))[: min(count, (len(scored) + 1) // 2)]  # type: ignore[operator]
    rest = [score for score in scored if score not in best]
    worst = sorted(rest, key=lambda s: (s.f1, -(s.false + s.missed), s.image_id))[:count]
    return best, worst
