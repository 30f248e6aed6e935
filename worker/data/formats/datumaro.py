"""Datumaro JSON: `annotations/SUBSET.json` with `items`, pictures in `images/SUBSET/` (the Datumaro project's own format)."""

import math
from typing import Any

from worker.data.faults import Report
from worker.data.formats import rotated
from worker.data.formats.collecting import Collected, around, flat, xywh
from worker.data.formats.json_files import content_of, first_with, mapping, rows, with_keys
from worker.data.formats.raw import Raw, RawImage, category_name, is_set_aside, numbers, pixel_size
from worker.data.splits import split_named, split_of_file
from worker.data.tree import Tree, stem

NAME = "datumaro"
TITLE = "Datumaro JSON (annotations/SUBSET.json, images/SUBSET/)"
_KEYS = ("items", "categories", "label_id")


def recognise(tree: Tree) -> str | None:
    """The evidence for this format in the tree, or None."""
    file = first_with(tree, *_KEYS)
    return f"Datumaro JSON, such as {file}" if file else None


def _names(content: dict[str, Any]) -> list[str]:
    label = mapping(mapping(content.get("categories")).get("label"))
    return [category_name(row.get("name")) for row in rows(label.get("labels"))]


def _annotation(
    collected: Collected, image: RawImage, row: dict[str, Any], names: list[str], file: str, reference: str
) -> bool:
    """Add one annotation; True where it was rotated."""
    kind, label = row.get("type"), row.get("label_id")
    if kind == "label":  # of the whole picture
        return False
    if not isinstance(label, int) or not 0 <= label < len(names):
        collected.unknown(image, label, f"the {len(names)} labels in 'categories'", file, reference)
        return False
    attributes = mapping(row.get("attributes"))
    crowd = attributes.get("is_crowd") is True
    given = numbers(row.get("points") or ()) or []
    pairs = [list(pair) for pair in zip(given[::2], given[1::2], strict=False)]
    corners = polygon = None
    turned = False
    match kind:
        case "bbox":
            corners = xywh(numbers(row.get("bbox") or ()))
            degrees = numbers([attributes.get("rotation", 0)])
            turned = bool(corners and degrees and degrees[0] % 360)
            if corners and degrees and turned:  # CVAT turns boxes about their centre
                corners = rotated.about_center(corners, degrees[0])
        case "polygon":
            corners, polygon = around(pairs), flat(pairs)
        case "ellipse":
            corners = around(pairs)
        case "rotated_bbox":
            box = numbers(row.get("points") or row.get("bbox") or ())
            turned = box is not None and len(box) == 5
            if box and turned:
                corners = rotated.around_rotated(box[:2], box[2:4], math.radians(box[4]))
        case _:
            collected.no_box(image, f"an annotation of type '{kind}'", file, reference)
            return False
    ignore = is_set_aside(attributes)
    collected.box(
        image, names[label], corners, file, reference, crowd=crowd, ignore=ignore, segmentation=polygon
    )
    return turned


def read(tree: Tree, report: Report) -> Raw:
    """Read every subset; boxes are x, y, width, height in pixels from 0, the file's name is the subset's."""
    collected = Collected(tree, report)
    for file in with_keys(tree, "items", "categories"):
        content = mapping(content_of(tree, file, report))
        names = _names(content)
        collected.used.add(file)
        collected.name_all(names)
        split = split_named(stem(file)) or split_of_file(file)
        turned = 0
        for item in rows(content.get("items")):
            if not isinstance(item.get("annotations"), list):  # unlabelled
                continue
            found = rows(item["annotations"])
            picture = mapping(item.get("image"))
            size = picture.get("size")
            declared = pixel_size(size[1], size[0]) if isinstance(size, list) and len(size) == 2 else None
            name = picture.get("path") or item.get("id")
            image = collected.named(name, file, split=split, declared=declared, lost=len(found))
            if image is None:
                continue
            for place, row in enumerate(found, start=1):
                turned += _annotation(
                    collected, image, row, names, file, f"{item.get('id')}, annotation {place}"
                )
        rotated.say(report, file, turned)
    return collected.raw()
