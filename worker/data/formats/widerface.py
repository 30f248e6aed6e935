"""WIDER FACE text: `wider_face_train_bbx_gt.txt` of a picture's name, a count and so many lines; also RetinaFace's `label.txt`."""

from collections.abc import Iterator

from worker.data.faults import Report
from worker.data.formats.collecting import Collected, xywh
from worker.data.formats.json_files import sample
from worker.data.formats.locate import is_picture
from worker.data.formats.raw import Raw, head_of, numbers, text_of
from worker.data.tree import Tree

NAME = "widerface"
TITLE = "WIDER FACE text (wider_face_*_bbx_gt.txt)"
CATEGORY = "face"
_INVALID = 7  # column of `invalid`: x1, y1, w, h, blur, expression, illumination, invalid, occlusion, pose
_COLUMNS = 10


def _begins(text: str) -> bool:
    """Whether a picture's name stands first, then (but for RetinaFace's '# name') a count, then at least four numbers."""
    lines = [line.strip() for line in text.splitlines()[:3]]
    if len(lines) < 2 or not is_picture(lines[0].removeprefix("# ")):
        return False
    if lines[0].startswith("# "):
        return len(numbers(lines[1].split()) or ()) >= 4
    return lines[1].isdigit() and len(lines) == 3 and len(numbers(lines[2].split()) or ()) >= 4


def _files(tree: Tree) -> list[str]:
    return [file for file in tree.with_suffix(".txt") if _begins(head_of(tree, file))]


def recognise(tree: Tree) -> str | None:
    """The evidence for this format in the tree, or None."""
    file = next((file for file in sample(tree.with_suffix(".txt")) if _begins(head_of(tree, file))), None)
    return f"WIDER FACE text, {file}" if file else None


def _entries(text: str) -> Iterator[tuple[str, int | None, list[tuple[int, str]]]]:
    """(picture's name, count it gives, its (number, line)s) in order."""
    name: str | None = None
    count: int | None = None
    found: list[tuple[int, str]] = []
    for number, line in enumerate(text.splitlines(), start=1):
        line = line.strip()
        if is_picture(line.removeprefix("# ")):
            if name is not None:
                yield name, count, found
            name, count, found = line.removeprefix("# "), None, []
        elif line.isdigit() and count is None and not found:
            count = int(line)
        elif line and name is not None:
            found.append((number, line))
    if name is not None:
        yield name, count, found


def read(tree: Tree, report: Report) -> Raw:
    """Read x, y, width, height in pixels from 0; faces marked invalid are ignored. The format has one class: 'face', said so."""
    collected = Collected(tree, report)
    for file in _files(tree):
        collected.used.add(file)
        report.add(
            "unnamed_classes",
            file,
            f"WIDER FACE has one class and does not name it: it is called '{CATEGORY}'",
        )
        for name, count, lines in _entries(text_of(tree, file, report) or ""):
            lines = [] if count == 0 else lines  # a line of zeros stands for none
            image = collected.named(name, file, lost=len(lines))
            if image is None:
                continue
            if count is not None and count != len(lines):
                reason = f"{name} says {count} faces and lists {len(lines)}"
                report.add(
                    "invalid_annotation", file, reason, f"{name}: count", lost=max(count - len(lines), 0)
                )
            for number, line in lines:
                values = numbers(line.split())
                invalid = values is not None and len(values) == _COLUMNS and values[_INVALID] == 1
                wanted = "finite numbers x, y, width, height are wanted"
                box = xywh(values[:4] if values else None)
                collected.box(image, CATEGORY, box, file, f"line {number}", ignore=invalid, wanted=wanted)
    for file in tree.with_suffix("_filelist.txt"):
        collected.used.add(file)
    return collected.raw()
