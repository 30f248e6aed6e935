"""What Hugging Face datasets for object detection hold of each picture: `objects` with boxes and classes, however they are nested."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from worker.data.faults import Report, Unusable
from worker.data.formats import box_order
from worker.data.formats.box_order import Reading, Sized, Sizes
from worker.data.formats.class_numbers import names_of_numbers
from worker.data.formats.collecting import Collected
from worker.data.formats.json_files import mapping
from worker.data.formats.raw import RawImage, category_name, head_of, numbers, pixel_size
from worker.data.tree import Tree

BOXES = ("bbox", "bboxes", "boxes", "box")
_NESTS = ("objects", "annotations")
CLASSES = (
    "category",
    "categories",
    "label",
    "labels",
    "class",
    "classes",
    "category_name",
    "class_name",
    "name",
    "names",
    "category_id",
    "category_ids",
    "class_id",
    "label_id",
    "class_label",
    "class_labels",
)
_READINGS = (box_order.corner_and_size, box_order.corners)
_MAX_TEXT = 1 << 22


@dataclass(frozen=True)
class Entry:
    """One row: the boxes as they are written, the class of each, and the picture once it is known."""

    image: RawImage
    boxes: tuple[object, ...]
    categories: tuple[object, ...]
    crowds: tuple[object, ...]
    file: str
    reference: str


def holds_objects(row: dict[str, Any]) -> bool:
    """Whether a row has boxes: `objects` or `annotations`, or boxes beside the picture."""
    return any(key in row for key in _NESTS) or any(isinstance(row.get(key), list) for key in BOXES)


def _listed(value: object) -> tuple[object, ...]:
    return tuple(value) if isinstance(value, list | tuple) else ()


def objects_of(
    row: dict[str, Any],
) -> tuple[tuple[object, ...], tuple[object, ...], tuple[object, ...]] | None:
    """(boxes, classes, crowd flags) of a row, from lists side by side or a list of objects; None where they are neither."""
    given = next((row[key] for key in _NESTS if key in row), row)
    if isinstance(given, str):  # a cell of metadata.csv
        try:
            given = json.loads(given)
        except (ValueError, RecursionError):
            return None
    if given is None:
        return (), (), ()
    if isinstance(given, list):
        items = [mapping(item) for item in given]
        boxes = tuple(next((item[key] for key in BOXES if key in item), None) for item in items)
        classes = tuple(next((item[key] for key in CLASSES if key in item), None) for item in items)
        return boxes, classes, tuple(item.get("iscrowd", item.get("is_crowd")) for item in items)
    if not isinstance(given, dict):
        return None
    boxes = next((_listed(given[key]) for key in BOXES if key in given), ())
    if len(boxes) == 4 and numbers(boxes):  # a row a box
        one = next((given[key] for key in CLASSES if isinstance(given.get(key), str | int)), None)
        return (list(boxes),), () if one is None else (one,), (given.get("iscrowd"),)
    classes = next((_listed(given[key]) for key in CLASSES if isinstance(given.get(key), list)), ())
    return boxes, classes, _listed(given.get("iscrowd", given.get("is_crowd")))


def entry_of(
    collected: Collected, image: RawImage, row: dict[str, Any], file: str, reference: str
) -> Entry | None:
    """The row's entry; None and a fault where its objects cannot be read."""
    found = objects_of(row)
    if found is None or (found[1] and len(found[1]) != len(found[0])):
        image.dropped += 1
        reason = "'objects' must have as many boxes as classes" if found else "'objects' cannot be read"
        collected.report.add("invalid_annotation", file, reason, reference)
        return None
    return Entry(image, found[0], found[1], found[2], file, reference)


def _class_labels(node: object, seen: set[int]) -> Iterator[list[str]]:
    """The names of every ClassLabel in a description of features; YAML may name one part many times, which is looked at once."""
    if id(node) in seen or not isinstance(node, dict | list):
        return
    seen.add(id(node))
    if isinstance(node, dict):
        names = node.get("names")
        if node.get("_type") == "ClassLabel" and isinstance(names, list):
            yield [category_name(name) for name in names]
        given = mapping(node.get("class_label")).get("names")
        if isinstance(given, dict | list):
            yield [category_name(name) for name in (given.values() if isinstance(given, dict) else given)]
    for value in node.values() if isinstance(node, dict) else node:
        yield from _class_labels(value, seen)


def _of_objects(features: object) -> object:
    """The part of the features that is about objects, where it can be told; else all of them."""
    if isinstance(features, dict) and "objects" in features:
        return features["objects"]
    if isinstance(features, list):
        return next(
            (row for row in features if isinstance(row, dict) and row.get("name") == "objects"), features
        )
    return features


def named_in(features: object) -> list[str]:
    """The classes that a description of features names; empty where it names none, or several lists that differ."""
    found = list(_class_labels(_of_objects(features), set()))
    return found[0] if found and all(names == found[0] for names in found) else []


def names_described(tree: Tree, used: set[str]) -> list[str]:
    """The classes from a README's `dataset_info` or a dataset_infos.json, in the order of their numbers."""
    for file in tree.files:
        name = file.rpartition("/")[2].lower()
        if name not in ("readme.md", "dataset_infos.json", "dataset_info.json"):
            continue
        names = _names_in_file(head_of(tree, file, _MAX_TEXT), name)
        if names:
            used.add(file)
            return names
    return []


def _names_in_file(text: str, name: str) -> list[str]:
    try:
        if name == "readme.md":
            parts = text.split("---", 2)
            content = yaml.safe_load(parts[1]) if len(parts) == 3 and not parts[0].strip() else None
            infos = mapping(content).get("dataset_info")
        else:
            content = json.loads(text)
            infos = content if "features" in mapping(content) else list(mapping(content).values())
        found = [
            named_in(mapping(info).get("features"))
            for info in (infos if isinstance(infos, list) else [infos])
        ]
    except (yaml.YAMLError, ValueError, RecursionError):
        return []
    return next((names for names in found if names), [])


def _meaning(tree: Tree, entries: Sequence[Entry], report: Report) -> tuple[Reading, bool, str]:
    """(what the four numbers are, whether they are fractions, a note). Raises Unusable when that is unclear."""
    sizes = Sizes(tree)
    boxes: list[Sized] = []
    for entry in entries[:20_000]:
        size = entry.image.declared or sizes.of(entry.image.path)
        found = [numbers(box) if isinstance(box, list | tuple) else None for box in entry.boxes]
        boxes += [(values, size) for values in found if values and len(values) == 4]
    fractions = box_order.are_fractions(boxes)
    readings = (*_READINGS, box_order.center_and_size) if fractions else _READINGS
    fitting = box_order.possible(readings, boxes, fractions=fractions)
    if len(fitting) == 1:
        return fitting[0], fractions, f"the boxes of 'objects' were taken as {box_order.NAMES[fitting[0]]}"
    if fitting and not fractions:
        # huggingface.co/docs/datasets/object_detection: boxes are in COCO's form.
        usual = box_order.NAMES[box_order.corner_and_size]
        return (
            box_order.corner_and_size,
            False,
            f"the boxes of 'objects' were taken as {usual}, as Hugging Face does",
        )
    meant = " or ".join(box_order.NAMES[reading] for reading in readings)
    raise Unusable(
        f"The boxes of 'objects' in {entries[0].file} might be {meant}, and they fit {'several of these' if fitting else 'none'}: "
        "write them in pixels as x, y, width, height.",
        report.to_json(),
    )


def add_all(collected: Collected, entries: Sequence[Entry], names: Sequence[str]) -> None:
    """Add the boxes of all entries; `names` are the classes by number, where something names them. Raises Unusable."""
    if not any(entry.boxes for entry in entries):
        return
    reading, fractions, note = _meaning(collected.tree, entries, collected.report)
    collected.notes.append(note)
    called = _called(collected, entries, names)
    unnamed = "" if any(entry.categories for entry in entries) else "object"
    for entry in entries:
        entry.image.relative = fractions
        for place, box in enumerate(entry.boxes):
            values = numbers(box) if isinstance(box, list | tuple) else None
            corners = reading(values) if values and len(values) == 4 else None
            written = _written(entry.categories[place]) if entry.categories else unnamed
            crowd = place < len(entry.crowds) and entry.crowds[place] in (1, True)
            reference = f"{entry.reference}, object {place + 1}"
            category = called.get(written, written)
            collected.box(entry.image, category, corners, entry.file, reference, crowd=crowd)


def _written(value: object) -> str:
    """A class as it is written; empty for what is no class."""
    return str(value) if isinstance(value, str | int | float) and not isinstance(value, bool) else ""


def _called(collected: Collected, entries: Sequence[Entry], names: Sequence[str]) -> dict[str, str]:
    """{class as it is written: its name}."""
    written = [word for entry in entries for value in entry.categories if (word := _written(value))]
    if not written:
        reason = "the objects name no class: all of them are called 'object'"
        collected.report.add("unnamed_classes", entries[0].file, reason)
        return {}
    found = numbers(dict.fromkeys(written))
    if names and found is not None and all(0 <= value < len(names) for value in found):
        collected.name_all(names)
        return {value: names[int(float(value))] for value in dict.fromkeys(written)}
    return names_of_numbers(collected, written, entries[0].file)


def declared_size(row: dict[str, Any]) -> tuple[int, int] | None:
    """The size of the picture, where the row says it."""
    return pixel_size(row.get("width"), row.get("height"))
