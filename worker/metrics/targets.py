"""What is to be predicted: classes and boxes, checked once and with the absent class ids taken out."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from worker.metrics.base import FeatureSet, Undefined


@dataclass(frozen=True, eq=False)
class Targets:
    """Labels 0..C-1 without gaps, and what else belongs to the objects.

    labels: (N,) int64, positions in `classes`. classes: (C,) the class ids that have objects, ascending.
    counts: (C,) objects per class. boxes: (N, 4) or None. probabilities: (N, Cs) or None.
    """

    labels: np.ndarray
    classes: np.ndarray
    counts: np.ndarray
    boxes: np.ndarray | None
    probabilities: np.ndarray | None

    @classmethod
    def of(cls, features: FeatureSet) -> Targets:
        classes, labels, counts = np.unique(features.labels, return_inverse=True, return_counts=True)
        return cls(labels.reshape(-1), classes, counts, features.boxes, features.source_probabilities)

    def permuted(self, rng: np.random.Generator) -> Targets:
        """The same targets handed to other objects; label and box of a target stay together.

        The source probabilities stay with the features: they are the candidate's, not the target's.
        """
        order = rng.permutation(len(self.labels))
        boxes = None if self.boxes is None else self.boxes[order]
        return Targets(self.labels[order], self.classes, self.counts, boxes, self.probabilities)

    @cached_property
    def by_class(self) -> np.ndarray:
        """(N,) row numbers, sorted by class; class c holds `offsets[c]:offsets[c + 1]`."""
        return np.argsort(self.labels, kind="stable")

    @cached_property
    def offsets(self) -> np.ndarray:
        return np.concatenate([[0], np.cumsum(self.counts)])

    def rows_of(self, c: int) -> np.ndarray:
        return self.by_class[self.offsets[c] : self.offsets[c + 1]]

    def indicators(self) -> np.ndarray:
        """(N, C) float64 one-hot labels."""
        out = np.zeros((len(self.labels), len(self.classes)))
        out[np.arange(len(self.labels)), self.labels] = 1.0
        return out

    @cached_property
    def columns(self) -> np.ndarray:
        """(N, C) one-hot labels, then (where there are usable boxes) the four box columns."""
        if self.boxes is None or not np.isfinite(self.boxes).all():
            return self.indicators()
        return np.hstack([self.indicators(), self.boxes])

    def several_classes(self) -> None:
        """Raise Undefined unless at least two classes have objects."""
        if len(self.classes) == 0:
            raise Undefined("there are no objects")
        if len(self.classes) == 1:
            raise Undefined(f"only one class ({self.classes[0]}) has objects: there is nothing to tell apart")

    def require_boxes(self) -> np.ndarray:
        """(N, 4) float64 boxes; raises Undefined where there are none or some are not finite."""
        if self.boxes is None:
            raise Undefined("no boxes were given: pass `boxes` (N, 4), x1 y1 x2 y2 divided by the image size")
        boxes = np.asarray(self.boxes, dtype=np.float64)
        bad = int((~np.isfinite(boxes)).any(axis=1).sum())
        if bad:
            raise Undefined(f"{bad} of {len(boxes)} boxes hold NaN or infinity: remove those objects")
        return boxes

    def require_probabilities(self) -> np.ndarray:
        """(N, Cs) float64 rows that sum to one; raises Undefined where there are none."""
        if self.probabilities is None:
            raise Undefined(
                "no source probabilities: the candidate has no source head, or it was not run on the objects"
            )
        theta = np.asarray(self.probabilities, dtype=np.float64)
        if theta.shape[1] == 0:
            raise Undefined("source probabilities have no columns: the source head has no classes")
        if not np.isfinite(theta).all() or (theta < 0).any():
            raise Undefined("source probabilities hold negative, NaN or infinite values")
        if (np.abs(theta.sum(axis=1) - 1) > 1e-3).any():
            raise Undefined("source probabilities do not sum to 1 in every row: divide each row by its sum")
        return theta

    def absent_note(self) -> tuple[str, ...]:
        """A note on the class ids below the largest that have no object; empty where there are none."""
        if len(self.classes) == 0 or self.classes[-1] + 1 == len(self.classes):
            return ()
        missing = int(self.classes[-1]) + 1 - len(self.classes)
        gaps = np.setdiff1d(np.arange(min(int(self.classes[-1]), 10_000)), self.classes)[:8]
        shown = ", ".join(map(str, gaps)) + (", ..." if missing > len(gaps) else "")
        return (f"{missing} class ids without objects were ignored: {shown}",)

    def box_range_note(self) -> tuple[str, ...]:
        """A note where the boxes are not normalised: LogME on boxes shifts by the log of the scale."""
        if self.boxes is not None and len(self.boxes) and np.nanmax(np.abs(self.boxes)) > 1.5:
            return ("boxes are not within [0, 1]: the value is shifted by the log of their scale",)
        return ()
