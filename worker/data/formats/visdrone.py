"""VisDrone-DET: `annotations/a.txt` for `images/a.jpg`, 8 columns with commas (github.com/VisDrone, DET toolkit)."""

import re

from worker.data.faults import Report
from worker.data.formats.collecting import Collected, xywh
from worker.data.formats.raw import Raw, numbers
from worker.data.formats.text_lines import first_with_lines, with_pictures, words_of
from worker.data.tree import Tree

NAME = "visdrone"
TITLE = "VisDrone-DET text (annotations/*.txt, 8 columns with commas)"
# The toolkit's own numbers; 0 is a region to ignore, and so is 11 ("others"), whose score is always 0.
NAMES = (
    "pedestrian",
    "people",
    "bicycle",
    "car",
    "van",
    "truck",
    "tricycle",
    "awning-tricycle",
    "bus",
    "motor",
)
_OTHERS = 11
_PART = re.compile(r"-(train|val|test)\b", re.IGNORECASE)  # VisDrone2019-DET-val/, VisDrone2019-DET-test-dev/


def _is_line(words: list[str]) -> bool:
    found = numbers(words)
    return (
        found is not None
        and len(found) == 8
        and all(value == int(value) for value in found)
        and found[4] in (0, 1)
        and 0 <= found[5] <= _OTHERS
        and found[6] in (-1, 0, 1)
        and found[7] in (-1, 0, 1, 2)
    )


def recognise(tree: Tree) -> str | None:
    """The evidence for this format in the tree, or None."""
    file = first_with_lines(tree, _is_line)
    return f"VisDrone labels, such as {file}" if file else None


def read(tree: Tree, report: Report) -> Raw:
    """Read left, top, width, height in pixels from 0; what the toolkit ignores (score 0, categories 0 and 11) is ignored here too.

    The files number the classes and no file names them: the names are the toolkit's, said so in the report.
    """
    collected = Collected(tree, report)
    collected.name_all(NAMES)
    for image, file, lines in with_pictures(collected, _is_line):
        if part := _PART.search(file):
            image.split = image.split or part[1].lower()
        for number, line in lines:
            reference = f"line {number}"
            values = numbers(words_of(line))
            corners = xywh(values[:4]) if values and len(values) == 8 else None
            category = values[5] if values and len(values) == 8 else 1.0
            if corners and category in (0, _OTHERS):
                collected.ignore(image, corners, file, reference)
            elif category != int(category) or not 1 <= category <= len(NAMES):
                collected.unknown(image, category, f"VisDrone's {len(NAMES)}", file, reference)
            else:
                ignored = values is not None and values[4:5] == [0]
                wanted = "eight whole numbers with commas are wanted"
                name = NAMES[int(category) - 1]
                collected.box(image, name, corners, file, reference, ignore=ignored, wanted=wanted)
    reason = f"the files number their classes; the names are VisDrone's own: 1 is '{NAMES[0]}' ... 10 is '{NAMES[-1]}'"
    report.add("unnamed_classes", next(iter(sorted(collected.used)), ""), reason)
    return collected.raw()
