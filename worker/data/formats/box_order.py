"""What four numbers of a box mean, by the boxes themselves: corners, a corner and a size, or a centre and a size."""

from collections.abc import Callable, Iterable, Sequence

import PIL.Image

from worker.data.formats.raw import Corners
from worker.data.pictures import FORMATS, MAX_PIXELS
from worker.data.tree import Tree

Four = Sequence[float]
Sized = tuple[
    Four, tuple[float, float] | None
]  # four numbers, and the size of their picture where it is known
_TOLERATED = 0.05  # share of boxes that may lie over the border
_TOO_MANY, _FEW = (
    0.3,
    6,
)  # share of boxes outside their pictures, of at least so many, that speaks against a format's own order
_PERCENT = 100.0
_FRACTION = 2.0  # no box in pixels lies within the first two of them


def corners(values: Four) -> Corners:
    """x1, y1, x2, y2 as they are."""
    return values[0], values[1], values[2], values[3]


def corner_and_size(values: Four) -> Corners:
    """x, y, width, height."""
    return values[0], values[1], values[0] + values[2], values[1] + values[3]


def center_and_size(values: Four) -> Corners:
    """The centre's x and y, width, height."""
    x, y, width, height = values
    return x - width / 2, y - height / 2, x + width / 2, y + height / 2


Reading = Callable[[Four], Corners]
NAMES: dict[Reading, str] = {
    corners: "x1, y1, x2, y2",
    corner_and_size: "x, y, width, height",
    center_and_size: "centre x, centre y, width, height",
}


def are_fractions(boxes: Iterable[Sized]) -> bool:
    """Whether the numbers are fractions of the picture: none is above 2, in a box of pixels one would be."""
    largest = [max(map(abs, values)) for values, _ in boxes]
    return bool(largest) and max(largest) <= _FRACTION


def are_percent(boxes: Sequence[Sized]) -> bool:
    """Whether the numbers are percent of the picture: broken ones up to nearly 100 in pictures of twice that and more.

    Boxes in pixels would not all lie in the first hundred pixels of large pictures, and reach to their end.
    """
    if len(boxes) < _FEW or not all(size is not None and min(size) >= 2 * _PERCENT for _, size in boxes):
        return False
    values = [values for values, _ in boxes]
    far = [max(max(four[side], four[side + 2]) for four in values) for side in (0, 1)]
    broken = any(value != int(value) for four in values for value in four)
    return broken and max(far) <= _PERCENT + 0.01 and min(far) > _PERCENT / 2


def _wrong(reading: Reading, values: Four, size: tuple[float, float] | None) -> bool:
    x1, y1, x2, y2 = reading(values)
    if x2 <= x1 or y2 <= y1:
        return True
    if size is None:
        return min(x1, y1) < -0.01 * max(map(abs, values))
    width, height = size
    slack_x, slack_y = 0.01 * width + min(1.0, 0.01 * width), 0.01 * height + min(1.0, 0.01 * height)
    return x1 < -slack_x or y1 < -slack_y or x2 > width + slack_x or y2 > height + slack_y


def possible(readings: Sequence[Reading], boxes: Sequence[Sized], *, fractions: bool) -> list[Reading]:
    """The readings under which (nearly) every box has an area and lies in its picture; all of them for no boxes."""
    if not boxes:
        return list(readings)
    sized = [(values, (1.0, 1.0) if fractions else size) for values, size in boxes]
    wrong = {reading: sum(_wrong(reading, *box) for box in sized) / len(sized) for reading in readings}
    return [reading for reading in readings if wrong[reading] <= _TOLERATED]


def meant(usual: Reading, boxes: Sequence[Sized], *, fractions: bool) -> list[Reading]:
    """The usual reading where the boxes allow it; where many lie outside their pictures under it, the others that put all inside.

    Boxes over the border are common and no reason to doubt; more than `_TOO_MANY` of them are none of `usual`, if another fits.
    """
    sized = [(values, (1.0, 1.0) if fractions else size) for values, size in boxes]
    sized = [(values, size) for values, size in sized if size is not None]
    if len(sized) < _FEW or sum(_wrong(usual, *box) for box in sized) <= _TOO_MANY * len(sized):
        return [usual]
    return possible([reading for reading in NAMES if reading != usual], sized, fractions=fractions) or [usual]


class Sizes:
    """Widths and heights of pictures of a tree, from their headers; for as many pictures as are worth it."""

    def __init__(self, tree: Tree, most: int = 500) -> None:
        self._tree, self._most = tree, most
        self._known: dict[str, tuple[float, float] | None] = {}

    def of(self, path: str) -> tuple[float, float] | None:
        """(width, height) as it is shown, or None when it is not known: not on this disk, broken, or one too many."""
        if path not in self._known:
            self._known[path] = self._read(path) if len(self._known) < self._most else None
        return self._known[path]

    def _read(self, path: str) -> tuple[float, float] | None:
        try:
            with PIL.Image.open(self._tree.absolute(path), formats=FORMATS) as picture:
                width, height = picture.size
                if width * height > MAX_PIXELS:
                    return None  # a PNG is decoded to look for its EXIF block
                turned = picture.getexif().get(0x0112, 1) in (5, 6, 7, 8)
        except Exception:
            # Whatever is wrong with the picture is said where it is checked.
            return None
        return (float(height), float(width)) if turned else (float(width), float(height))
