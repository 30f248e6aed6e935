"""A dataset whose pictures stay where they are: all annotations, and of every picture its name, size and mark, in columns."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from worker.data.dataset import Dataset, Image
from worker.data.formats.raw import RawBox, RawImage
from worker.data.sources.base import Pin
from worker.data.sources.texts import Texts
from worker.data.splits import SPLITS

VERSION = 1
_COLUMNS, _FACTS = "pinned.npz", "pinned.json"
_TEXTS = ("paths", "marks", "masks")


@dataclass(frozen=True, eq=False)
class Pinned:
    """n pictures by path, m annotations by picture; the id of each is its row, from 1.

    paths, marks: n texts; sizes int64 (n,) bytes; splits uint8 (n,) into SPLITS; declared int32 (n, 2) width and height as the
    annotations say, 0 where they do not; relative bool (n,): corners are fractions. owners int64 (m,): rows of pictures,
    rising; labels int64 (m,) into categories; corners float64 (m, 4) xyxy as they stand in the annotations; crowds, ignored
    bool (m,); whole bool (m,): a label of the whole picture, without corners; masks: m texts, JSON as a RawBox has it or empty.
    white: the value that is white in pictures of more than 8 bits, by those that were tried; None where each has its own.
    """

    url: str
    format: str
    categories: tuple[str, ...]
    supervision: str
    paths: Texts
    sizes: np.ndarray
    marks: Texts
    splits: np.ndarray
    declared: np.ndarray
    relative: np.ndarray
    owners: np.ndarray
    labels: np.ndarray
    corners: np.ndarray
    crowds: np.ndarray
    ignored: np.ndarray
    whole: np.ndarray
    masks: Texts
    white: float | None = None

    FILES: ClassVar = (_COLUMNS, _FACTS)

    @property
    def digest(self) -> str:
        """sha256 over everything but the place: what was read, and by what each picture is known again."""
        digest = hashlib.sha256(
            json.dumps(["pinned", VERSION, self.format, self.supervision, self.categories]).encode()
        )
        for name, column in sorted(self._columns().items()):
            digest.update(f"{name} {column.dtype.str} {column.shape}\n".encode())
            digest.update(np.ascontiguousarray(column).data)
        return digest.hexdigest()

    def pin(self, image_id: int) -> Pin:
        return Pin(int(self.sizes[image_id - 1]), self.marks[image_id - 1])

    def raw(self, image_id: int) -> RawImage:
        """The picture as its reader handed it over; the reference of a box is the id of the annotation."""
        row = image_id - 1
        first, last = np.searchsorted(self.owners, [row, row + 1]).tolist()
        declared = tuple(self.declared[row].tolist())
        image = RawImage(
            self.paths[row],
            SPLITS[int(self.splits[row])],
            declared=declared if all(declared) else None,
            relative=bool(self.relative[row]),
        )
        for place in range(first, last):
            category = self.categories[int(self.labels[place])]
            if self.whole[place]:
                image.labels.append(category)
                continue
            mask = self.masks[place]
            image.boxes.append(
                RawBox(
                    category,
                    tuple(self.corners[place].tolist()),
                    image.path,
                    str(place + 1),
                    bool(self.crowds[place]),
                    json.loads(mask) if mask else None,
                    bool(self.ignored[place]),
                )
            )
        return image

    def label_id(self, image_id: int, category: str) -> int | None:
        """The id of the picture's own label of this category; None where it has none."""
        for place in range(*np.searchsorted(self.owners, [image_id - 1, image_id]).tolist()):
            if self.whole[place] and self.categories[int(self.labels[place])] == category:
                return place + 1
        return None

    def as_dataset(self, root: Path) -> Dataset:
        """For drawing samples and counting: no picture is there, sizes are those declared or 1, boxes not yet placed."""
        sizes = np.maximum(self.declared, 1).tolist()
        splits = self.splits.tolist()
        return Dataset(
            root=root,
            categories=self.categories,
            supervision=self.supervision,
            images=tuple(
                Image(id, root, width, height, SPLITS[split])
                for id, ((width, height), split) in enumerate(zip(sizes, splits, strict=True), start=1)
            ),
            annotation_ids=np.arange(1, len(self.owners) + 1),
            annotation_image_ids=self.owners + 1,
            labels=self.labels,
            boxes=np.where(self.whole[:, None], np.array([0.0, 0.0, 1.0, 1.0]), self.corners),
            iscrowd=self.crowds,
            digest=self.digest,
            ignored=self.ignored,
        )

    def save(self, folder: Path) -> None:
        """Writes the columns and the facts into a folder."""
        np.savez(folder / _COLUMNS, allow_pickle=False, **self._columns())
        facts = {"version": VERSION, "digest": self.digest} | {
            name: getattr(self, name) for name in ("url", "format", "categories", "supervision", "white")
        }
        (folder / _FACTS).write_text(json.dumps(facts), encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> Pinned:
        """Raises ValueError where another version wrote it."""
        facts = json.loads((folder / _FACTS).read_text(encoding="utf-8"))
        if facts.pop("version") != VERSION:
            raise ValueError(f"{folder} was pinned by another version of this program: make the dataset anew")
        facts.pop("digest")
        with np.load(folder / _COLUMNS, allow_pickle=False) as found:
            columns = dict(found)
        for name in _TEXTS:
            columns[name] = Texts(columns.pop(name), columns.pop(f"{name}_ends"))
        return cls(**(facts | {"categories": tuple(facts["categories"])}), **columns)

    def _columns(self) -> dict[str, np.ndarray]:
        found: dict[str, np.ndarray] = {}
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if isinstance(value, Texts):
                found |= {field.name: value.letters, f"{field.name}_ends": value.ends}
            elif isinstance(value, np.ndarray):
                found[field.name] = value
        return found


def pinned_of(
    url: str,
    format: str,
    categories: Sequence[str],
    supervision: str,
    images: Sequence[RawImage],
    pins: Sequence[Pin],
    splits: Sequence[str],
) -> Pinned:
    """The columns of images in the order of their paths, with their pins and splits."""
    of_category = {name: index for index, name in enumerate(categories)}
    owners: list[int] = []
    labels: list[int] = []
    corners: list[tuple[float, ...]] = []
    crowds: list[bool] = []
    ignored: list[bool] = []
    whole: list[bool] = []
    masks: list[str] = []
    for row, image in enumerate(images):
        for box in image.boxes:
            owners.append(row)
            labels.append(of_category[box.category])
            corners.append(box.corners)
            crowds.append(box.crowd)
            ignored.append(box.ignore)
            whole.append(False)
            masks.append("" if box.segmentation is None else json.dumps(box.segmentation))
        for label in dict.fromkeys(image.labels):
            owners.append(row)
            labels.append(of_category[label])
            corners.append((math.nan,) * 4)
            crowds.append(False)
            ignored.append(False)
            whole.append(True)
            masks.append("")
    return Pinned(
        url,
        format,
        tuple(categories),
        supervision,
        paths=Texts.of(image.path for image in images),
        sizes=np.array([pin.size for pin in pins], np.int64),
        marks=Texts.of(pin.mark for pin in pins),
        splits=np.array([SPLITS.index(split) for split in splits], np.uint8),
        declared=np.array([_size(image) for image in images], np.int32).reshape(-1, 2),
        relative=np.array([image.relative for image in images], bool),
        owners=np.array(owners, np.int64),
        labels=np.array(labels, np.int64),
        corners=np.array(corners, np.float64).reshape(-1, 4),
        crowds=np.array(crowds, bool),
        ignored=np.array(ignored, bool),
        whole=np.array(whole, bool),
        masks=Texts.of(masks),
    )


def _size(image: RawImage) -> tuple[int, int]:
    # a size that no picture can have says nothing
    return image.declared if image.declared and max(image.declared) < 1 << 31 else (0, 0)
