"""LabelMe JSON, one file a picture: `shapes` of `label` and `points` (github.com/wkentaro/labelme); also AnyLabeling's."""

import base64
import math
from collections.abc import Sequence
from typing import Any

from worker.data.faults import Report
from worker.data.formats import rotated
from worker.data.formats.collecting import Collected, around, flat
from worker.data.formats.json_files import content_of, first_with, mapping, points, rows, with_keys
from worker.data.formats.locate import locate
from worker.data.formats.pairing import Taken, pictures_of
from worker.data.formats.raw import Corners, Raw, RawImage, is_set_aside, pixel_size
from worker.data.splits import split_of_file
from worker.data.tree import NoSuchPicture, Tree, parent, stem

NAME = "labelme"
TITLE = "LabelMe JSON, one file beside each picture (also AnyLabeling)"
_KEYS = ("shapes", "imagePath")
_WITHOUT_AREA = ("point", "points", "line", "linestrip", "cuboid")


def recognise(tree: Tree) -> str | None:
    """The evidence for this format in the tree, or None."""
    file = first_with(tree, *_KEYS)
    return f"LabelMe JSON, such as {file}" if file else None


def _corners(kind: str, found: Sequence[Sequence[float]]) -> Corners | None:
    if kind == "circle" and len(found) == 2:
        (x, y), (edge_x, edge_y) = found
        radius = math.hypot(edge_x - x, edge_y - y)
        return x - radius, y - radius, x + radius, y + radius
    return around(found)


def _shape(collected: Collected, image: RawImage, shape: dict[str, Any], file: str, reference: str) -> bool:
    """Add one shape; True where it was rotated."""
    # Files of the first versions have polygons only and say no type.
    kind = shape.get("shape_type") or "polygon"
    if kind in _WITHOUT_AREA:
        collected.no_box(image, f"a shape of type '{kind}'", file, reference)
        return False
    parts = [points(part) for part in shape.get("parts", [shape.get("points")])]
    found = [point for part in parts for point in part] if all(parts) else []
    polygons = [polygon for part in parts for polygon in flat(part) or ()] if kind == "polygon" else None
    collected.box(
        image,
        shape.get("label"),
        _corners(kind, found),
        file,
        reference,
        ignore=is_set_aside(shape, mapping(shape.get("flags"))),
        segmentation=polygons or None,
        wanted="'points' must be at least two pairs of finite numbers",
    )
    return kind == "rotation"


def _embedded(collected: Collected, content: dict[str, Any], file: str) -> str | None:
    """The picture that LabelMe put into the file itself, laid beside the archive; None where there is none."""
    data, written = content.get("imageData"), content.get("imagePath")
    if not isinstance(data, str) or not data:
        return None
    try:
        picture = base64.b64decode(data.partition("base64,")[2] or data)
    except ValueError:
        return None
    return collected.tree.add_picture(file, stem(file), written if isinstance(written, str) else "", picture)


def _picture(
    collected: Collected, content: dict[str, Any], file: str, of_stem: str | NoSuchPicture
) -> RawImage | None:
    declared = pixel_size(content.get("imageWidth"), content.get("imageHeight"))
    # The picture beside it is meant: `imagePath` is often left over from another machine or another name.
    beside = [path for path in collected.tree.namesakes(file) if parent(path) == parent(file)]
    if len(beside) == 1:
        return collected.at(beside[0], declared=declared)
    written = content.get("imagePath")
    try:
        path = locate(collected.tree, written if isinstance(written, str) else "", file, split_of_file(file))
        if isinstance(of_stem, Taken) and path in collected.tree.namesakes(file):
            raise of_stem
    except NoSuchPicture as stale:
        found = of_stem if isinstance(of_stem, str) else _embedded(collected, content, file)
        if found is None:
            lost = len(rows(content.get("shapes")))
            reason = f"{stale.reason} (named in {file})"
            collected.report.add(stale.code, str(written), reason, lost=lost, image=True)
            return None
        path = found
    return collected.at(path, split=split_of_file(file), declared=declared)


def _objects(shapes: Sequence[dict[str, Any]]) -> list[tuple[int, dict[str, Any]]]:
    """(place, shape) of each object: polygons of one label and one `group_id` are parts of one, as in labelme2coco.py."""
    found: list[tuple[int, dict[str, Any]]] = []
    parts: dict[tuple[str, str], dict[str, Any]] = {}
    for place, shape in enumerate(shapes, start=1):
        group, kind = shape.get("group_id"), shape.get("shape_type") or "polygon"
        if group is None or kind != "polygon":
            found.append((place, shape))
            continue
        key = str(shape.get("label")), str(group)
        if key in parts:
            parts[key]["parts"].append(shape.get("points"))
        else:
            parts[key] = shape | {"parts": [shape.get("points")]}
            found.append((place, parts[key]))
    return found


def read(tree: Tree, report: Report) -> Raw:
    """Read every LabelMe file; points are continuous pixels from 0, circles and polygons give the box around them."""
    collected = Collected(tree, report)
    for file, of_stem in pictures_of(tree, with_keys(tree, *_KEYS)).items():
        collected.used.add(file)
        content = content_of(tree, file, report)
        if not isinstance(content, dict) or not isinstance(content.get("shapes"), list):
            if content is not None:
                report.add(
                    "unreadable_file", file, "no LabelMe file: an object with a list 'shapes' is wanted"
                )
            continue
        image = _picture(collected, content, file, of_stem)
        if image is not None:
            turned = [
                _shape(collected, image, shape, file, f"shape {place}")
                for place, shape in _objects(rows(content["shapes"]))
            ]
            rotated.say(report, file, sum(turned))
    return collected.raw()
