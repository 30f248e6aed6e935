"""True boxes of pictures that a teacher spoke about: of the same dataset, or of another one with the same pictures."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from worker.data.dataset import Dataset
from worker.data.restated import content_of
from worker.evaluation.prediction import Prediction


@dataclass(frozen=True, eq=False)
class Truth:
    """`ids`: image id of what the teacher spoke about to the image id in `dataset`; `labels`: its category to the category there.

    Boxes of a category that the truth does not have are not counted.
    """

    dataset: Dataset
    ids: Mapping[int, int]
    labels: Mapping[int, int]

    @property
    def image_ids(self) -> list[int]:
        """In `dataset`."""
        return sorted(self.ids.values())

    def of(self, found: Mapping[int, Prediction]) -> list[Prediction]:
        """What was said of the pictures whose truth is known, in the words of `dataset`; one for each."""
        return [self._restated(found.get(id), own) for id, own in sorted(self.ids.items())]

    def _restated(self, found: Prediction | None, image_id: int) -> Prediction:
        if found is None:
            return Prediction(image_id, np.zeros((0, 4)), np.zeros(0), np.zeros(0, np.int64))
        known = np.isin(found.labels, list(self.labels))
        labels = np.array([self.labels[label] for label in found.labels[known].tolist()], np.int64)
        return Prediction(image_id, found.boxes[known], found.scores[known], labels)


def own_truth(dataset: Dataset, image_ids: Collection[int]) -> Truth:
    """The boxes that people drew in the dataset itself."""
    labels = {label: label for label in range(len(dataset.categories))}
    return Truth(dataset, {id: id for id in image_ids}, labels)


def same_pictures(
    dataset: Dataset, image_ids: Collection[int], categories: Sequence[str], truth: Dataset
) -> Truth:
    """Pictures of equal content, and categories of equal name; `ids` is empty where no picture is in both."""
    wanted = set(image_ids)
    there = {digest: id for id, digest in content_of(truth).items()}
    ids = {
        id: there[digest] for id, digest in content_of(dataset).items() if id in wanted and digest in there
    }
    places = {name: label for label, name in enumerate(truth.categories)}
    return Truth(truth, ids, {label: places[name] for label, name in enumerate(categories) if name in places})
