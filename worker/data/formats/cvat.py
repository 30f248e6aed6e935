"""CVAT for images 1.1: one XML of `<image>` elements (docs.cvat.ai, manual, formats)."""

from collections import defaultdict
from collections.abc import Iterator
from xml.etree.ElementTree import Element, ParseError

import defusedxml.ElementTree
from defusedxml import DefusedXmlException

from worker.data.faults import Report
from worker.data.formats import rotated
from worker.data.formats.collecting import Collected, around, flat
from worker.data.formats.raw import Corners, Raw, RawImage, head_of, is_set_aside, numbers, pixel_size
from worker.data.splits import split_named
from worker.data.tree import Tree

NAME = "cvat"
TITLE = "CVAT for images (annotations.xml)"
_NO_SHAPES = ("tag", "attribute")  # of the whole picture


def _files(tree: Tree) -> list[str]:
    return [file for file in tree.with_suffix(".xml") if "<annotations" in head_of(tree, file)]


def recognise(tree: Tree) -> str | None:
    """The evidence for this format in the tree, or None."""
    files = _files(tree)
    return f"CVAT XML, such as {files[0]}" if files else None


def _points(item: Element) -> list[list[float]]:
    pairs = [numbers(pair.split(",")) for pair in item.get("points", "").split(";")]
    whole = [pair for pair in pairs if pair and len(pair) == 2]
    return whole if len(whole) == len(pairs) else []


def _corners(item: Element) -> Corners | None:
    match item.tag:
        case "box":
            found = numbers(item.get(key) for key in ("xtl", "ytl", "xbr", "ybr"))
            return (found[0], found[1], found[2], found[3]) if found else None
        case "ellipse":
            found = numbers(item.get(key) for key in ("cx", "cy", "rx", "ry"))
            return (
                (found[0] - found[2], found[1] - found[3], found[0] + found[2], found[1] + found[3])
                if found
                else None
            )
        case "mask":
            found = numbers(item.get(key) for key in ("left", "top", "width", "height"))
            return (found[0], found[1], found[0] + found[2], found[1] + found[3]) if found else None
        case _:
            return around(_points(item))


def _shape(collected: Collected, image: RawImage, item: Element, file: str, reference: str) -> bool:
    """Add one shape; True where it was rotated."""
    if item.tag in ("polyline", "points", "cuboid", "skeleton"):
        collected.no_box(image, f"a {item.tag}", file, reference)
        return False
    corners = _corners(item)
    angle = numbers([item.get("rotation") or 0])
    turned = bool(corners and angle and angle[0] % 360)
    if corners and angle and turned:
        corners = rotated.about_center(corners, angle[0])
    polygon = flat(_points(item)) if item.tag == "polygon" else None
    ignore = is_set_aside({each.get("name", ""): each.text for each in item.iterfind("attribute")})
    collected.box(image, item.get("label"), corners, file, reference, ignore=ignore, segmentation=polygon)
    return turned


def _elements(tree: Tree, file: str, report: Report) -> Iterator[Element]:
    """The images, labels and tracks of a file, one after the other, so that a large file does not lie in memory whole."""
    try:
        for _, element in defusedxml.ElementTree.iterparse(tree.absolute(file), events=("end",)):
            if element.tag in ("image", "track", "labels"):
                yield element
                element.clear()
    except (ParseError, DefusedXmlException, ValueError, LookupError, OSError) as error:
        report.add("unreadable_file", file, f"not valid XML: {error}")


def read(tree: Tree, report: Report) -> Raw:
    """Read every image; coordinates are continuous pixels from 0. Rotated boxes become upright ones, said so."""
    collected = Collected(tree, report)
    for file in _files(tree):
        collected.used.add(file)
        turned = tags = 0
        attributes: dict[str, set[str]] = defaultdict(set)
        labels: set[str] = set()
        for element in _elements(tree, file, report):
            if element.tag == "labels":
                collected.name_all(label.findtext("name") or "" for label in element.iter("label"))
                continue
            if element.tag == "track":
                reason = "a track of CVAT for video; export the task as 'CVAT for images'"
                report.add(
                    "invalid_annotation", file, reason, f"track {element.get('id')}", lost=len(element)
                )
                continue
            shapes = [item for item in element if item.tag not in _NO_SHAPES]
            tags += len(element.findall("tag"))
            labels.update(item.get("label", "") for item in shapes)
            for item in element.iterfind("*/attribute"):
                attributes[item.get("name", "")].add(item.text or "")
            image = collected.named(
                element.get("name"),
                file,
                split=split_named(element.get("subset")),
                declared=pixel_size(element.get("width"), element.get("height")),
                lost=len(shapes),
            )
            if image is None:
                continue
            for place, item in enumerate(shapes, start=1):
                turned += _shape(
                    collected, image, item, file, f"image {element.get('id')}, {item.tag} {place}"
                )
        rotated.say(report, file, turned)
        if tags:
            report.add("other_task", file, f"{tags} tags of whole pictures are not read")
        several = sorted(name for name, values in attributes.items() if len(values) > 1)
        if len(labels) == 1 and several:
            reason = f"all shapes have one label, {min(labels)!r}: the attributes {', '.join(several)} are not read"
            report.add("extra_columns", file, reason, lost=0)
    return collected.raw()
