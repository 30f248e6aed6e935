"""Supervisely projects: `meta.json`, `DATASET/img/a.jpg`, `DATASET/ann/a.jpg.json` (developer.supervisely.com, annotation format)."""

import base64
import struct
import zlib
from typing import Any

from worker.data.faults import Report
from worker.data.formats import rotated
from worker.data.formats.collecting import Collected, around, flat, xywh
from worker.data.formats.json_files import content_of, first_with, mapping, points, rows, with_keys
from worker.data.formats.pairing import pictures_of
from worker.data.formats.raw import Corners, Raw, RawImage, numbers, pixel_size
from worker.data.splits import split_of_folders
from worker.data.tree import NoSuchPicture, Tree

NAME = "supervisely"
TITLE = "Supervisely project (meta.json, img/, ann/)"
_KEYS = ("objects", "size", "height", "width")
_WITHOUT_AREA = ("point", "line", "graph", "cuboid", "any")


def recognise(tree: Tree) -> str | None:
    """The evidence for this format in the tree, or None."""
    kinds = ("exterior", "bitmap", "angle")
    file = next((file for kind in kinds if (file := first_with(tree, "classTitle", kind))), None)
    return f"Supervisely annotations, such as {file}" if file else None


def _names(tree: Tree, collected: Collected) -> None:
    for file in with_keys(tree, "classes", "title"):
        if file.rpartition("/")[2].lower() == "meta.json":
            collected.used.add(file)
            content = mapping(content_of(tree, file, collected.report))
            collected.name_all(
                row["title"] for row in rows(content.get("classes")) if isinstance(row.get("title"), str)
            )


def _of_bitmap(bitmap: dict[str, Any]) -> Corners | None:
    """The box of a bitmap, which is cut to its object: the origin and the size in the header of its packed PNG."""
    origin, data = numbers(bitmap.get("origin") or ()), bitmap.get("data")
    try:
        header = zlib.decompressobj().decompress(base64.b64decode(data, validate=True), 24) if data else b""
    except (ValueError, TypeError, zlib.error):
        return None
    if len(header) < 24 or header[12:16] != b"IHDR":
        return None
    return xywh([*(origin or ()), *map(float, struct.unpack(">II", header[16:24]))])


def _object(collected: Collected, image: RawImage, item: dict[str, Any], file: str, reference: str) -> bool:
    """Add one object; True where it was rotated."""
    kind = str(item.get("geometryType", ""))
    if kind in _WITHOUT_AREA:
        collected.no_box(image, f"an object of type '{kind}'", file, reference)
        return False
    given = item.get("points")
    # Oriented boxes have two points and an angle in radians, all others have an exterior.
    found = points(given if isinstance(given, list) else mapping(given).get("exterior"))
    turned = False
    corners = _of_bitmap(mapping(item.get("bitmap"))) if kind == "bitmap" else around(found)
    if kind in ("oriented_bbox", "rotated_rectangle") and corners:
        angle = numbers([item.get("angle") or 0])
        if angle and angle[0]:
            center = (corners[0] + corners[2]) / 2, (corners[1] + corners[3]) / 2
            corners = rotated.around_rotated(
                center, (corners[2] - corners[0], corners[3] - corners[1]), angle[0]
            )
            turned = True
    collected.box(
        image,
        item.get("classTitle"),
        corners,
        file,
        reference,
        segmentation=flat(found) if kind == "polygon" else None,
        wanted="two pairs of finite numbers in points.exterior, or a bitmap with its origin, are wanted",
    )
    return turned


def read(tree: Tree, report: Report) -> Raw:
    """Read every annotation file of the project; the classes and their order come from meta.json."""
    collected = Collected(tree, report)
    _names(tree, collected)
    for file, path in pictures_of(tree, with_keys(tree, *_KEYS)).items():
        content = mapping(content_of(tree, file, report))
        size = mapping(content.get("size"))
        collected.used.add(file)
        objects = rows(content.get("objects"))
        if isinstance(path, NoSuchPicture):
            report.add("label_without_image", file, path.reason, lost=len(objects))
            continue
        declared = pixel_size(size.get("width"), size.get("height"))
        image = collected.at(path, split=split_of_folders(file), declared=declared)
        turned = [
            _object(collected, image, item, file, f"object {place}")
            for place, item in enumerate(objects, start=1)
        ]
        rotated.say(report, file, sum(turned))
    return collected.raw()
