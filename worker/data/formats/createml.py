"""Apple CreateML JSON: a list of {image, annotations: [{label, coordinates}]}, boxes by their centre in pixels."""

from worker.data.faults import Report
from worker.data.formats.collecting import Collected
from worker.data.formats.json_files import content_of, first_with, mapping, rows, with_keys
from worker.data.formats.raw import Corners, Raw, numbers
from worker.data.tree import Tree

NAME = "createml"
TITLE = "Apple CreateML JSON"
_KEYS = ("label", "coordinates")


def recognise(tree: Tree) -> str | None:
    """The evidence for this format in the tree, or None."""
    file = first_with(tree, *_KEYS)
    return f"CreateML JSON, such as {file}" if file else None


def _corners(value: object) -> Corners | None:
    given = mapping(value)
    found = numbers(given.get(key) for key in ("x", "y", "width", "height"))
    if found is None:
        return None
    x, y, width, height = found
    return x - width / 2, y - height / 2, x + width / 2, y + height / 2


def read(tree: Tree, report: Report) -> Raw:
    """Read every CreateML file: x and y are the box's centre (developer.apple.com, 'Building an object detector data source')."""
    collected = Collected(tree, report)
    for file in with_keys(tree, *_KEYS):
        collected.used.add(file)
        for place, entry in enumerate(rows(content_of(tree, file, report)), start=1):
            given = entry.get("annotations", entry.get("annotation"))
            if not isinstance(given, list):  # unlabelled
                continue
            found = rows(given)
            name = entry.get("image") or entry.get("imagefilename")
            image = collected.named(name, file, lost=len(found))
            if image is None:
                continue
            for number, item in enumerate(found, start=1):
                reference = f"entry {place}, annotation {number}"
                wanted = "coordinates of finite numbers x, y, width, height"
                corners = _corners(item.get("coordinates"))
                collected.box(image, item.get("label"), corners, file, reference, wanted=wanted)
    return collected.raw()
