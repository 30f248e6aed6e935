"""BDD100K and Scalabel JSON (doc.bdd100k.com/format.html): frames with `labels` of `category` and `box2d`."""

from collections.abc import Iterator
from typing import Any

from worker.data.faults import Report
from worker.data.formats.collecting import Collected
from worker.data.formats.json_files import content_of, first_with, mapping, rows, with_keys
from worker.data.formats.raw import Corners, Raw, numbers
from worker.data.tree import Tree

NAME = "bdd100k"
TITLE = "BDD100K or Scalabel JSON"
_KEYS = ("category", "box2d")


def recognise(tree: Tree) -> str | None:
    """The evidence for this format in the tree, or None."""
    file = first_with(tree, *_KEYS)
    return f"BDD100K JSON, such as {file}" if file else None


def _frames(content: object) -> Iterator[tuple[object, list[dict[str, Any]]]]:
    """(picture's name, labels) of each labelled frame: a list, Scalabel's {frames: [...]}, or one file a picture."""
    whole = mapping(content)
    if isinstance(whole.get("name"), str) and isinstance(whole.get("frames"), list):
        found = [
            frame["objects"] for frame in rows(whole["frames"]) if isinstance(frame.get("objects"), list)
        ]
        if found:
            yield whole["name"], [row for objects in found for row in rows(objects)]
        return
    for frame in rows(whole.get("frames", content)):
        if isinstance(frame.get("labels"), list):
            yield frame.get("name"), rows(frame["labels"])


def _corners(value: object) -> Corners | None:
    found = numbers(mapping(value).get(key) for key in ("x1", "y1", "x2", "y2"))
    # The last pixel belongs to the object: Scalabel's own width is x2 - x1 + 1 (scalabel/label/transforms.py).
    return (found[0], found[1], found[2] + 1, found[3] + 1) if found else None


def read(tree: Tree, report: Report) -> Raw:
    """Read every frame's boxes; lanes and drivable areas (`poly2d`) are another task and are counted."""
    collected = Collected(tree, report)
    for file in with_keys(tree, *_KEYS):
        collected.used.add(file)
        others = 0
        for name, labels in _frames(content_of(tree, file, report)):
            boxes = [row for row in labels if row.get("box2d") is not None]
            others += len(labels) - len(boxes)
            image = collected.named(name, file, lost=len(boxes))
            if image is None:
                continue
            for place, row in enumerate(boxes, start=1):
                crowd = mapping(row.get("attributes")).get("crowd") is True
                reference = f"{name}, label {row.get('id', place)}"
                wanted = "box2d must have finite numbers x1, y1, x2, y2"
                corners = _corners(row["box2d"])
                collected.box(
                    image, row.get("category"), corners, file, reference, crowd=crowd, wanted=wanted
                )
        if others:
            report.add("other_task", file, f"{others} labels without box2d (lanes, areas) are not read")
    return collected.raw()
