"""Detectron2's dataset dicts as JSON: a list of pictures, each with `annotations` that say how their `bbox` is meant."""

import math
from typing import Any

from worker.data.faults import Report
from worker.data.formats import rotated
from worker.data.formats.class_numbers import names_of_numbers
from worker.data.formats.coco_boxes import segmentation_of
from worker.data.formats.collecting import Collected, xywh
from worker.data.formats.json_files import entries_of, first_with, rows, with_keys
from worker.data.formats.raw import Corners, Raw, RawImage, numbers, pixel_size
from worker.data.tree import Tree

NAME = "detectron2"
TITLE = "Detectron2 dataset dicts as JSON (bbox_mode)"
_KEYS = ("file_name", "annotations", "bbox_mode", "category_id")
_SUFFIXES = (".json", ".jsonl")
# detectron2.structures.BoxMode; those in fractions (2, 3) are not supported there either
_TURNED = "XYWHA_ABS"
_MODES = {0: "XYXY_ABS", 1: "XYWH_ABS", 4: _TURNED}


def recognise(tree: Tree) -> str | None:
    """The evidence for this format in the tree, or None."""
    file = first_with(tree, *_KEYS, suffixes=_SUFFIXES)
    return f"Detectron2's dicts, such as {file}" if file else None


def _mode(row: dict[str, Any]) -> str:
    """The name of `bbox_mode`, whether it is written as a number or as `BoxMode.XYXY_ABS`."""
    mode = row.get("bbox_mode")
    return _MODES.get(mode, "") if isinstance(mode, int) else str(mode).rpartition(".")[2]


def _corners(row: dict[str, Any]) -> Corners | None:
    values = numbers(row["bbox"]) if isinstance(row.get("bbox"), list) else None
    mode = _mode(row)
    if values is None or len(values) != (5 if mode == _TURNED else 4):
        return None
    if mode == _TURNED:
        return rotated.around_rotated(values[:2], values[2:4], math.radians(values[4]))
    if mode == "XYXY_ABS":
        return values[0], values[1], values[2], values[3]
    return xywh(values) if mode == "XYWH_ABS" else None


def read(tree: Tree, report: Report) -> Raw:
    """Read every dict (detectron2.readthedocs.io, 'Use Custom Datasets'); classes are named by a list beside the file, if any."""
    collected = Collected(tree, report)
    found: list[tuple[RawImage, dict[str, Any], str, str]] = []
    for file in with_keys(tree, *_KEYS, suffixes=_SUFFIXES):
        collected.used.add(file)
        turned = 0
        for place, entry in entries_of(tree, file, report):
            if not isinstance(entry.get("annotations"), list):
                continue
            annotations = rows(entry["annotations"])
            image = collected.named(
                entry.get("file_name"),
                file,
                declared=pixel_size(entry.get("width"), entry.get("height")),
                lost=len(annotations),
            )
            if image is not None:
                turned += sum(_mode(row) == _TURNED for row in annotations)
                found += (
                    (image, row, file, f"picture {place}, annotation {number}")
                    for number, row in enumerate(annotations, start=1)
                )
        rotated.say(report, file, turned)
    classes = [str(row.get("category_id")) for _, row, _, _ in found]
    called = names_of_numbers(collected, classes, found[0][2]) if classes else {}
    for image, row, file, reference in found:
        number = str(row.get("category_id"))
        collected.box(
            image,
            called.get(number, number),
            _corners(row),
            file,
            reference,
            crowd=row.get("iscrowd") in (1, True),
            segmentation=segmentation_of(row),
            wanted="bbox must have the numbers of its bbox_mode, 0 (corners), 1 (corner and size) or 4 (turned)",
        )
    return collected.raw()
