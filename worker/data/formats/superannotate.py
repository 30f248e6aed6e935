"""SuperAnnotate's vector projects: one JSON a picture with `metadata` and `instances`, and `classes.json`."""

import math
from typing import Any

from worker.data.faults import Report
from worker.data.formats import rotated
from worker.data.formats.collecting import Collected, around, flat
from worker.data.formats.json_files import content_of, first_with, mapping, rows, with_keys
from worker.data.formats.raw import Corners, Raw, numbers, pixel_size
from worker.data.tree import Tree

NAME = "superannotate"
TITLE = "SuperAnnotate JSON (metadata, instances)"
_KEYS = ("metadata", "instances")
_CLASSES = ("attribute_groups", "name", "color")
_CORNERS = {"bbox": 2, "rbbox": 4}


def recognise(tree: Tree) -> str | None:
    """The evidence for this format in the tree, or None."""
    for named in ("className", "classId"):
        if file := first_with(tree, *_KEYS, named):
            return f"SuperAnnotate JSON, such as {file}"
    return None


def _names(tree: Tree, report: Report, collected: Collected) -> dict[str, str]:
    """{number: class} of classes.json, in its order."""
    found: dict[str, str] = {}
    for file in with_keys(tree, *_CLASSES):
        content = content_of(tree, file, report)
        if isinstance(content, list):
            collected.used.add(file)
            found |= {str(row.get("id")): str(row.get("name", "")) for row in rows(content)}
    return found


def _shape(row: dict[str, Any]) -> tuple[Corners | None, list[list[float]] | None, bool]:
    """The upright box, the polygon of one, and whether the box was turned."""
    kind, given = row.get("type"), row.get("points")
    if kind in _CORNERS:
        named = [
            (mapping(given).get(f"x{place}"), mapping(given).get(f"y{place}"))
            for place in range(1, _CORNERS[kind] + 1)
        ]
        pairs = [numbers(pair) for pair in named]
        points = [pair for pair in pairs if pair]
        corners = around(points) if len(points) == len(pairs) else None
        return corners, None, kind == "rbbox" and len({round(x, 3) for x, _ in points}) > 2
    if kind == "ellipse":
        values = numbers(row.get(key) for key in ("cx", "cy", "rx", "ry"))
        angle = numbers([row.get("angle", 0)])
        if not values or not angle:
            return None, None, False
        cosine, sine = math.cos(math.radians(angle[0])), math.sin(math.radians(angle[0]))
        across, down = (
            math.hypot(values[2] * cosine, values[3] * sine),
            math.hypot(values[2] * sine, values[3] * cosine),
        )
        return (values[0] - across, values[1] - down, values[0] + across, values[1] + down), None, False
    flatly = numbers(given) if isinstance(given, list) else None
    points = [[x, y] for x, y in zip(flatly[::2], flatly[1::2], strict=False)] if flatly else []
    return around(points), flat(points), False


def read(tree: Tree, report: Report) -> Raw:
    """Read boxes, turned boxes, polygons and ellipses in pixels from 0 (doc.superannotate.com, 'Vector JSON')."""
    collected = Collected(tree, report)
    names = _names(tree, report, collected)
    collected.name_all(names.values())
    for file in with_keys(tree, *_KEYS):
        content = mapping(content_of(tree, file, report))
        metadata, found = mapping(content.get("metadata")), rows(content.get("instances"))
        collected.used.add(file)
        image = collected.named(
            metadata.get("name"),
            file,
            declared=pixel_size(metadata.get("width"), metadata.get("height")),
            lost=len(found),
        )
        if image is None:
            continue
        turned = 0
        for place, row in enumerate(found, start=1):
            reference = f"instance {place}"
            if row.get("type") not in (*_CORNERS, "polygon", "ellipse"):
                collected.no_box(image, f"a {row.get('type', 'thing of no type')}", file, reference)
                continue
            corners, polygon, is_turned = _shape(row)
            turned += is_turned
            name = row.get("className") or names.get(str(row.get("classId")))
            collected.box(image, name, corners, file, reference, segmentation=polygon)
        rotated.say(report, file, turned)
    return collected.raw()
