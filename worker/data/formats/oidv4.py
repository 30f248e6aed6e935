"""OIDv4 Toolkit folders: `train/Apple/Label/a.txt` for `train/Apple/a.jpg`, `class left top right bottom` in pixels a line."""

from worker.data.faults import Report
from worker.data.formats.collecting import Collected
from worker.data.formats.raw import Raw, numbers
from worker.data.formats.text_lines import first_with_lines, with_pictures
from worker.data.tree import Tree

NAME = "oidv4"
TITLE = "OIDv4 Toolkit text (class left top right bottom, in pixels)"
_DIFFICULT = "difficult"


def _split(line: str) -> tuple[str, list[float] | None, bool]:
    """(class, corners, difficult); a class may have spaces."""
    words = line.split()
    difficult = bool(words) and words[-1].lower() == _DIFFICULT
    words = words[:-1] if difficult else words
    return " ".join(words[:-4]), numbers(words[-4:]) if len(words) >= 5 else None, difficult


def _is_line(words: list[str]) -> bool:
    name, corners, _ = _split(" ".join(words))
    # Numbers below 1 would be fractions, and nobody says of which corner.
    return (
        corners is not None
        and numbers(name.split()[:1]) is None
        and not any(numbers([word]) for word in name.split())
        and corners[2] > max(corners[0], 1)
        and corners[3] > max(corners[1], 1)
    )


def recognise(tree: Tree) -> str | None:
    """The evidence for this format in the tree, or None."""
    file = first_with_lines(tree, _is_line)
    return f"lines of class and corners, such as {file}" if file else None


def read(tree: Tree, report: Report) -> Raw:
    """Read every label file; a picture that lies in several class folders has the boxes of all of them."""
    collected = Collected(tree, report)
    for image, file, lines in with_pictures(collected, _is_line):
        for number, line in lines:
            name, corners, difficult = _split(line)
            wanted = "a class and finite numbers left, top, right, bottom are wanted"
            collected.box(
                image, name or "?", corners, file, f"line {number}", ignore=difficult, wanted=wanted
            )
    return collected.raw()
