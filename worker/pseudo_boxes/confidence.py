"""What score a box needs: as given, by F1 where people drew boxes on validation pictures, or what is usual."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from worker.data.dataset import Dataset
from worker.evaluation.prediction import Prediction
from worker.pseudo_boxes.quality import chosen_confidence


def confidence_for(
    dataset: Dataset, found: Mapping[int, Prediction], given: float | None, *, usual: float
) -> tuple[float, float | None]:
    """(confidence, its F1 on validation or None where it was not chosen there)."""
    if given is not None:
        return given, None
    ids = [image.id for image in dataset.images if image.split == "val" and image.id in found]
    known = dataset.supervision in ("boxes", "masks")
    # where no picture has an object there is no F1, and every confidence would be as good
    if not known or not np.isin(dataset.annotation_image_ids[~dataset.aside], ids).any():
        return usual, None
    return chosen_confidence(dataset, ids, [found[id] for id in ids])
