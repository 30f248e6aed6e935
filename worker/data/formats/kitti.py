"""KITTI's object labels: `label_2/000000.txt` for `image_2/000000.png`, 15 columns a line (KITTI development kit, readme)."""

from worker.data.faults import Report
from worker.data.formats.collecting import Collected
from worker.data.formats.raw import Raw, numbers
from worker.data.formats.text_lines import first_with_lines, with_pictures
from worker.data.tree import Tree

NAME = "kitti"
TITLE = "KITTI object labels (label_2/*.txt, image_2/)"
_NUMBERS = (14, 15)  # the last one, a score, is in results only
_DONT_CARE = "dontcare"


def _parts(words: list[str]) -> tuple[str, list[str]]:
    """(the class, which other programs write with blanks in it; the numbers behind it) of a line."""
    start = next((place for place, word in enumerate(words) if numbers([word]) is not None), len(words))
    return " ".join(words[:start]), words[start:]


def _is_line(words: list[str]) -> bool:
    name, rest = _parts(words)
    return bool(name) and len(rest) in _NUMBERS and numbers(rest) is not None


def recognise(tree: Tree) -> str | None:
    """The evidence for this format in the tree, or None."""
    file = first_with_lines(tree, _is_line)
    return f"KITTI labels, such as {file}" if file else None


def read(tree: Tree, report: Report) -> Raw:
    """Read every label file: left, top, right, bottom in pixels from 0; detections in a DontCare region are to be ignored."""
    collected = Collected(tree, report)
    for image, file, lines in with_pictures(collected, _is_line):
        for number, line in lines:
            name, rest = _parts(line.split())
            corners = numbers(rest[3:7]) if len(rest) in _NUMBERS else None
            if name.lower() == _DONT_CARE:
                collected.ignore(image, corners, file, f"line {number}")
            else:
                wanted = "15 columns are wanted, with finite numbers left, top, right, bottom in the fifth to the eighth"
                collected.box(image, name, corners, file, f"line {number}", wanted=wanted)
    return collected.raw()
