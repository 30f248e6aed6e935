"""DOTA text: `labelTxt/P0001.txt` for `images/P0001.png`, `x1 y1 x2 y2 x3 y3 x4 y4 class difficult` a line (captain-whu.github.io/DOTA)."""

from worker.data.faults import Report
from worker.data.formats import rotated
from worker.data.formats.collecting import Collected, around
from worker.data.formats.raw import Raw, numbers
from worker.data.formats.text_lines import first_with_lines, with_pictures, words_of
from worker.data.tree import Tree

NAME = "dota"
TITLE = "DOTA text (labelTxt/*.txt: four corners, class, difficult), read as upright boxes"
_HEADERS = ("imagesource", "gsd", "acquisition dates")


def _is_line(words: list[str]) -> bool:
    return len(words) in (9, 10) and numbers(words[:8]) is not None and numbers(words[8:9]) is None


def recognise(tree: Tree) -> str | None:
    """The evidence for this format in the tree, or None."""
    file = first_with_lines(tree, _is_line)
    return f"DOTA labels, such as {file}" if file else None


def read(tree: Tree, report: Report) -> Raw:
    """Read four corners in pixels as the upright box around them; objects marked difficult are ignored, as in DOTA's devkit."""
    collected = Collected(tree, report)
    for image, file, lines in with_pictures(collected, _is_line):
        turned = 0
        for number, line in lines:
            if line.lower().startswith(_HEADERS):
                continue
            words = line.split() if " " in line.strip() else words_of(line)
            values = numbers(words[:8]) if len(words) in (9, 10) else None
            corners = (
                [values[start : start + 2] for start in range(0, 8, 2)] if values and len(values) == 8 else []
            )
            category = words[8] if corners else "?"
            difficult = numbers(words[9:])
            corners = corners if difficult is not None else []
            wanted = "eight finite numbers, a class and 'difficult' are wanted"
            box, reference = around(corners), f"line {number}"
            collected.box(image, category, box, file, reference, ignore=any(difficult or ()), wanted=wanted)
            turned += bool(corners) and len({x for x, _ in corners}) > 2
        rotated.say(report, file, turned)
    return collected.raw()
