"""A teacher that knows every object of a dataset, and some that are none."""

import numpy as np

from worker.data.dataset import Dataset
from worker.evaluation.prediction import Prediction


def of(dataset: Dataset, image_id: int) -> np.ndarray:
    return dataset.annotation_image_ids == image_id


def split(dataset: Dataset, name: str) -> list[int]:
    return [image.id for image in dataset.images if image.split == name]


class Knowing:
    """Finds every object of the pictures, shifted a little, and a line and a corner that are none; stands for `predictions_of`."""

    def __init__(self, dataset: Dataset, sure: float = 0.8) -> None:
        self.dataset, self.sure = dataset, sure

    def __call__(self, detector, images, pictures, image_size, *, threads, check) -> list[Prediction]:
        made = []
        for image in images:
            own = of(self.dataset, image.id)
            boxes = np.concatenate([self.dataset.boxes[own] + 1, [[0, 0, 60, 0.5], [0, 0, 9, 9]]])
            scores = np.array([self.sure] * int(own.sum()) + [0.9, 0.3])
            labels = np.concatenate([self.dataset.labels[own], [0, 0]])
            made.append(Prediction(image.id, boxes, scores, labels))
        return made
