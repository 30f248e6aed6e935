"""V7's Darwin JSON, one file a picture: `item` with `slots` (2.0) or `image` (1.0), and `annotations` with a `bounding_box`."""

from typing import Any

from worker.data.faults import Report
from worker.data.formats.collecting import Collected, flat, xywh
from worker.data.formats.json_files import content_of, first_with, mapping, named_points, rows, with_keys
from worker.data.formats.raw import Raw, numbers, pixel_size
from worker.data.tree import Tree

NAME = "darwin"
TITLE = "V7 Darwin JSON (1.0 and 2.0)"
_KINDS = (("annotations", "item", "slots"), ("annotations", "image", "original_filename"))
_WITHOUT_BOX = ("tag", "string", "text")


def recognise(tree: Tree) -> str | None:
    """The evidence for this format in the tree, or None."""
    for keys in _KINDS:
        if file := first_with(tree, *keys):
            return f"Darwin JSON, such as {file}"
    return None


def _picture(content: dict[str, Any]) -> tuple[object, dict[str, Any]]:
    """What the picture is called, and where its size stands."""
    item = mapping(content.get("item"))
    if item:
        slot = next(iter(rows(item.get("slots"))), {})
        source = next(iter(rows(slot.get("source_files"))), {})
        return item.get("name") or source.get("file_name"), slot
    image = mapping(content.get("image"))
    return image.get("original_filename") or image.get("filename"), image


def _polygons(row: dict[str, Any]) -> list[list[float]] | None:
    """COCO's segmentation of `paths` (2.0), or of `path` and `additional_paths` (1.0); None without one."""
    polygon = mapping(row.get("polygon"))
    paths = [polygon.get("path")]
    for key in ("paths", "additional_paths"):
        paths += polygon[key] if isinstance(polygon.get(key), list) else []
    found = []
    for path in paths:
        outline = flat(named_points(path))
        found += outline or []
    return found or None


def read(tree: Tree, report: Report) -> Raw:
    """Read the `bounding_box` of every annotation in pixels from 0 (docs.v7labs.com, 'Darwin JSON'); a polygon has one too."""
    collected = Collected(tree, report)
    for file in {file: None for keys in _KINDS for file in with_keys(tree, *keys)}:
        content = mapping(content_of(tree, file, report))
        collected.used.add(file)
        found = rows(content.get("annotations"))
        if any("frames" in row for row in found):
            report.add("other_task", file, "annotations of a video's frames are not read: export pictures")
            continue
        name, size = _picture(content)
        image = collected.named(
            name, file, declared=pixel_size(size.get("width"), size.get("height")), lost=len(found)
        )
        if image is None:
            continue
        tags = 0
        for place, row in enumerate(found, start=1):
            if "bounding_box" not in row:
                if any(kind in row for kind in _WITHOUT_BOX):
                    tags += 1
                else:
                    collected.no_box(image, "an annotation of another kind", file, f"annotation {place}")
                continue
            corners = xywh(numbers(mapping(row["bounding_box"]).get(side) for side in "xywh"))
            wanted = "bounding_box must have finite numbers x, y, w, h"
            collected.box(
                image,
                row.get("name"),
                corners,
                file,
                f"annotation {place}",
                segmentation=_polygons(row),
                wanted=wanted,
            )
        if tags:
            report.add("other_task", file, f"{tags} tags of whole pictures are not read")
    return collected.raw()
