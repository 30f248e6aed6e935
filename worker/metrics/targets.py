"""What is to be predicted: classes and boxes, checked once and with the absent class ids taken out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np

from worker.metrics.arrays import Floats, Ints
from worker.metrics.base import FeatureSet, Undefined
from worker.metrics.columns import TargetColumns, beside

Kind = Literal["classes", "boxes", "unified"]


@dataclass(frozen=True, eq=False)
class Targets:
    """Labels 0..C-1 without gaps, and what else belongs to the objects.

    labels: (N,) int64, positions in `classes`. classes: (C,) the class ids that have objects, ascending.
    counts: (C,) objects per class. boxes: (N, K) or None: x1 y1 x2 y2 of objects (K = 4), other continuous
    targets of regions. probabilities: (N, Cs) or None.
    """

    labels: Ints
    classes: Ints
    counts: Ints
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

    def of_others(self, index: Ints) -> Targets:
        """The targets of the objects at `index`, in the numbering of all classes; `counts` stay those of all."""
        boxes = None if self.boxes is None else self.boxes[index]
        return Targets(self.labels[index], self.classes, self.counts, boxes, None)

    def rows(self, index: Ints) -> Targets:
        """The targets of some objects; classes left without objects drop out."""
        kept, labels, counts = np.unique(self.labels[index], return_inverse=True, return_counts=True)
        boxes, theta = (None if a is None else a[index] for a in (self.boxes, self.probabilities))
        return Targets(labels.reshape(-1), self.classes[kept], counts, boxes, theta)

    @cached_property
    def by_class(self) -> Ints:
        """(N,) row numbers, sorted by class; class c holds `offsets[c]:offsets[c + 1]`."""
        return np.asarray(np.argsort(self.labels, kind="stable"), np.int64)

    @cached_property
    def offsets(self) -> Ints:
        return np.concatenate([[0], np.cumsum(self.counts)])

    def rows_of(self, c: int) -> Ints:
        return self.by_class[self.offsets[c] : self.offsets[c + 1]]

    @cached_property
    def has_boxes(self) -> bool:
        """Whether there are boxes and all are finite."""
        return self.boxes is not None and bool(np.isfinite(self.boxes).all())

    def columns(self, kind: Kind) -> TargetColumns:
        """classes: C one-hot columns. boxes: the K continuous ones. unified: KC, column Kc + j holds coordinate j
        of the boxes of class c and 0 elsewhere. Boxes must be usable."""
        n = len(self.labels)
        if kind == "classes":
            return TargetColumns(self.labels[:, None], np.ones((n, 1)), len(self.counts))
        boxes = np.asarray(self.boxes, dtype=np.float64)
        width = boxes.shape[1]
        coordinates = np.arange(width)
        if kind == "boxes":
            return TargetColumns(np.broadcast_to(coordinates, (n, width)), boxes, width)
        return TargetColumns(width * self.labels[:, None] + coordinates, boxes, width * len(self.counts))

    @cached_property
    def main_columns(self) -> TargetColumns:
        """The class columns, then (where there are usable boxes) the box columns."""
        kinds: Sequence[Kind] = ("classes", "boxes") if self.has_boxes else ("classes",)
        return beside([self.columns(kind) for kind in kinds])

    @cached_property
    def box_moments(self) -> tuple[Floats, Floats]:
        """(K,) means of the boxes and their (K, K) scatter around them. Boxes must be usable."""
        boxes = np.asarray(self.boxes, dtype=np.float64)
        means = boxes.mean(axis=0)
        apart = boxes - means
        return means, apart.T @ apart

    def several_classes(self) -> None:
        """Raise Undefined unless at least two classes have objects."""
        if len(self.classes) == 0:
            raise Undefined("there are no objects")
        if len(self.classes) == 1:
            raise Undefined(f"only one class ({self.classes[0]}) has objects: there is nothing to tell apart")

    def require_labels(self) -> Ints:
        """(N,) labels of at least two classes; raises Undefined."""
        self.several_classes()
        return self.labels

    def check_boxes(self, what: str = "boxes", of: str = "objects") -> None:
        """Raise Undefined where there are no boxes or some are not finite; `what` they are, and `of` what."""
        if self.boxes is None:
            raise Undefined("no boxes were given: pass `boxes` (N, 4), x1 y1 x2 y2 divided by the image size")
        if not self.has_boxes:
            bad = int((~np.isfinite(self.boxes)).any(axis=1).sum())
            raise Undefined(f"{bad} of {len(self.boxes)} {what} hold NaN or infinity: remove those {of}")

    def require_probabilities(self) -> Floats:
        """(N, Cs) float64 rows that sum to one; raises Undefined where there are none."""
        if self.probabilities is None:
            raise Undefined(
                "no source probabilities: the candidate has no source head, or it was not run on the objects"
            )
        theta = np.asarray(self.probabilities, dtype=np.float64)
        if theta.shape[1] == 0:
            raise Undefined("source probabilities have no columns: the source head has no classes")
        sums = theta.sum(axis=1)  # not finite where an entry is not
        if not np.isfinite(sums).all() or theta.min(initial=0.0) < 0:
            raise Undefined("source probabilities hold negative, NaN or infinite values")
        if (np.abs(sums - 1) > 1e-3).any():
            raise Undefined("source probabilities do not sum to 1 in every row: divide each row by its sum")
        return theta

    def absent_note(self, first: int = 0) -> tuple[str, ...]:
        """A note on the class ids below the largest that have no object; empty where there are none.

        first: the number that stands for class id 0 here.
        """
        classes = self.classes[self.classes >= first] - first
        if len(classes) == 0 or classes[-1] + 1 == len(classes):
            return ()
        missing = int(classes[-1]) + 1 - len(classes)
        gaps = np.setdiff1d(np.arange(min(int(classes[-1]), 10_000)), classes)[:8]
        shown = ", ".join(map(str, gaps)) + (", ..." if missing > len(gaps) else "")
        return (f"{missing} class ids without objects were ignored: {shown}",)

    def box_range_note(self) -> tuple[str, ...]:
        """A note where the boxes are not normalised: LogME on boxes shifts by the log of the scale."""
        if self.boxes is not None and np.abs(self.boxes).max(initial=0.0) > 1.5:
            return ("boxes are not within [0, 1]: the value is shifted by the log of their scale",)
        return ()
