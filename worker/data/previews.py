"""Pictures of a dataset with its boxes and class names drawn, one by one and on one sheet."""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import PIL.Image

from worker.data.canonical import Annotation, CanonicalImage
from worker.data.drawing import SIDE, Box, colour_of, draw_boxes, short
from worker.data.pictures import read_upright

_TILE = 360  # pixels, one field of the sheet
_GAP = 10
_BACKGROUND = (246, 246, 244)


def annotated(
    picture: PIL.Image.Image, rows: Sequence[Annotation], categories: Sequence[str], side: int = SIDE
) -> PIL.Image.Image:
    """The picture at most `side` pixels long with its boxes and class names; small pictures are enlarged."""
    colours = {name: colour_of(index) for index, name in enumerate(categories)}
    boxes = [Box(row.corners, _said(row), colours[row.category]) for row in rows]
    return draw_boxes(picture, boxes, side)


def _said(row: Annotation) -> str:
    return short(row.category) if row.score is None else f"{short(row.category)} {row.score:.2f}"


def chosen(images: Sequence[CanonicalImage], seed: int, count: int) -> list[CanonicalImage]:
    """Pictures worth showing: drawn with the seed, each next one preferably with classes not shown yet."""
    order = np.random.default_rng(seed).permutation(len(images)).tolist()
    pool = [images[index] for index in order[: 50 * count]]
    shown: set[str] = set()
    picked: list[CanonicalImage] = []
    while pool and len(picked) < count:
        best = max(
            pool,
            key=lambda image: (
                len({row.category for row in image.annotations} - shown),
                bool(image.annotations),
            ),
        )
        pool.remove(best)
        picked.append(best)
        shown |= {row.category for row in best.annotations}
    return picked


def _sheet(tiles: Sequence[PIL.Image.Image]) -> PIL.Image.Image:
    columns = min(len(tiles), 4)
    rows = math.ceil(len(tiles) / columns)
    step = _TILE + _GAP
    sheet = PIL.Image.new("RGB", (columns * step + _GAP, rows * step + _GAP), _BACKGROUND)
    for index, tile in enumerate(tiles):
        row, column = divmod(index, columns)
        sheet.paste(
            tile,
            (
                _GAP + column * step + (_TILE - tile.width) // 2,
                _GAP + row * step + (_TILE - tile.height) // 2,
            ),
        )
    return sheet


def draw_previews(
    out: Path, images: Sequence[CanonicalImage], categories: Sequence[str], seed: int, count: int = 8
) -> tuple[Path, ...]:
    """Write previews/preview.jpg (a sheet of all) and previews/preview_1.jpg ... into `out`; the sheet comes first."""
    folder = out / "previews"
    folder.mkdir(exist_ok=True)
    paths = [folder / "preview.jpg"]
    tiles: list[PIL.Image.Image] = []
    for index, image in enumerate(chosen(images, seed, count), start=1):
        picture = read_upright(out / image.file_name)
        tiles.append(annotated(picture, image.annotations, categories, _TILE))
        paths.append(folder / f"preview_{index}.jpg")
        annotated(picture, image.annotations, categories).save(paths[-1], quality=88)
    _sheet(tiles).save(paths[0], quality=88)
    return tuple(paths)
