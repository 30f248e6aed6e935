"""Pictures of a dataset with its boxes and class names drawn, one by one and on one sheet."""

import colorsys
import math
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import matplotlib
import numpy as np
import PIL.Image
import PIL.ImageDraw
import PIL.ImageFont

from worker.data.canonical import Annotation, CanonicalImage
from worker.data.pictures import read_upright

_SIDE = 960  # pixels, longer side of one preview
_TILE = 360  # pixels, one field of the sheet
_GAP = 10
_BACKGROUND = (246, 246, 244)
_SHOWN_NAME = 24


@cache
def _font(size: int) -> PIL.ImageFont.FreeTypeFont:
    # DejaVu has the Latin, Greek, Cyrillic and more; Pillow's own font only the first.
    return PIL.ImageFont.truetype(f"{matplotlib.get_data_path()}/fonts/ttf/DejaVuSans.ttf", size)


def _colour(index: int) -> tuple[int, int, int]:
    # Steps of the golden ratio keep neighbouring classes far apart on the colour circle, however many there are.
    red, green, blue = colorsys.hsv_to_rgb((0.02 + index * 0.618034) % 1, 0.85, 0.95)
    return round(red * 255), round(green * 255), round(blue * 255)


def _ink(colour: tuple[int, int, int]) -> tuple[int, int, int]:
    red, green, blue = colour
    return (20, 20, 20) if 0.299 * red + 0.587 * green + 0.114 * blue > 140 else (255, 255, 255)


def _draw_label(
    draw: PIL.ImageDraw.ImageDraw,
    place: tuple[float, float],
    text: str,
    colour: tuple[int, int, int],
    size: tuple[int, int],
) -> None:
    font = _font(max(11, min(16, max(size) // 40)))
    left, top, right, bottom = draw.textbbox((0, 0), text, font=font)
    width, height = right - left + 6, bottom - top + 4
    x = min(max(place[0], 0), max(size[0] - width, 0))
    y = place[1] - height if place[1] >= height else place[1]
    draw.rectangle((x, y, x + width, y + height), fill=colour)
    draw.text((x + 3 - left, y + 2 - top), text, fill=_ink(colour), font=font)


def annotated(
    picture: PIL.Image.Image, rows: Sequence[Annotation], categories: Sequence[str], side: int = _SIDE
) -> PIL.Image.Image:
    """The picture at most `side` pixels long with its boxes and class names; small pictures are enlarged."""
    scale = side / max(picture.size)
    size = max(round(picture.width * scale), 1), max(round(picture.height * scale), 1)
    method = PIL.Image.Resampling.LANCZOS if scale < 1 else PIL.Image.Resampling.BICUBIC
    canvas = picture.resize(size, method)
    draw = PIL.ImageDraw.Draw(canvas)
    colours = {name: _colour(index) for index, name in enumerate(categories)}
    line = max(2, side // 320)
    ordered = sorted(
        rows, key=lambda row: (row.corners[0] - row.corners[2]) * (row.corners[3] - row.corners[1])
    )
    for row in ordered:
        x1, y1, x2, y2 = (value * scale for value in row.corners)
        draw.rectangle((x1, y1, max(x2 - 1, x1), max(y2 - 1, y1)), outline=colours[row.category], width=line)
    if len(ordered) <= 40:
        for row in ordered:
            name = row.category if len(row.category) <= _SHOWN_NAME else row.category[: _SHOWN_NAME - 1] + "…"
            _draw_label(
                draw,
                (row.corners[0] * scale, row.corners[1] * scale),
                name,
                colours[row.category],
                canvas.size,
            )
    return canvas


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
