"""A dataset in canonical form, opened for reading."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from worker.data.canonical import VERSION

# what a dataset's supervision is where its annotations are boxes of objects
WITH_BOXES = ("boxes", "masks", "pseudo_boxes")


@dataclass(frozen=True, slots=True)
class Image:
    """One picture: its file, upright size in pixels and split (train, val or test)."""

    id: int
    path: Path
    width: int
    height: int
    split: str


@dataclass(frozen=True, eq=False)
class Dataset:
    """A dataset in canonical form.

    `images` are ordered by id; the columns run over all annotations, ordered by annotation id: `annotation_ids`,
    `annotation_image_ids` and `labels` (indices into `categories`, from 0) int64 (N,), `boxes` float64 (N, 4) xyxy in
    pixels of the upright picture, `iscrowd` bool (N,). With supervision `image_labels` the box of a label is the
    whole picture. `segmentations`, with supervision `masks` only, has each annotation's polygons or run lengths as the
    file keeps them (None for a crowd without); masks.py makes arrays of them. `ignored` bool (N,) says which
    are difficult or to ignore, None where none is. `scores` float64 (N,): how sure a teacher was of a box, NaN of one that a
    person drew; None but with supervision `pseudo_boxes`. `digest` follows pictures, splits and
    annotations only: equal digests mean equal ids and rows.
    """

    root: Path
    categories: tuple[str, ...]
    supervision: str
    images: tuple[Image, ...]
    annotation_ids: np.ndarray
    annotation_image_ids: np.ndarray
    labels: np.ndarray
    boxes: np.ndarray
    iscrowd: np.ndarray
    digest: str
    segmentations: tuple[list | dict | None, ...] | None = None
    ignored: np.ndarray | None = None
    scores: np.ndarray | None = None

    @property
    def has_boxes(self) -> bool:
        """Whether its annotations are boxes of objects: drawn by a person, or said by a teacher."""
        return self.supervision in WITH_BOXES

    @property
    def aside(self) -> np.ndarray:
        """Bool (N,): crowds and objects to ignore, which are neither learnt from nor counted."""
        return self.iscrowd if self.ignored is None else self.iscrowd | self.ignored


def open_dataset(root: Path) -> Dataset:
    """Open a folder that `ingest` wrote.

    Raises FileNotFoundError when it is none, ValueError when it was written by another version or points outside.
    """
    root = Path(root)
    path = root / "annotations.json"
    if not path.is_file():
        raise FileNotFoundError(
            f"{root} is no dataset in canonical form: it has no annotations.json; ingest it first"
        )
    content = json.loads(path.read_text(encoding="utf-8"))
    version = content.get("info", {}).get("detrank_version")
    if version != VERSION:
        raise ValueError(
            f"{path} has canonical form {version}, this program reads {VERSION}; ingest the dataset again"
        )
    rows = sorted(content["annotations"], key=lambda row: row["id"])
    bbox = np.array([row["bbox"] for row in rows], dtype=np.float64).reshape(-1, 4)
    columns = np.array(
        [(row["id"], row["image_id"], row["category_id"] - 1) for row in rows], dtype=np.int64
    ).reshape(-1, 3)
    return Dataset(
        root=root,
        categories=tuple(row["name"] for row in sorted(content["categories"], key=lambda row: row["id"])),
        supervision=content["info"]["supervision"],
        images=tuple(_image(root, row) for row in sorted(content["images"], key=lambda row: row["id"])),
        annotation_ids=columns[:, 0].copy(),
        annotation_image_ids=columns[:, 1].copy(),
        labels=columns[:, 2].copy(),
        boxes=np.concatenate([bbox[:, :2], bbox[:, :2] + bbox[:, 2:]], axis=1),
        iscrowd=np.array([bool(row["iscrowd"]) for row in rows], dtype=bool),
        digest=content["info"]["digest"],
        ignored=np.array([bool(row.get("ignore")) for row in rows], dtype=bool)
        if any(row.get("ignore") for row in rows)
        else None,
        scores=np.array([row.get("score", np.nan) for row in rows], dtype=np.float64)
        if content["info"]["supervision"] == "pseudo_boxes"
        else None,
        segmentations=tuple(row.get("segmentation") for row in rows)
        if content["info"]["supervision"] == "masks"
        else None,
    )


def _image(root: Path, row: dict) -> Image:
    name = PurePosixPath(row["file_name"])
    if name.is_absolute() or ".." in name.parts:
        raise ValueError(
            f"image {row['id']} of {root} has the file name {name}, which leaves the dataset's folder"
        )
    return Image(int(row["id"]), root / name, int(row["width"]), int(row["height"]), row["split"])


def sample_images(
    dataset: Dataset, max_images: int | None, seed: int, split: str | None = "train"
) -> tuple[Image, ...]:
    """At most `max_images` images of a split (None: of all) with at least one object that is no crowd nor to ignore, by id.

    The draw follows the dataset and the seed alone, so every candidate sees the same images. A dataset without any
    annotation gives all its images the same chance. Empty when the split is empty.
    """
    if max_images is not None and max_images < 1:
        raise ValueError(f"max_images must be at least 1 or None, got {max_images}")
    usable = set(dataset.annotation_image_ids[~dataset.aside].tolist())
    eligible: Sequence[Image] = [
        image
        for image in dataset.images
        if split in (None, image.split) and (image.id in usable or dataset.supervision == "none")
    ]
    if max_images is None or len(eligible) <= max_images:
        return tuple(eligible)
    chosen = np.random.default_rng(seed).permutation(len(eligible))[:max_images]
    return tuple(eligible[index] for index in sorted(chosen.tolist()))
