"""Synthetic detection sets from small glyphs, after the generator of 'Transferability metrics for object detection' (arXiv 2306.15306).

The published recipe, with what it lacked: a seed, bounded retries, labels from 1 with names, test pictures whose
glyphs were never seen in training. Style `published` is the paper's (grey on black, added and clipped at 255);
`scenes` puts turned, coloured glyphs on uneven coloured ground with clutter.
"""

import json
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import PIL.Image
import PIL.ImageDraw

from worker.data.glyphs import Glyphs

_MAX_OVERLAP = 0.25  # IoU of two squares, as published
_RETRIES = 100
_FAINT = 48  # of 255: below it a glyph's fringe is not visible on uneven ground
_SPLITS = ("train", "test")

Box = tuple[int, int, int, int]
Scene = tuple[np.ndarray, list[tuple[int, Box]]]


def _overlap(a: Box, b: Box) -> float:
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    areas = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1])
    return width * height / (areas - width * height)


@dataclass(frozen=True)
class Scenes:
    """How scenes look: squares of `image_size` pixels with at most `max_objects` in each.

    Squares of objects have a side in [min_size, max_size) pixels; boxes are tightened to the visible glyph.
    """

    image_size: int = 128
    min_size: int = 15
    max_size: int = 50
    max_objects: int = 5
    style: Literal["published", "scenes"] = "published"

    def check(self) -> None:
        """Raises ValueError for sizes that do not fit together and for an unknown style."""
        if not 1 <= self.min_size < self.max_size <= self.image_size + 1:
            raise ValueError(
                f"1 <= min_size < max_size <= image_size + 1 is wanted, got {self.min_size}, {self.max_size}, {self.image_size}"
            )
        if self.max_objects < 1:
            raise ValueError(f"max_objects must be at least 1, got {self.max_objects}")
        if self.style not in ("published", "scenes"):
            raise ValueError(f"style is published or scenes, got {self.style!r}")


def _free_square(rng: np.random.Generator, taken: Sequence[Box], look: Scenes) -> Box | None:
    for _ in range(_RETRIES):
        side = int(rng.integers(look.min_size, look.max_size))
        x, y = (int(value) for value in rng.integers(0, look.image_size - side + 1, size=2))
        square = x, y, x + side, y + side
        if all(_overlap(square, other) < _MAX_OVERLAP for other in taken):
            return square
    return None


def _stamp(glyph: np.ndarray, side: int, angle: float) -> np.ndarray:
    picture = PIL.Image.fromarray(glyph)
    if angle:
        picture = picture.rotate(angle, PIL.Image.Resampling.BICUBIC)
    return np.asarray(picture.resize((side, side), PIL.Image.Resampling.BILINEAR))


def _tight(stamp: np.ndarray, square: Box, faint: int) -> Box | None:
    rows, columns = np.flatnonzero((stamp > faint).any(axis=1)), np.flatnonzero((stamp > faint).any(axis=0))
    if not len(rows):
        return None
    x, y = square[:2]
    return x + int(columns[0]), y + int(rows[0]), x + int(columns[-1]) + 1, y + int(rows[-1]) + 1


def _ground(rng: np.random.Generator, size: int) -> np.ndarray:
    """Uneven coloured ground with strokes, float64 (size, size, 3) in about 0..255."""
    base = rng.uniform(45, 205) + rng.normal(0, 22, size=3)
    coarse = base + rng.normal(0, 20, size=(6, 6, 1)) + rng.normal(0, 9, size=(6, 6, 3))
    coarse = np.clip(coarse, 0, 255).astype(np.uint8)
    smooth = np.asarray(
        PIL.Image.fromarray(coarse).resize((size, size), PIL.Image.Resampling.BICUBIC)
    ).astype(np.float64)
    strokes = PIL.Image.new("L", (size, size))
    draw = PIL.ImageDraw.Draw(strokes)
    for _ in range(int(rng.integers(3, 8))):
        ends = rng.integers(-size // 4, size + size // 4, size=4).tolist()
        draw.line(ends, fill=int(rng.integers(90, 255)), width=int(rng.integers(1, 4)))
    smooth += np.asarray(strokes, dtype=np.float64)[..., None] / 255 * rng.normal(0, 45, size=3)
    return smooth + rng.normal(0, 4, size=(size, size, 1))


def _ink(rng: np.random.Generator, below: np.ndarray) -> np.ndarray:
    """A colour that stands out from the mean colour below it by at least 70 grey levels."""
    grey = np.array([0.299, 0.587, 0.114])
    for _ in range(_RETRIES):
        colour = rng.uniform(0, 255, size=3)
        if abs((colour - below) @ grey) >= 70:
            return colour
    return np.full(3, 255.0 if below @ grey < 128 else 0.0)


def _scene(rng: np.random.Generator, glyphs: Glyphs, pool: np.ndarray, look: Scenes) -> Scene:
    scenes, size = look.style == "scenes", look.image_size
    canvas = _ground(rng, size) if scenes else np.zeros((size, size))
    taken: list[Box] = []
    objects: list[tuple[int, Box]] = []
    for _ in range(int(rng.integers(1, look.max_objects + 1))):
        square = _free_square(rng, taken, look)
        if square is None:
            continue
        index = int(pool[rng.integers(len(pool))])
        angle = float(rng.uniform(-20, 20)) if scenes else 0.0
        stamp = _stamp(glyphs.images[index], square[2] - square[0], angle)
        box = _tight(stamp, square, _FAINT if scenes else 0)
        if box is None:
            continue
        x1, y1, x2, y2 = square
        if scenes:
            alpha = np.clip(stamp.astype(np.float64) / 200, 0, 1)[..., None]
            below = canvas[y1:y2, x1:x2]
            canvas[y1:y2, x1:x2] = (1 - alpha) * below + alpha * _ink(rng, below.mean(axis=(0, 1)))
        else:
            canvas[y1:y2, x1:x2] += stamp
        taken.append(square)
        objects.append((int(glyphs.labels[index]), box))
    return np.clip(canvas, 0, 255).astype(np.uint8), objects


def _pools(rng: np.random.Generator, labels: np.ndarray, counts: dict[str, int]) -> dict[str, np.ndarray]:
    """Indices of the glyphs of each split: disjoint, every class in both as far as it has two glyphs."""
    share = counts["test"] / max(sum(counts.values()), 1)
    train, test = [], []
    for label in np.unique(labels):
        members = rng.permutation(np.flatnonzero(labels == label))
        cut = min(max(round(len(members) * share), int(share > 0)), max(len(members) - 1, 0))
        test.append(members[:cut] if cut or not share else members)
        train.append(members[cut:])
    return {"train": np.sort(np.concatenate(train)), "test": np.sort(np.concatenate(test))}


def _check(glyphs: Glyphs) -> None:
    images, labels = glyphs.images, glyphs.labels
    if images.dtype != np.uint8 or images.ndim != 3 or labels.shape != images.shape[:1] or not len(images):
        raise ValueError(
            f"glyphs must be uint8 (N, h, w) with labels (N,), N > 0; got {images.dtype} {images.shape} and {labels.shape}"
        )
    if labels.min() < 0 or labels.max() >= len(glyphs.names):
        raise ValueError(
            f"labels run from {labels.min()} to {labels.max()}, but there are {len(glyphs.names)} names (labels count from 0)"
        )


def synth(
    out: Path,
    glyphs: Glyphs,
    look: Scenes = Scenes(),
    *,
    images_train: int,
    images_test: int,
    seed: int = 0,
    layout: Literal["coco", "mnist"] = "coco",
) -> Path:
    """Write a synthetic detection set into the folder `out` and return it.

    `layout` coco writes `annotations/instances_<split>.json` beside `<split>/*.png`, mnist `<split>/images/*.png`, `<split>/labels/*.txt`
    and `classes.txt`; labels in the files count from 1. The same arguments give the same bytes.

    Raises ValueError for arrays or sizes that do not fit together.
    """
    _check(glyphs)
    look.check()
    if layout not in ("coco", "mnist"):
        raise ValueError(f"layout is coco or mnist, got {layout!r}")
    counts = {"train": images_train, "test": images_test}
    pools = _pools(np.random.default_rng(seed), glyphs.labels, counts)
    out.mkdir(parents=True, exist_ok=True)
    for number, split in enumerate(_SPLITS):
        scenes: list[list[tuple[int, Box]]] = []
        folder = out / split / "images" if layout == "mnist" else out / split
        if counts[split]:
            folder.mkdir(parents=True, exist_ok=True)
        for index in range(counts[split]):
            rng = np.random.default_rng([seed, number, index])
            pixels, objects = _scene(rng, glyphs, pools[split], look)
            PIL.Image.fromarray(pixels).save(folder / f"{index:06d}.png", compress_level=3)
            scenes.append(objects)
        if scenes and layout == "coco":
            _write_coco(
                out / "annotations" / f"instances_{split}.json", scenes, glyphs.names, look.image_size
            )
        elif scenes:
            _write_mnist(out / split / "labels", scenes)
    if layout == "mnist":
        (out / "classes.txt").write_text("".join(f"{name}\n" for name in glyphs.names), encoding="utf-8")
    return out


def _write_coco(
    path: Path, scenes: Sequence[Sequence[tuple[int, Box]]], names: Sequence[str], image_size: int
) -> None:
    annotations: list[dict[str, Any]] = []
    for image_id, objects in enumerate(scenes, start=1):
        for label, (x1, y1, x2, y2) in objects:
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image_id,
                    "category_id": label + 1,
                    "bbox": [x1, y1, x2 - x1, y2 - y1],
                    "area": (x2 - x1) * (y2 - y1),
                    "iscrowd": 0,
                }
            )
    content = {
        "info": {"description": "synthetic scenes of small glyphs, made by detrank"},
        "images": [
            {"id": index + 1, "file_name": f"{index:06d}.png", "width": image_size, "height": image_size}
            for index in range(len(scenes))
        ],
        "annotations": annotations,
        "categories": [{"id": index, "name": name} for index, name in enumerate(names, start=1)],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")


def _write_mnist(folder: Path, scenes: Sequence[Sequence[tuple[int, Box]]]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for index, objects in enumerate(scenes):
        rows = [f"{label + 1},{x1},{y1},{x2},{y2}" for label, (x1, y1, x2, y2) in objects]
        (folder / f"{index:06d}.txt").write_text(
            "\n".join(["label,xmin,ymin,xmax,ymax", *rows]) + "\n", encoding="utf-8"
        )


def pack(folder: Path, archive: Path) -> Path:
    """Zip a folder so that equal files give equal bytes: sorted names, one fixed time, pictures stored as they are."""
    with zipfile.ZipFile(archive, "w") as bundle:
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                entry = zipfile.ZipInfo(path.relative_to(folder).as_posix(), date_time=(1980, 1, 1, 0, 0, 0))
                entry.external_attr = 0o644 << 16
                entry.compress_type = zipfile.ZIP_STORED if path.suffix == ".png" else zipfile.ZIP_DEFLATED
                bundle.writestr(entry, path.read_bytes())
    return archive
