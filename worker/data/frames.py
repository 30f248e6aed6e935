"""In which frame annotations were made: that of the file, of the file before it was turned, or of a picture of another size."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from worker.data.formats.raw import RawImage
from worker.data.pictures import Picture, turn

_SAME_SHAPE = 0.01  # relative difference of aspect ratios
_OVER = 1.0  # pixels that a box may lie over the border by mistake


@dataclass(frozen=True)
class Frame:
    """`move` brings a point into the upright picture; `how` is '', 'turned', 'scaled', 'fits' or 'unknown'."""

    move: Callable[[float, float], tuple[float, float]]
    how: str = ""


def _scale(image: RawImage, picture: Picture) -> tuple[float, float] | None:
    """The file's size over the declared one, where they differ and neither turning nor fractions explain it."""
    if image.relative or image.declared in (None, (picture.width, picture.height), picture.stored):
        return None
    return picture.width / image.declared[0], picture.height / image.declared[1]


def _fits(image: RawImage, width: float, height: float) -> bool:
    return all(
        max(box.corners[0], box.corners[2]) <= width + _OVER
        and max(box.corners[1], box.corners[3]) <= height + _OVER
        for box in image.boxes
    )


def frames(found: Sequence[tuple[RawImage, Picture]]) -> list[Frame]:
    """The frame of each picture's annotations.

    A declared size of the same shape means that the picture was made larger or smaller later, and its boxes go with it, unless
    the boxes of all the pictures that differ in that proportion say otherwise: those fit the file as it is and, where it is
    the larger one, not the declared size.
    """
    alike: dict[tuple[float, float], list[tuple[RawImage, Picture]]] = defaultdict(list)
    for image, picture in found:
        if scale := _scale(image, picture):
            alike[round(scale[0], 2), round(scale[1], 2)].append((image, picture))
    as_they_are = set()
    for scale, group in alike.items():
        in_file = all(_fits(image, picture.width, picture.height) for image, picture in group)
        in_declared = all(_fits(image, *image.declared) for image, _ in group)  # type: ignore[misc]
        if in_file and (scale[0] < 1 or not in_declared):
            as_they_are.add(scale)
    on_their_side = _on_their_side(found)
    return [
        _turned(picture) if on_their_side and _lies(image, picture) else _frame(image, picture, as_they_are)
        for image, picture in found
    ]


def _lies(image: RawImage, picture: Picture) -> bool:
    """Whether a picture is turned by a quarter, and nothing says what its boxes are drawn on."""
    return picture.orientation >= 5 and image.declared is None and not image.relative


def _on_their_side(found: Sequence[tuple[RawImage, Picture]]) -> bool:
    """Whether boxes without a declared size were drawn on the pictures before they were turned: all fit there, and some only there."""
    lying = [(image, picture) for image, picture in found if _lies(image, picture)]
    return any(not _fits(image, picture.width, picture.height) for image, picture in lying) and all(
        _fits(image, *picture.stored) for image, picture in lying
    )


def _turned(picture: Picture) -> Frame:
    return Frame(lambda x, y: turn(x, y, picture.orientation, picture.stored), "turned")


def _frame(image: RawImage, picture: Picture, as_they_are: set[tuple[float, float]]) -> Frame:
    width, height = picture.width, picture.height
    if image.relative:
        return Frame(lambda x, y: (x * width, y * height))
    scale = _scale(image, picture)
    if scale is None:
        if image.declared not in (None, (width, height)):
            return _turned(picture)
        return Frame(lambda x, y: (x, y))
    across, down = scale
    if abs(down / across - 1) > _SAME_SHAPE:
        return Frame(lambda x, y: (x, y), "unknown")
    if (round(across, 2), round(down, 2)) in as_they_are:
        return Frame(lambda x, y: (x, y), "fits")
    return Frame(lambda x, y: (x * across, y * down), "scaled")
