"""Which classes a picture holds, as a dataset says it: its image labels, or its boxes with their places not looked at."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from worker.data.dataset import Dataset
from worker.pseudo_boxes.pseudo_boxes import Unteachable

Present = dict[int, np.ndarray]


def present_of(dataset: Dataset, image_ids: Iterable[int]) -> Present:
    """Image id to (C,) bool for those of the pictures that have a class. Boxes, where there are any, are not looked at.

    Raises Unteachable `unknown_class` where the dataset has no classes, `no_labels` where no picture has one.
    """
    if not dataset.categories:
        raise Unteachable("unknown_class", "the dataset names no class: give labels with their names")
    wanted = set(image_ids)
    found: Present = {}
    # A crowd is a group of the class: the class is in the picture.
    for image_id, label in zip(dataset.annotation_image_ids.tolist(), dataset.labels.tolist(), strict=True):
        if image_id in wanted:
            found.setdefault(image_id, np.zeros(len(dataset.categories), bool))[label] = True
    return _some(found, len(wanted))


def check_pictures_of_classes(present: Present, names: Sequence[str], least: int) -> None:
    """Raises Unteachable `lonely_class` for classes that occur, in fewer than `least` pictures."""
    counts = np.sum(list(present.values()), axis=0)
    lonely = [
        f"{name} ({count})" for name, count in zip(names, counts.tolist(), strict=True) if 0 < count < least
    ]
    if lonely:
        raise Unteachable(
            "lonely_class",
            f"too few pictures of {', '.join(lonely[:10])}: what is common to the pictures of a class is learned, from at "
            f"least {least}; send more, leave the class out, or set least_pictures to go on all the same",
        )


def always_there(present: Present, names: Sequence[str]) -> list[str]:
    """Classes that are in every picture: their labels tell nothing apart."""
    everywhere = np.all(list(present.values()), axis=0)
    return [name for name, one in zip(names, everywhere.tolist(), strict=True) if one]


def _some(found: Present, pictures: int) -> Present:
    if not found:
        raise Unteachable(
            "no_labels", f"none of the {pictures} pictures has a label: there is no class to find in them"
        )
    return dict(sorted(found.items()))
