"""Cells of a table that hold whole boxes: brackets of numbers, lists of objects, or words between numbers; and their classes."""

import re
from collections.abc import Sequence

from worker.data.formats.json_files import parsed
from worker.data.formats.raw import category_name, numbers

NUMBER = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?")
PLAIN = re.compile(r"[\s\d.,;:\-+eE\[\](){}|]*")
Four = tuple[float, ...]
_AS_JSON = str.maketrans({"'": '"', "(": "[", ")": "]"})
_NOTHING = frozenset({"", "[]", "no_box", "nan", "none", "null", "-"})
_CORNERS = (
    ("xmin", "ymin", "xmax", "ymax"),
    ("x1", "y1", "x2", "y2"),
    ("x_min", "y_min", "x_max", "y_max"),
    ("left", "top", "right", "bottom"),
)
_SIZES = (("x", "y", "width", "height"), ("left", "top", "width", "height"), ("x", "y", "w", "h"))
_CLASS_KEYS = ("label", "class", "class_name", "category", "category_name", "name", "tag")
_OBJECT = re.compile(r"\s*\[?\s*\{")
_QUOTED = re.compile(r"'([^']*)'|\"([^\"]*)\"")


def boxes_of(cell: str) -> list[Four | None]:
    """The boxes of one cell, four numbers each, None for one that cannot be read.

    Four numbers in any brackets, several between ';', a list of lists or of objects, words before four numbers.
    """
    if cell.lower() in _NOTHING:
        return []
    if PLAIN.fullmatch(cell):
        pieces = [piece for piece in re.split(r"[;|]|\]\s*,?\s*\[", cell) if piece.strip("[](){} ")]
        found = [numbers(NUMBER.findall(piece)) or [] for piece in pieces]
        if all(len(values) == 1 for values in found) and len(found) == 4:  # 1;2;3;4
            return [tuple(values[0] for values in found)]
        return [tuple(values) if len(values) == 4 else None for values in found]
    if groups := words_and_boxes(cell):
        return [box for _, box in groups]
    return [_of_object(entry) for entry in _entries(cell)]


def literal(cell: str) -> object:
    """JSON, or Python's way to write the same."""
    found = parsed(cell)
    return found if found is not None else parsed(cell.translate(_AS_JSON))


def are_objects(cell: str) -> bool:
    """Whether a cell holds objects, whose boxes are x, y, width, height."""
    return _OBJECT.match(cell) is not None


def classes_inside(cell: str) -> tuple[str, ...] | None:
    """The class of each box of a cell that says them itself; None where it says none."""
    if groups := words_and_boxes(cell):
        return tuple(word for word, _ in groups)
    if not are_objects(cell):
        return None
    found = [_class_of(entry) for entry in _entries(cell)]
    return tuple(found) if any(found) else None


def classes_beside(cell: str, boxes: int) -> tuple[str, ...]:
    """A class for each of the boxes of a row, from the cell beside them: one for all, or a list with one for each.

    A list of another length names no class ('').
    """
    if cell.startswith(("[", "(")):
        given = literal(cell)
        listed = given if isinstance(given, list) else [a or b for a, b in _QUOTED.findall(cell)]
    else:
        listed = _divided(cell, boxes)
    if len(listed) == 1:
        return (category_name(listed[0]),) * boxes
    return tuple(map(category_name, listed)) if len(listed) == boxes else ("",) * boxes


def _divided(cell: str, boxes: int) -> list[str]:
    """`cat;dog`, `cat|dog`; between commas or blanks only where that gives one for each box: names may have either."""
    if boxes > 1 and (";" in cell or "|" in cell):
        return [piece.strip() for piece in re.split(r"[;|]", cell.strip("; |"))]
    by_comma = [piece.strip() for piece in cell.split(",")]
    if boxes > 1 and len(by_comma) == boxes:
        return by_comma
    by_blank = cell.split()
    return by_blank if boxes > 1 and len(by_blank) == boxes and numbers(by_blank) else [cell]


def words_and_boxes(cell: str) -> list[tuple[str, Four]]:
    """`cat 1 2 3 4 dog 5 6 7 8` (Kuzushiji), `cat 0.9 1 2 3 4` (Kaggle's PredictionString); empty for anything else."""
    words = cell.split()
    for length in (5, 6):
        groups = [words[start : start + length] for start in range(0, len(words), length)]
        if not words or len(words) % length or any(numbers(group[:1]) for group in groups):
            continue
        found = [numbers(group[1:]) for group in groups]
        # Of six the second is how sure somebody was.
        if all(values and (length == 5 or 0 <= values[0] <= 1) for values in found):
            return [
                (group[0], tuple(values[-4:])) for group, values in zip(groups, found, strict=True) if values
            ]
    return []


def are_words_and_boxes(cells: Sequence[str]) -> bool:
    """Whether a column holds such cells, and no others but empty ones."""
    return bool(cells) and all(words_and_boxes(cell) for cell in cells)


def has_a_box_among_words(cell: str) -> bool:
    """Whether four words of a cell or more are numbers: no label of a picture reads so."""
    return sum(NUMBER.fullmatch(word) is not None for word in cell.split()) >= 4


def _entries(cell: str) -> list[object]:
    content = literal(cell)
    return content if isinstance(content, list) else [content]


def _of_object(entry: object) -> Four | None:
    """x, y, width, height of an object that has its corners or those."""
    if not isinstance(entry, dict):
        return None
    for keys in _CORNERS:
        if values := numbers(entry.get(key) for key in keys):
            return values[0], values[1], values[2] - values[0], values[3] - values[1]
    for keys in _SIZES:
        if values := numbers(entry.get(key) for key in keys):
            return tuple(values)
    return None


def _class_of(entry: object) -> str:
    given = entry if isinstance(entry, dict) else {}
    return next((name for key in _CLASS_KEYS if (name := category_name(given.get(key)))), "")
