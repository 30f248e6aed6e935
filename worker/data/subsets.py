"""Parts of a split with fewer labels: explicit lists of images and objects, so that every candidate and retry sees the same."""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from worker.data.dataset import Dataset

# The numbers of shots that few-shot detection is compared at (TFA), continued; each is filled with whole images.
SHOTS = (1, 2, 3, 5, 10, 30, 100, 300, 1000)


class Undrawable(ValueError):
    """The subset asked for does not exist; `code` is `bad_request`, `no_images` or `no_objects`, `detail` says what to change."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail


@dataclass(frozen=True)
class Subset:
    """`image_ids` in rising order; `annotation_ids` the only objects that count in them, rising, or None for all.

    `kind`: `all`, `fraction` or `shots`, with its `value`. `coverage`: category to its objects in the subset, crowds left
    out, 0 for those that are missing.
    """

    kind: str
    value: float | int | None
    seed: int
    image_ids: tuple[int, ...]
    annotation_ids: tuple[int, ...] | None
    coverage: dict[str, int]

    @property
    def missing(self) -> tuple[str, ...]:
        """Categories without an object in the subset."""
        return tuple(name for name, count in self.coverage.items() if not count)


def draw(
    dataset: Dataset,
    *,
    fraction: float | None = None,
    shots: int | None = None,
    seed: int = 0,
    split: str = "train",
) -> Subset:
    """A part of a split's images, or with neither `fraction` nor `shots` all of it.

    `fraction`, above 0 and at most 1: that share of all the split's n images, with and without objects. Their number
    is fraction * n rounded half up, computed in decimals as `fraction` is written, and at least 1.

    `shots`: k objects of every category, or all where a category has fewer; only these are kept, whatever else the
    images hold (arXiv 2003.06957, section 3.1, and its code). As there, images come in a random order for each category and an
    image with more objects of it than are still wanted is passed over, at 1, 2, 3, 5, 10, 30 ... shots; a k between
    two of these takes the first of what the next one adds. Where no whole image fits, the one with the fewest objects
    of the category is kept in part, and completed before another is opened. Crowds are neither counted nor kept.

    Both follow the dataset and the seed alone, and are nested: of one seed the smaller subset, images and objects, is
    part of the larger. Raises Undrawable.
    """
    if fraction is not None and shots is not None:
        raise Undrawable("bad_request", "give a fraction or shots, not both")
    images = sorted(image.id for image in dataset.images if image.split == split)
    if not images:
        raise Undrawable("no_images", f"the dataset has no images in its split {split!r}")
    objects = np.flatnonzero(np.isin(dataset.annotation_image_ids, images) & ~dataset.aside)
    objects = objects[np.argsort(dataset.annotation_ids[objects])]
    if shots is not None:
        return _of_shots(dataset, objects, shots, seed)
    kept = images if fraction is None else _share(images, fraction, seed)
    objects = objects[np.isin(dataset.annotation_image_ids[objects], kept)]
    if not len(objects) and dataset.supervision != "none":
        raise Undrawable(
            "no_objects",
            f"the {len(kept)} images drawn of {len(images)} hold no object: take a larger fraction or another seed",
        )
    kind = "all" if fraction is None else "fraction"
    return Subset(kind, fraction, seed, tuple(kept), None, _coverage(dataset, objects))


def _share(images: Sequence[int], fraction: float, seed: int) -> list[int]:
    if not 0 < fraction <= 1:
        raise Undrawable("bad_request", f"the fraction must be above 0 and at most 1, got {fraction}")
    count = max(1, int(Fraction(str(fraction)) * len(images) + Fraction(1, 2)))
    order = np.random.default_rng(seed).permutation(len(images))
    return sorted(images[place] for place in order[:count].tolist())


def _of_shots(dataset: Dataset, objects: np.ndarray, shots: int, seed: int) -> Subset:
    if shots < 1:
        raise Undrawable("bad_request", f"shots must be at least 1, got {shots}")
    kept: list[int] = []
    for label in range(len(dataset.categories)):
        own = objects[dataset.labels[objects] == label]
        kept += _in_turn(own, dataset.annotation_image_ids[own], shots, np.random.default_rng([seed, label]))
    if not kept:
        raise Undrawable("no_objects", "the split has no object to keep: crowds do not count")
    rows = np.array(sorted(kept))
    return Subset(
        "shots",
        shots,
        seed,
        tuple(sorted(set(dataset.annotation_image_ids[rows].tolist()))),
        tuple(sorted(dataset.annotation_ids[rows].tolist())),
        _coverage(dataset, rows),
    )


def _in_turn(rows: np.ndarray, image_ids: np.ndarray, shots: int, rng: np.random.Generator) -> list[int]:
    """The first `shots` of one category's objects in the order in which rising SHOTS take them."""
    ids = np.unique(image_ids)
    waiting = {image: rows[image_ids == image].tolist() for image in ids[rng.permutation(len(ids))].tolist()}
    taken: list[int] = []
    opened: int | None = None
    while len(taken) < shots and waiting:
        most = next((each for each in SHOTS if each > len(taken)), len(rows))
        for image, own in list(waiting.items()):
            if len(own) <= most - len(taken):
                taken += waiting.pop(image)
        if waiting and len(taken) < most:
            if opened not in waiting:
                opened = min(waiting, key=lambda image: len(waiting[image]))
            wanted = most - len(taken)
            taken += waiting[opened][:wanted]
            waiting[opened] = waiting[opened][wanted:]
    return taken[:shots]


def _coverage(dataset: Dataset, rows: np.ndarray) -> dict[str, int]:
    counts = np.bincount(dataset.labels[rows], minlength=len(dataset.categories))
    return dict(zip(dataset.categories, counts.tolist(), strict=True))
