"""Lists of pictures, one a line, in text files that are called after a split: Darknet's train.txt, VOC's ImageSets/Main/val.txt."""

import re
from collections.abc import Iterable

from worker.data.faults import Report
from worker.data.formats.raw import head_of, text_of
from worker.data.pictures import SUFFIXES
from worker.data.splits import split_named
from worker.data.tree import NoSuchPicture, Tree, parent, stem, suffix

_FLAG = re.compile(r"\s+-?[01]$")
_UP_TO_SUFFIX = re.compile(rf"(.+?(?:{'|'.join(map(re.escape, sorted(SUFFIXES)))}))\s", re.IGNORECASE)


def _named(tree: Tree, line: str, base: str, split: str | None) -> str | None:
    """The picture that a line names: the whole line, or what stands before VOC's 1, 0 or -1, or before whatever follows the
    first suffix of a picture or the first word."""
    cut = _UP_TO_SUFFIX.match(line)
    for name in dict.fromkeys((line, _FLAG.sub("", line), cut[1] if cut else line, line.split()[0])):
        try:
            found = tree.image_named(name, [base], split)
        except NoSuchPicture:
            continue
        if suffix(found) in SUFFIXES:
            return found
    return None


def find(tree: Tree) -> list[str]:
    """The list files: those called after a split whose first line names a picture. `trainval` comes after the others, and what
    is not VOC's Main after it."""
    named = [
        file for file in tree.with_suffix(".txt") if split_named(stem(file)) and not tree.namesakes(file)
    ]
    found = [file for file in named if _names_a_picture(tree, file)]
    return sorted(
        found,
        key=lambda file: (
            stem(file).lower().startswith("trainval"),
            "/main/" not in f"/{file.lower()}",
            file,
        ),
    )


def _names_a_picture(tree: Tree, file: str) -> bool:
    first = next((line.strip() for line in head_of(tree, file).splitlines() if line.strip()), "")
    return bool(first) and _named(tree, first, parent(file), split_named(stem(file))) is not None


def read(tree: Tree, files: Iterable[str], report: Report) -> dict[str, str]:
    """Picture -> split. A picture that two lists name belongs to the first; a line that names none is a fault."""
    splits: dict[str, str] = {}
    for file in files:
        split = split_named(stem(file)) or "train"
        for path in members(tree, file, split, report):
            splits.setdefault(path, split)
    return splits


def members(tree: Tree, file: str, split: str | None, report: Report) -> list[str]:
    """The pictures that one list names."""
    found = []
    for line in (text_of(tree, file, report) or "").splitlines():
        if not line.strip():
            continue
        path = _named(tree, line.strip(), parent(file), split)
        if path is None:
            report.add(
                "missing_image",
                line.strip(),
                f"no such picture in the archive (listed in {file})",
                image=True,
            )
        else:
            found.append(path)
    return found
