"""Many small datasets out of a large one, by classes that occur together: the protocol of arXiv 2306.15306 for Open Images."""

import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from worker.data.dataset import Dataset, Image
from worker.data.subsets import Undrawable

SPLITS = ("train", "test")
TRIES_A_SET = 50


@dataclass(frozen=True)
class BootstrapSet:
    """One dataset to be: `labels` into the source's categories, ids of its images by split, `objects` of each class in each split."""

    labels: tuple[int, ...]
    image_ids: dict[str, tuple[int, ...]]
    objects: dict[str, tuple[int, ...]]


def choose(
    dataset: Dataset,
    *,
    sets: int = 20,
    classes: int = 5,
    train: int = 1000,
    test: int = 200,
    class_images: int | None = None,
    seed: int = 0,
) -> list[BootstrapSet]:
    """`sets` choices of `classes` classes and `train` + `test` images that hold at least one object of them.

    Classes that lie in more than `class_images` images take part; None is a sixth of the images of a set, the
    published 200 of 1200. A list of classes is one at random and others drawn without repetition with chances in
    proportion to how often they occur with it: the sum over images of the product of the two counts. Lists with too few
    images, or a class without an object in one of the splits, are dropped, as are repeated ones. Images come from all
    splits of the source; the same image may be in several sets, never in both splits of one. Crowds do not count.

    Follows dataset and seed alone. Raises Undrawable: `bad_request`, `too_few_classes`, `too_few_images`.
    """
    if min(sets, train, test) < 1 or classes < 2:
        raise Undrawable(
            "bad_request", "at least one set, 2 classes, one training and one test image are wanted"
        )
    if not dataset.has_boxes:
        raise Undrawable("bad_request", f"the dataset has {dataset.supervision}, no boxes to choose by")
    ids = np.array(sorted(image.id for image in dataset.images), dtype=np.int64)
    counts = _counts(dataset, ids)
    usable = np.flatnonzero(
        (counts > 0).sum(axis=0) > ((train + test) // 6 if class_images is None else class_images)
    )
    if len(usable) < classes:
        raise Undrawable(
            "too_few_classes",
            f"{len(usable)} of {len(dataset.categories)} classes lie in enough images, {classes} are wanted: ask for fewer "
            "classes, or lower class_images",
        )
    together = (counts.T @ counts).astype(np.float64)
    np.fill_diagonal(together, 0.0)
    rng = np.random.default_rng(seed)
    found: dict[tuple[int, ...], BootstrapSet] = {}
    most = 0
    for _ in range(TRIES_A_SET * sets):
        labels = _draw_classes(rng, together, usable, classes)
        if labels is None or labels in found:
            continue
        rows = np.flatnonzero(counts[:, labels].any(axis=1))
        most = max(most, len(rows))
        if len(rows) < train + test:
            continue
        rows = rng.permutation(rows)[: train + test]
        parts = {"train": rows[:train], "test": rows[train:]}
        objects = {
            split: tuple(counts[part][:, labels].sum(axis=0).tolist()) for split, part in parts.items()
        }
        if min(min(per_class) for per_class in objects.values()):
            chosen = {split: tuple(sorted(ids[part].tolist())) for split, part in parts.items()}
            found[labels] = BootstrapSet(labels, chosen, objects)
        if len(found) == sets:
            return list(found.values())
    raise Undrawable(
        "too_few_images",
        f"{len(found)} of {sets} sets with {train} + {test} images of {classes} classes were found; the largest list of "
        f"classes lies in {most} images: ask for fewer images or sets, or more classes",
    )


def _counts(dataset: Dataset, ids: np.ndarray) -> np.ndarray:
    """(images, classes) int64 objects, crowds left out."""
    counts = np.zeros((len(ids), len(dataset.categories)), dtype=np.int64)
    plain = ~dataset.aside
    np.add.at(counts, (np.searchsorted(ids, dataset.annotation_image_ids[plain]), dataset.labels[plain]), 1)
    return counts


def _draw_classes(
    rng: np.random.Generator, together: np.ndarray, usable: np.ndarray, classes: int
) -> tuple[int, ...] | None:
    first = int(usable[rng.integers(len(usable))])
    weights = together[first, usable]
    if np.count_nonzero(weights) < classes - 1:
        return None
    others = rng.choice(usable, size=classes - 1, replace=False, p=weights / weights.sum())
    return tuple(sorted([first, *others.tolist()]))


def write_coco(dataset: Dataset, choice: BootstrapSet, out: Path) -> Path:
    """Write a choice as COCO into the new folder `out`: `annotations/instances_<split>.json` and `<split>/*`.

    Only annotations of its classes are kept, crowds of them too; pictures are hard links where that is possible.
    """
    images = {image.id: image for image in dataset.images}
    categories = [
        {"id": number, "name": dataset.categories[label]}
        for number, label in enumerate(choice.labels, start=1)
    ]
    numbers = {label: number for number, label in enumerate(choice.labels, start=1)}
    for split in SPLITS:
        folder = out / split
        folder.mkdir(parents=True)
        chosen = [images[image_id] for image_id in choice.image_ids[split]]
        image_rows = [_image_row(number, image) for number, image in enumerate(chosen, start=1)]
        content = {
            "info": {"description": f"{len(numbers)} classes that occur together, chosen by detrank"},
            "images": image_rows,
            "annotations": _annotation_rows(dataset, chosen, numbers),
            "categories": categories,
        }
        for row, image in zip(image_rows, chosen, strict=True):
            _link(image.path, folder / row["file_name"])
        (out / "annotations").mkdir(exist_ok=True)
        (out / "annotations" / f"instances_{split}.json").write_text(
            json.dumps(content, allow_nan=False), encoding="utf-8"
        )
    return out


def _image_row(number: int, image: Image) -> dict:
    name = f"{number:06d}{image.path.suffix}"
    return {"id": number, "file_name": name, "width": image.width, "height": image.height}


def _annotation_rows(dataset: Dataset, images: Sequence[Image], numbers: dict[int, int]) -> list[dict]:
    rows: list[dict] = []
    for image_number, image in enumerate(images, start=1):
        for row in np.flatnonzero(dataset.annotation_image_ids == image.id).tolist():
            label = int(dataset.labels[row])
            if label not in numbers:
                continue
            x1, y1, x2, y2 = (round(value, 3) for value in dataset.boxes[row].tolist())
            width, height = round(x2 - x1, 3), round(y2 - y1, 3)
            entry = {
                "id": len(rows) + 1,
                "image_id": image_number,
                "category_id": numbers[label],
                "bbox": [x1, y1, width, height],
                "area": round(width * height, 3),
                "iscrowd": int(dataset.iscrowd[row]),
            }
            if dataset.ignored is not None and dataset.ignored[row]:
                entry["ignore"] = 1
            segmentation = dataset.segmentations[row] if dataset.segmentations is not None else None
            rows.append(entry if segmentation is None else entry | {"segmentation": segmentation})
    return rows


def _link(source: Path, destination: Path) -> None:
    try:
        os.link(source, destination)
    except OSError:
        shutil.copyfile(source, destination)
