"""Apple CreateML JSON: a list of {image, annotations: [{label, coordinates}]}, boxes by their centre in pixels."""

from dataclasses import dataclass

from worker.data.faults import Report
from worker.data.formats import box_order
from worker.data.formats.box_order import Reading, Sized, Sizes
from worker.data.formats.collecting import Collected
from worker.data.formats.json_files import content_of, first_with, mapping, rows, with_keys
from worker.data.formats.raw import Raw, RawImage, numbers
from worker.data.tree import Tree

NAME = "createml"
TITLE = "Apple CreateML JSON"
_KEYS = ("label", "coordinates")


def recognise(tree: Tree) -> str | None:
    """The evidence for this format in the tree, or None."""
    file = first_with(tree, *_KEYS)
    return f"CreateML JSON, such as {file}" if file else None


@dataclass(frozen=True, slots=True)
class _Item:
    """One annotation: four numbers x, y, width, height, or None where they cannot be read."""

    image: RawImage
    label: object
    four: list[float] | None
    reference: str


def _items(collected: Collected, file: str) -> list[_Item]:
    found = []
    for place, entry in enumerate(rows(content_of(collected.tree, file, collected.report)), start=1):
        given = entry.get("annotations", entry.get("annotation"))
        if not isinstance(given, list):  # unlabelled
            continue
        name = entry.get("image") or entry.get("imagefilename")
        image = collected.named(name, file, lost=len(rows(given)))
        if image is None:
            continue
        for number, item in enumerate(rows(given), start=1):
            sides = mapping(item.get("coordinates"))
            four = numbers(sides.get(key) for key in ("x", "y", "width", "height"))
            found.append(_Item(image, item.get("label"), four, f"entry {place}, annotation {number}"))
    return found


def _meaning(tree: Tree, items: list[_Item], file: str, report: Report) -> tuple[Reading, bool]:
    """(what x and y are, whether all four are fractions): the centre in pixels, unless the boxes say otherwise; that is said."""
    sizes = Sizes(tree)
    boxes: list[Sized] = [(item.four, sizes.of(item.image.path)) for item in items if item.four]
    fractions = box_order.are_fractions(boxes) and any(0 < side < 1 for box, _ in boxes for side in box)
    if fractions:
        reason = "no number of any box is above 2: read as fractions of the pictures, not pixels"
        report.add("box_order", file, reason)
    found = box_order.meant(box_order.center_and_size, boxes, fractions=fractions)
    if box_order.corner_and_size not in found:
        return box_order.center_and_size, fractions
    reason = f"many boxes lie outside the pictures around their centre and none as {box_order.NAMES[box_order.corner_and_size]}"
    report.add("box_order", file, f"{reason}: read so")
    return box_order.corner_and_size, fractions


def read(tree: Tree, report: Report) -> Raw:
    """Read every CreateML file: x and y are the box's centre (developer.apple.com, 'Building an object detector data source')."""
    collected = Collected(tree, report)
    for file in with_keys(tree, *_KEYS):
        collected.used.add(file)
        items = _items(collected, file)
        reading, fractions = _meaning(tree, items, file, report)
        for item in items:
            item.image.relative = fractions
            corners = reading(item.four) if item.four else None
            wanted = "coordinates of finite numbers x, y, width, height"
            collected.box(item.image, item.label, corners, file, item.reference, wanted=wanted)
    return collected.raw()
