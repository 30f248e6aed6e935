"""Boxes with labels on pictures."""

import colorsys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import matplotlib
import PIL.Image
import PIL.ImageDraw
import PIL.ImageFont

from worker.data.formats.raw import Corners

Colour = tuple[int, int, int]

SIDE = 960  # pixels, longer side of one picture
MOST_LABELS = 40
_SHOWN_TEXT = 24


@dataclass(frozen=True)
class Box:
    """xyxy `corners` in pixels of the picture; `text` may be empty."""

    corners: Corners
    text: str
    colour: Colour


@cache
def font(size: int) -> PIL.ImageFont.FreeTypeFont:
    # DejaVu has the Latin, Greek, Cyrillic and more; Pillow's own font only the first.
    return PIL.ImageFont.truetype(f"{matplotlib.get_data_path()}/fonts/ttf/DejaVuSans.ttf", size)


def colour_of(index: int) -> Colour:
    """A class's colour."""
    # Steps of the golden ratio keep neighbouring classes far apart on the colour circle, however many there are.
    red, green, blue = colorsys.hsv_to_rgb((0.02 + index * 0.618034) % 1, 0.85, 0.95)
    return round(red * 255), round(green * 255), round(blue * 255)


def short(text: str) -> str:
    return text if len(text) <= _SHOWN_TEXT else text[: _SHOWN_TEXT - 1] + "…"


def draw_boxes(picture: PIL.Image.Image, boxes: Sequence[Box], side: int = SIDE) -> PIL.Image.Image:
    """The picture with its longer side at `side` pixels, and the boxes on it, the smallest last.

    Of more than 40 boxes none is labelled. Labels of one place, as those of whole pictures have, stand below each other.
    """
    scale = side / max(picture.size)
    size = max(round(picture.width * scale), 1), max(round(picture.height * scale), 1)
    method = PIL.Image.Resampling.LANCZOS if scale < 1 else PIL.Image.Resampling.BICUBIC
    canvas = picture.resize(size, method)
    draw = PIL.ImageDraw.Draw(canvas)
    line = max(2, side // 320)
    ordered = sorted(
        boxes, key=lambda box: (box.corners[0] - box.corners[2]) * (box.corners[3] - box.corners[1])
    )
    for box in ordered:
        x1, y1, x2, y2 = (value * scale for value in box.corners)
        draw.rectangle((x1, y1, max(x2 - 1, x1), max(y2 - 1, y1)), outline=box.colour, width=line)
    if len(ordered) <= MOST_LABELS:
        taken: set[tuple[float, float]] = set()
        for box in ordered:
            _label(draw, (box.corners[0] * scale, box.corners[1] * scale), box, canvas.size, taken)
    return canvas


def _label(
    draw: PIL.ImageDraw.ImageDraw,
    place: tuple[float, float],
    box: Box,
    size: tuple[int, int],
    taken: set[tuple[float, float]],
) -> None:
    face = font(max(11, min(16, max(size) // 40)))
    left, top, right, bottom = draw.textbbox((0, 0), box.text, font=face)
    width, height = right - left + 6, bottom - top + 4
    x = min(max(place[0], 0), max(size[0] - width, 0))
    y = place[1] - height if place[1] >= height else place[1]
    line = sum(face.getmetrics()) + 4  # the same for every text, and no text is higher
    while place in taken:
        place = (place[0], place[1] + line)
        y += line
    taken.add(place)
    draw.rectangle((x, y, x + width, y + height), fill=box.colour)
    draw.text((x + 3 - left, y + 2 - top), box.text, fill=_ink(box.colour), font=face)


def _ink(colour: Colour) -> Colour:
    red, green, blue = colour
    return (20, 20, 20) if 0.299 * red + 0.587 * green + 0.114 * blue > 140 else (255, 255, 255)
