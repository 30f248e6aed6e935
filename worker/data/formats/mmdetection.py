"""MMDetection's JSON: `data_list` with `instances` since version 3, a list of pictures with `ann` before."""

from collections.abc import Iterator
from typing import Any

from worker.data.faults import Report
from worker.data.formats.class_numbers import names_of_numbers
from worker.data.formats.collecting import Collected
from worker.data.formats.json_files import content_of, first_with, mapping, rows, with_keys
from worker.data.formats.raw import Raw, RawImage, numbers, pixel_size
from worker.data.tree import Tree

NAME = "mmdetection"
TITLE = "MMDetection JSON (data_list, or a list with ann)"
_KINDS = (("data_list", "instances", "bbox_label"), ("filename", "ann", "bboxes", "labels"))
# (class, its box, whether it counts neither way)
_Object = tuple[object, object, bool]


def recognise(tree: Tree) -> str | None:
    """The evidence for this format in the tree, or None."""
    for keys in _KINDS:
        if file := first_with(tree, *keys):
            return f"MMDetection's JSON, such as {file}"
    return None


def _pictures(content: object) -> Iterator[tuple[dict[str, Any], list[_Object]]]:
    """(entry, its objects) of every labelled picture."""
    for entry in rows(mapping(content).get("data_list")):
        if isinstance(entry.get("instances"), list):
            yield (
                entry,
                [
                    (row.get("bbox_label"), row.get("bbox"), row.get("ignore_flag") in (1, True))
                    for row in rows(entry["instances"])
                ],
            )
    for entry in rows(content):
        ann = entry.get("ann")
        if isinstance(ann, dict) and isinstance(ann.get("bboxes"), list):
            labels = ann["labels"] if isinstance(ann.get("labels"), list) else []
            labels = [*labels, *[None] * len(ann["bboxes"])]
            yield entry, [(label, box, False) for box, label in zip(ann["bboxes"], labels, strict=False)]


def _regions(entry: dict[str, Any]) -> list[object]:
    ignored = mapping(entry.get("ann")).get("bboxes_ignore")
    return ignored if isinstance(ignored, list) else []


def read(tree: Tree, report: Report) -> Raw:
    """Read corners in pixels from 0 (mmdetection.readthedocs.io, 'Customize Datasets'); `ignore_flag` counts neither way.

    Classes are those of `metainfo`, else of a list beside the file, else they stay numbers, said so.
    """
    collected = Collected(tree, report)
    found: list[tuple[RawImage, _Object, str, str]] = []
    names: list[str] = []
    for file in {file: None for keys in _KINDS for file in with_keys(tree, *keys)}:
        content = content_of(tree, file, report)
        collected.used.add(file)
        metainfo = mapping(mapping(content).get("metainfo"))
        classes = metainfo.get("classes") or metainfo.get("CLASSES")
        names = names or ([str(name) for name in classes] if isinstance(classes, list) else [])
        for entry, objects in _pictures(content):
            written = entry.get("img_path") or entry.get("filename")
            declared = pixel_size(entry.get("width"), entry.get("height"))
            image = collected.named(written, file, declared=declared, lost=len(objects))
            if image is None:
                continue
            found += (
                (image, each, file, f"{written}, object {place}")
                for place, each in enumerate(objects, start=1)
            )
            for place, box in enumerate(_regions(entry), start=1):
                values = numbers(box) if isinstance(box, list) else None
                collected.ignore(image, values, file, f"{written}, region to ignore {place}")
    collected.name_all(names)
    written_classes = [str(label) for _, (label, _, _), _, _ in found]
    called = {str(number): name for number, name in enumerate(names)}
    if not names and found:
        called = names_of_numbers(collected, written_classes, found[0][2])
    for image, (label, box, ignored), file, reference in found:
        if names and str(label) not in called:
            collected.unknown(image, label, "the classes of 'metainfo'", file, reference)
            continue
        corners = numbers(box) if isinstance(box, list) else None
        wanted = "finite numbers x1, y1, x2, y2 are wanted"
        category = called.get(str(label), label)
        collected.box(image, category, corners, file, reference, ignore=ignored, wanted=wanted)
    return collected.raw()
