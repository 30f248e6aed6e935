"""KITTI's object labels: `label_2/000000.txt` for `image_2/000000.png`, 15 columns a line (KITTI development kit, readme)."""

from worker.data.faults import Report
from worker.data.formats.collecting import Collected
from worker.data.formats.raw import Raw, numbers
from worker.data.formats.text_lines import first_with_lines, with_pictures
from worker.data.tree import Tree

NAME = "kitti"
TITLE = "KITTI object labels (label_2/*.txt, image_2/)"
_COLUMNS = (15, 16)  # the last one, a score, is in results only
_DONT_CARE = "dontcare"


def _is_line(words: list[str]) -> bool:
    return len(words) in _COLUMNS and numbers(words[:1]) is None and numbers(words[1:]) is not None


def recognise(tree: Tree) -> str | None:
    """The evidence for this format in the tree, or None."""
    file = first_with_lines(tree, _is_line)
    return f"KITTI labels, such as {file}" if file else None


def read(tree: Tree, report: Report) -> Raw:
    """Read every label file: left, top, right, bottom in pixels from 0; detections in a DontCare region are to be ignored."""
    collected = Collected(tree, report)
    for image, file, lines in with_pictures(collected, _is_line):
        for number, line in lines:
            words = line.split()
            corners = numbers(words[4:8]) if len(words) in _COLUMNS else None
            if words[0].lower() == _DONT_CARE:
                collected.ignore(image, corners, file, f"line {number}")
            else:
                wanted = "15 columns are wanted, with finite numbers left, top, right, bottom in the fifth to the eighth"
                collected.box(image, words[0], corners, file, f"line {number}", wanted=wanted)
    return collected.raw()
