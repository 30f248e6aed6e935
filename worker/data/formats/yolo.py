"""YOLO text labels with an Ultralytics `data.yaml`: one `class cx cy w h` (or `class x1 y1 x2 y2 ...`) a line, as fractions."""

import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

from worker.data.faults import Report, Unusable
from worker.data.formats import box_order, split_lists
from worker.data.formats.box_order import Reading, Sized
from worker.data.formats.raw import Corners, Raw, RawBox, RawImage, head_of, numbers, text_of
from worker.data.formats.yolo_columns import box_at
from worker.data.formats.yolo_description import (
    Description,
    descriptions,
    names_files,
    nearest_description,
    splits_of,
)
from worker.data.splits import split_of_folders
from worker.data.tree import Tree, join, likeness, nearest, parent, stem

NAME = "yolo"
TITLE = "YOLO text labels with data.yaml (Ultralytics) or obj.data (Darknet), labels/ mirroring images/ or beside the pictures"
_SAMPLED = 50
_DECIMAL_COMMA = re.compile(r"^-?\d+,\d+$")


@dataclass(slots=True)
class _Row:
    """One line of a label file."""

    number: int
    words: list[str]
    values: list[float] | None


def _words(line: str) -> list[str]:
    words = line.split()
    if "," not in line and ";" not in line:
        return words
    if len(words) >= 5 and all(_DECIMAL_COMMA.match(word) for word in words[1:5]):
        return [word.replace(",", ".") for word in words]
    return [word for word in re.split(r"[\s,;]+", line) if word]


def _is_header(line: str) -> bool:
    """Whether a line names columns: none of five words or more is a number."""
    words = _words(line)
    return len(words) >= 5 and not any(numbers([word]) for word in words)


def _is_label_file(tree: Tree, file: str) -> bool:
    """Whether the first line is a class and fractions."""
    lines = [line.strip() for line in head_of(tree, file).splitlines()]
    lines = [line for line in lines if line and not line.startswith("#") and not _is_header(line)]
    values = numbers(_words(lines[0] if lines else ""))
    return (
        values is not None
        and len(values) >= 5
        and values[0] == int(values[0]) >= -1
        and all(-1 <= value <= 2 for value in values[1:5])
    )


def _name(written: str) -> str:
    """What names of pictures and of labels are compared by: macOS decomposes letters, Windows changes their case."""
    return written.casefold() if written.isascii() else unicodedata.normalize("NFC", written).casefold()


def _label_files(tree: Tree) -> list[str]:
    """The text files that are called as a picture, with its suffix or without."""
    stems = {_name(stem(image)) for image in tree.images}
    stems |= {_name(image.rpartition("/")[2]) for image in tree.images}
    return [file for file in tree.with_suffix(".txt") if _name(stem(file)) in stems]


def _filled(tree: Tree, files: list[str]) -> Iterator[str]:
    for file in files:
        if head_of(tree, file, 64).strip():
            yield file


def recognise(tree: Tree) -> str | None:
    """The evidence for this format in the tree, or None."""
    for _, file in zip(range(_SAMPLED), _filled(tree, _label_files(tree)), strict=False):
        if _is_label_file(tree, file):
            return f"YOLO label files, such as {file}"
    found = [each for each in descriptions(tree, set(), Report()) if each.names and each.members]
    return found[0].file if found and not _label_files(tree) else None


def _mirrored(tree: Tree, image: str) -> str | None:
    """The label file where Ultralytics looks for it: `labels` in place of the last `images`, else beside the picture."""
    parts = image.split("/")
    for place in reversed(range(len(parts) - 1)):
        if parts[place].lower() == "images":
            return tree.at(join(*parts[:place], "labels", *parts[place + 1 : -1], stem(image) + ".txt"))
    return tree.at(join(parent(image), stem(image) + ".txt"))


def _paired(tree: Tree, report: Report) -> dict[str, str]:
    """Picture -> label file. One that pictures of several folders could mean is a fault."""
    labels: dict[str, list[str]] = defaultdict(list)
    for file in _label_files(tree):
        labels[_name(stem(file))].append(file)
    pairs: dict[str, str] = {}
    claims: dict[str, list[str]] = defaultdict(list)
    for image in tree.images:
        own = split_of_folders(image)
        found = labels.get(_name(stem(image)), []) + labels.get(_name(image.rpartition("/")[2]), [])
        mirrored = _mirrored(tree, image)
        near = [file for file in found if not own or split_of_folders(file) in (None, own)]
        best = [mirrored] if mirrored in found else nearest(image, near)
        if len(best) == 1 and best[0]:
            pairs[image] = best[0]
            claims[best[0]].append(image)
    for file, images in claims.items():
        closest = max(likeness(parent(file), parent(image)) for image in images)
        kept = [image for image in images if likeness(parent(file), parent(image)) == closest]
        if len({parent(image) for image in kept}) > 1:
            report.add(
                "label_without_image",
                file,
                f"{len(kept)} pictures could be meant, such as {kept[0]} and {kept[1]}",
            )
            kept = []
        for image in set(images) - set(kept):
            del pairs[image]
    return pairs


def _rows(tree: Tree, file: str, report: Report) -> list[_Row]:
    found = []
    for number, line in enumerate((text_of(tree, file, report) or "").splitlines(), start=1):
        if (
            (words := _words(line))
            and not words[0].startswith("#")
            and not (number == 1 and _is_header(line))
        ):
            found.append(_Row(number, words, numbers(words)))
    return found


def _meaning(rows: list[list[float]], at: int | None, file: str, report: Report) -> Reading:
    """What the four numbers of a box are: YOLO's, unless those put many boxes outside the pictures and another order none.

    Raises Unusable where several others would.
    """
    boxes: list[Sized] = [
        (values[at or 1 : (at or 1) + 4], None) for values in rows if at is not None or len(values) == 5
    ]
    found = box_order.meant(box_order.center_and_size, boxes, fractions=True)
    if found == [box_order.center_and_size]:
        return found[0]
    names = " or ".join(box_order.NAMES[reading] for reading in found)
    reason = (
        f"many boxes lie outside the pictures as YOLO's centre x, centre y, width, height and none as {names}"
    )
    if len(found) > 1:
        raise Unusable(f"{file}: {reason}: write YOLO's own.", report.to_json())
    report.add("box_order", file, f"{reason}: read so")
    return found[0]


def _corners(
    values: list[float], at: int | None, reading: Reading
) -> tuple[Corners, list[list[float]] | None] | None:
    """The corners, and the polygon where the row is one; None where its length says nothing."""
    if at is not None or len(values) == 5:
        return reading(values[at or 1 : (at or 1) + 4]), None
    if len(values) < 7 or len(values) % 2 == 0:
        return None
    xs, ys = values[1::2], values[2::2]
    return (min(xs), min(ys), max(xs), max(ys)), [values[1:]]


@dataclass
class _Classes:
    """The names of the classes by number; `first` is what the labels count from."""

    names: list[str]
    first: int = 0

    def name(self, value: float) -> str | None:
        index = int(value) - self.first
        if index + self.first != value or index < 0 or (self.names and index >= len(self.names)):
            return None
        return (self.names[index] if self.names else "") or f"class {int(value)}"


def _box(
    row: _Row, at: int | None, reading: Reading, classes: _Classes, file: str, report: Report
) -> RawBox | None:
    reference = f"line {row.number}"
    found = _corners(row.values, at, reading) if row.values and len(row.values) >= 5 else None
    if found is None or row.values is None:
        wanted = "'class cx cy w h' or 'class x1 y1 x2 y2 x3 y3 ...' is wanted"
        report.add("invalid_annotation", file, f"'{' '.join(row.words)[:120]}': {wanted}", reference)
        return None
    category = classes.name(row.values[0])
    if category is None:
        named = f"class {row.words[0]} is not one of the {len(classes.names)} named classes"
        report.add("unknown_category", file, named, reference)
        return None
    return RawBox(category, found[0], file, reference, segmentation=found[1])


def _sources(tree: Tree, used: set[str], report: Report) -> tuple[list[Description], list[Description]]:
    """The descriptions, and those that name the classes: with names in a YAML, files of names that say the same are used too."""
    described = descriptions(tree, used, report)
    named = [each for each in described if each.names]
    files = names_files(tree, report)
    if not named:
        used.update(each.file for each in files)
        return described, files
    used.update(each.file for each in files if any(each.names == other.names for other in named))
    return described, named


def _classes(source: Description | None, rows: list[list[float]], report: Report) -> _Classes:
    """The classes of the label files that one source names; says which ones nobody names."""
    names = source.names if source else []
    used = {int(values[0]) for values in rows if values[0] == int(values[0])}
    first = int(bool(names and used) and min(used) == 1 and max(used) == len(names))
    if first and source:
        report.add(
            "renumbered_classes", source.file, f"the labels count the {len(names)} classes from 1, not from 0"
        )
    unnamed = sorted(
        index
        for index in used
        if index >= 0 and (not names or names[index - first : index - first + 1] == [""])
    )
    if unnamed:
        where = source.file if source else "data.yaml"
        report.add(
            "unnamed_classes",
            where,
            f"nothing names class {', '.join(map(str, unnamed[:20]))}: called 'class {unnamed[0]}' and so on; add a data.yaml",
        )
    return _Classes(names, first)


def read(tree: Tree, report: Report) -> Raw:
    """Read the label file of every picture that has one; an empty one says that the picture is background.

    A sixth column is a confidence where all rows have one, and columns behind a box are key points where `kpt_shape` says so or
    they all lie in their box; both are left out and the report says so. Other rows of more than 5 numbers are polygons.
    """
    used: set[str] = set()
    described, named = _sources(tree, used, report)
    splits: dict[str, str] = {}
    for each in described:
        for path, split in splits_of(tree, each, used, report).items():
            splits.setdefault(path, split)
    lists = [file for file in split_lists.find(tree) if file not in used]
    used.update(lists)
    for path, split in split_lists.read(tree, lists, report).items():
        splits.setdefault(path, split)
    pairs = {image: label for image, label in _paired(tree, report).items() if label not in used}
    used.update(label for label in _label_files(tree) if report.names(label))
    rows = {label: _rows(tree, label, report) for label in sorted(set(pairs.values()))}
    used.update(rows)
    by_source: dict[str, list[str]] = defaultdict(list)
    sources = {each.file: each for each in named}
    for label in rows:
        source = nearest_description(label, named)
        by_source[source.file if source else ""].append(label)
    shape = next((each.key_points for each in described if each.key_points), None)
    whole = [row.values for found in rows.values() for row in found if row.values and len(row.values) >= 5]
    at, rest = box_at(whole, shape)
    if rest:
        report.add("extra_columns", next(iter(rows)), f"behind each box stands {rest}: left out", lost=0)
    reading = _meaning(whole, at, next(iter(rows), ""), report)
    classes: dict[str, _Classes] = {}
    categories: list[str] = []
    for key, labels in by_source.items():
        values = [row.values for label in labels for row in rows[label] if row.values]
        found = _classes(sources.get(key), values, report)
        classes.update(dict.fromkeys(labels, found))
        numbered = sorted({int(each[0]) for each in values})
        categories += found.names or [name for index in numbered if (name := found.name(index))]
    images = []
    for path, label in pairs.items():
        by_folder = split_of_folders(path) or split_of_folders(label)
        image = RawImage(path, splits.get(path) or by_folder, relative=True)
        images.append(image)
        boxes = [_box(row, at, reading, classes[label], label, report) for row in rows[label]]
        image.boxes = [box for box in boxes if box]
        image.dropped = boxes.count(None)
    for label in tree.with_suffix(".txt"):
        if label not in used and not report.names(label) and _is_label_file(tree, label):
            used.add(label)
            report.add(
                "label_without_image", label, "no picture of this name", lost=len(_rows(tree, label, report))
            )
    return Raw(images, used, list(dict.fromkeys(name for name in categories if name)))
