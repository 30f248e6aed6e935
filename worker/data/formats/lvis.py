"""LVIS JSON (lvisdataset.org): COCO's form, with `coco_url` where COCO has `file_name`, each picture labelled for part of the classes."""

from typing import Any

from worker.data.faults import Report
from worker.data.formats.collecting import Collected, xywh
from worker.data.formats.json_files import content_of, first_with, mapping, rows, with_keys
from worker.data.formats.raw import Raw, category_name, numbers, pixel_size
from worker.data.tree import Tree

NAME = "lvis"
TITLE = "LVIS JSON"
_KEYS = ("images", "coco_url", "neg_category_ids")
_COCO = "file_name"


def recognise(tree: Tree) -> str | None:
    """The evidence for this format in the tree, or None: files with `file_name` are read as COCO."""
    file = first_with(tree, *_KEYS, unwanted=(_COCO,))
    return f"LVIS JSON, such as {file}" if file else None


def _polygons(value: object) -> list[list[float]] | None:
    found = (
        [numbers(polygon) for polygon in value if isinstance(polygon, list)]
        if isinstance(value, list)
        else []
    )
    whole = [polygon for polygon in found if polygon and len(polygon) >= 6 and len(polygon) % 2 == 0]
    return whole if whole and len(whole) == len(found) else None


def _read_file(collected: Collected, content: dict[str, Any], file: str) -> None:
    names = {str(row.get("id")): category_name(row.get("name")) for row in rows(content.get("categories"))}
    collected.name_all(names.values())
    of_image: dict[str, list[dict[str, Any]]] = {}
    for row in rows(content.get("annotations")):
        of_image.setdefault(str(row.get("image_id")), []).append(row)
    for entry in rows(content.get("images")):
        found = of_image.pop(str(entry.get("id")), [])
        declared = pixel_size(entry.get("width"), entry.get("height"))
        image = collected.named(entry.get("coco_url"), file, declared=declared, lost=len(found))
        if image is None:
            continue
        for row in found:
            reference = str(row.get("id", "without id"))
            if not (name := names.get(str(row.get("category_id")))):
                collected.unknown(image, row.get("category_id"), "'categories'", file, reference)
                continue
            box, polygons = xywh(numbers(row.get("bbox") or ())), _polygons(row.get("segmentation"))
            collected.box(image, name, box, file, reference, segmentation=polygons)
    for identity, found in of_image.items():
        for row in found:
            reason = f"image_id {identity} is not in 'images'"
            collected.report.add("annotation_without_image", file, reason, row.get("id", "without id"))


def read(tree: Tree, report: Report) -> Raw:
    """Read every LVIS file that has no `file_name`; boxes are x, y, width, height in pixels from 0."""
    collected = Collected(tree, report)
    for file in with_keys(tree, *_KEYS):
        collected.used.add(file)
        content = mapping(content_of(tree, file, report))
        if isinstance(content.get("annotations"), list):
            _read_file(collected, content, file)
        elif content:
            report.add("unreadable_file", file, "it has no list 'annotations': pictures without labels")
    collected.notes.append(
        "LVIS labels each picture for part of the classes only: an object of another class may be there without a box"
    )
    return collected.raw()
