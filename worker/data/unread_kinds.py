"""Kinds of labels that detrank knows by sight and does not read: what they are, and what to make of them."""

import re

from worker.data.formats.raw import head_of, numbers
from worker.data.tree import Tree, suffix

_LOOKED_AT = 1 << 14  # bytes
_CONVERT = "export or convert to COCO JSON, PASCAL VOC XML or YOLO text"
# words that all stand in the beginning of a file -> what it is
_SIGNS: tuple[tuple[tuple[str, ...], str], ...] = (
    (("<sequence", "<frame"), "tracks of UA-DETRAC"),
    (("bbGt version",), "Caltech's bbGt text"),
)
_TRACK = re.compile(r"\d+\s*,\s*-?\d+(\s*,\s*-?\d+(\.\d+)?){5,8}")


def kind_of(tree: Tree, file: str) -> str:
    """What an unread file is and what to do about it, in words that follow 'it is'; empty where nobody knows."""
    head = head_of(tree, file, _LOOKED_AT)
    for signs, what in _SIGNS:
        if all(sign in head for sign in signs):
            return f"{what}, which is not read: {_CONVERT}"
    if suffix(file) != ".txt":
        return ""
    lines = [line.strip() for line in head.splitlines()[:20] if line.strip()]
    if lines and all(_TRACK.fullmatch(line) for line in lines[:-1] or lines):
        return f"tracks of the MOT challenge or the like, which are not read: {_CONVERT}"
    words = lines[0].replace(",", " ").split() if lines else []
    if len(words) == 5 and numbers(words[:1]) is None and _are_fractions(numbers(words[1:])):
        return (
            f"rows such as '{lines[0][:60]}', a word and four fractions; YOLO's begin with the number of the class: write the "
            "numbers, and the names into a data.yaml"
        )
    if lines and _is_in_pixels(words):
        return (
            f"rows such as '{lines[0][:60]}', a number and four others in pixels; YOLO's are class, centre x, centre y, width and "
            "height as fractions of the picture: divide them by its width and height"
        )
    return ""


def _are_fractions(values: list[float] | None) -> bool:
    return values is not None and all(0 <= value <= 1 for value in values)


def _is_in_pixels(words: list[str]) -> bool:
    found = numbers(words)
    return found is not None and len(found) == 5 and found[0] == int(found[0]) >= 0 and max(found[1:]) > 2
