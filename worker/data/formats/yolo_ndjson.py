"""Ultralytics' NDJSON: a first line about the set with `class_names`, then a line a picture with rows as in YOLO's text."""

from typing import Any

from worker.data.faults import Report
from worker.data.formats import rotated
from worker.data.formats.collecting import Collected, around, flat
from worker.data.formats.json_files import first_with, lines_of, mapping, with_keys
from worker.data.formats.raw import Corners, Raw, RawImage, numbers, pixel_size
from worker.data.splits import split_named
from worker.data.tree import Tree

NAME = "yolo_ndjson"
TITLE = "Ultralytics NDJSON (class_names, then a line a picture)"
_KEYS = ("type", "task", "class_names")
_SUFFIXES = (".ndjson", ".jsonl")
_CENTRED, _OUTLINES, _TURNED = ("boxes", "pose"), "segments", "obb"


def recognise(tree: Tree) -> str | None:
    """The evidence for this format in the tree, or None."""
    file = first_with(tree, *_KEYS, suffixes=_SUFFIXES)
    return f"Ultralytics NDJSON, {file}" if file else None


def _shape(kind: str, values: list[float] | None) -> tuple[Corners | None, list[list[float]] | None]:
    """The corners of a row without its class, and the polygon of an outline, as fractions."""
    if values is None or len(values) < 4:
        return None, None
    if kind in _CENTRED:
        x, y, width, height = values[:4]
        return (x - width / 2, y - height / 2, x + width / 2, y + height / 2), None
    points = [[x, y] for x, y in zip(values[::2], values[1::2], strict=False)]
    return around(points), flat(points) if kind == _OUTLINES else None


def _read_rows(
    collected: Collected,
    image: RawImage,
    annotations: dict[str, Any],
    names: dict[str, Any],
    file: str,
    line: int,
) -> int:
    """Add the boxes of one picture; how many of them were turned."""
    turned = 0
    for kind in (*_CENTRED, _OUTLINES, _TURNED):
        found = annotations.get(kind)
        for place, row in enumerate(found if isinstance(found, list) else [], start=1):
            reference = f"line {line}, {kind} {place}"
            number = numbers(row[:1]) if isinstance(row, list) else None
            name = names.get(f"{number[0]:g}") if number else None
            if name is None:
                collected.unknown(image, row, "the 'class_names'", file, reference)
                continue
            corners, polygon = _shape(kind, numbers(row[1:]))
            turned += kind == _TURNED
            collected.box(image, name, corners, file, reference, segmentation=polygon)
    return turned


def read(tree: Tree, report: Report) -> Raw:
    """Read every line in fractions (docs.ultralytics.com/datasets/detect); one without `annotations` is unlabelled."""
    collected = Collected(tree, report)
    for file in with_keys(tree, *_KEYS, suffixes=_SUFFIXES):
        collected.used.add(file)
        names: dict[str, Any] = {}
        turned = tags = 0
        for line, content in lines_of(tree, file, report):
            entry = mapping(content)
            if "class_names" in entry:
                names = mapping(entry["class_names"])
                collected.name_all(names.values())
                continue
            annotations = entry.get("annotations")
            if not isinstance(annotations, dict):
                continue
            tags += "classification" in annotations
            image = collected.named(
                entry.get("file"),
                file,
                split=split_named(str(entry.get("split", ""))),
                declared=pixel_size(entry.get("width"), entry.get("height")),
                relative=True,
                lost=sum(len(value) for value in annotations.values() if isinstance(value, list)),
            )
            if image is not None:
                turned += _read_rows(collected, image, annotations, names, file, line)
        rotated.say(report, file, turned)
        if tags:
            report.add("other_task", file, f"the classes of {tags} whole pictures are not read")
    return collected.raw()
