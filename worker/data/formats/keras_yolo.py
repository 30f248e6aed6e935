"""Text of one picture a line: `a.jpg x1,y1,x2,y2,class x1,y1,x2,y2,class` (keras-yolo3; Roboflow's YOLOv4 PyTorch `_annotations.txt`)."""

import re

from worker.data.faults import Report
from worker.data.formats.class_numbers import names_of_numbers
from worker.data.formats.collecting import Collected
from worker.data.formats.json_files import sample
from worker.data.formats.locate import is_picture
from worker.data.formats.raw import Raw, RawImage, head_of, numbers, text_of
from worker.data.tree import Tree

NAME = "keras_yolo"
TITLE = "keras-yolo3 text (a.jpg x1,y1,x2,y2,class ... a line; Roboflow's _annotations.txt)"
_NUMBER = r"-?\d+(?:\.\d+)?"
_BOXES = re.compile(rf"(?:\s+{_NUMBER}(?:,{_NUMBER}){{4}})+\s*$")


def _parts(line: str) -> tuple[str, list[str]] | None:
    """(picture's name, which may have spaces; what follows it) of a line, or None."""
    found = _BOXES.search(line)
    if found and is_picture(line[: found.start()].strip()):
        return line[: found.start()].strip(), found[0].split()
    # A line with a broken box, or with none: the name ends with the first word that has a picture's suffix.
    words = line.split()
    end = next((place for place, word in enumerate(words, start=1) if is_picture(word)), None)
    return (" ".join(words[:end]), words[end:]) if end else None


def _is_mine(tree: Tree, file: str) -> bool:
    lines = head_of(tree, file).splitlines()[:20]
    return any(_BOXES.search(line) and _parts(line) for line in lines)


def recognise(tree: Tree) -> str | None:
    """The evidence for this format in the tree, or None."""
    file = next((file for file in sample(tree.with_suffix(".txt")) if _is_mine(tree, file)), None)
    return f"a line of boxes for each picture, {file}" if file else None


def read(tree: Tree, report: Report) -> Raw:
    """Read corners in pixels from 0; classes are numbers that a list of names beside the file names, else they stay numbers, said so."""
    collected = Collected(tree, report)
    found: list[tuple[RawImage, list[str], str, str]] = []
    for file in tree.with_suffix(".txt"):
        if not _is_mine(tree, file):
            continue
        collected.used.add(file)
        for number, line in enumerate((text_of(tree, file, report) or "").splitlines(), start=1):
            parts = _parts(line)
            if line.strip() and parts is None:
                report.add("invalid_annotation", file, "the line names no picture", f"line {number}")
            elif parts and (image := collected.named(parts[0], file, lost=len(parts[1]))):
                found += ((image, box.split(","), file, f"line {number}") for box in parts[1])
    classes = [words[4] for _, words, _, _ in found if len(words) == 5 and numbers(words)]
    called = names_of_numbers(collected, classes, found[0][2]) if classes else {}
    for image, words, file, reference in found:
        corners = numbers(words[:4]) if len(words) == 5 else None
        category = words[4] if len(words) == 5 else ""
        wanted = "x1,y1,x2,y2,class is wanted"
        collected.box(image, called.get(category, category), corners, file, reference, wanted=wanted)
    return collected.raw()
