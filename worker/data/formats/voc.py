"""PASCAL VOC XML: `Annotations/*.xml`, `JPEGImages/`, `ImageSets/Main/*.txt` where there; or XML beside the pictures."""

import re
from xml.etree.ElementTree import Element, ParseError

import defusedxml.ElementTree
from defusedxml import DefusedXmlException

from worker.data.encodings import decode
from worker.data.faults import Report
from worker.data.formats import rotated, split_lists
from worker.data.formats.collecting import around
from worker.data.formats.pairing import Taken, pictures_of
from worker.data.formats.raw import (
    Raw,
    RawBox,
    RawImage,
    category_name,
    head_of,
    numbers,
    pixel_size,
)
from worker.data.splits import split_of_folders
from worker.data.tree import NoSuchPicture, Tree, join, parent

NAME = "voc"
TITLE = "PASCAL VOC XML (Annotations/*.xml, JPEGImages/, ImageSets/Main/*.txt where there)"
_CORNERS = ("xmin", "ymin", "xmax", "ymax")
# <annotations> is CVAT's.
_ROOT = re.compile(r"<[Aa]nnotation[\s>]")
# Three digits may be thousands.
_DECIMAL_COMMA = re.compile(r"^(-?\d+),(\d{1,2}|\d{4,})$")
_DECLARATION = re.compile(r"^\s*<\?xml[^>]*\?>")
_DECLARED = re.compile(rb"""^\s*<\?xml[^>]*encoding=["']([A-Za-z0-9_.-]+)["']""")


def _xml_files(tree: Tree) -> list[str]:
    return [file for file in tree.with_suffix(".xml") if _ROOT.search(head_of(tree, file))]


def recognise(tree: Tree) -> str | None:
    """The evidence for this format in the tree, or None."""
    files = _xml_files(tree)
    return f"{len(files)} VOC XML, such as {files[0]}" if files else None


def _set_files(tree: Tree) -> list[str]:
    """The lists of ImageSets, those of single classes too."""
    return [file for file in tree.with_suffix(".txt") if "imagesets/" in file.lower()]


def _parsed(data: bytes) -> Element:
    """The root of an XML. What it says of its encoding is believed first; many say nothing, or something else than is true.

    Raises ParseError, DefusedXmlException or ValueError.
    """
    try:
        return defusedxml.ElementTree.fromstring(data)
    except DefusedXmlException:
        raise
    except (ParseError, ValueError, LookupError):
        return defusedxml.ElementTree.fromstring(_DECLARATION.sub("", _text_of(data)))


def _text_of(data: bytes) -> str:
    """By the declared encoding, which the parser may not know, else by what the bytes look like."""
    declared = _DECLARED.match(data)
    try:
        return data.decode(declared[1].decode()) if declared else decode(data)
    except (UnicodeDecodeError, LookupError):
        return decode(data)


def _image_path(tree: Tree, file: str, found: str | NoSuchPicture, filename: str) -> str:
    # The XML's own name is the image's id in VOC; <filename> is often left over from another machine.
    if isinstance(found, str):
        return found
    if isinstance(found, Taken) or not filename:
        raise found
    folders = [parent(file), *(join(parent(parent(file)), folder) for folder in ("JPEGImages", "images"))]
    try:
        return tree.image_named(filename, folders, split_of_folders(file))
    except NoSuchPicture as also:
        raise (also if also.code == "unsafe_path" else found) from None


def _text(element: Element, path: str) -> str:
    return (element.findtext(path) or "").strip()


def _of_rotated(item: Element) -> list[float] | None:
    """The upright box around roLabelImg's <robndbox>, counted from 1 like the others."""
    found = numbers(_text(item, f"robndbox/{key}") for key in ("cx", "cy", "w", "h", "angle"))
    if found is None:
        return None
    x1, y1, x2, y2 = rotated.around_rotated(found[:2], found[2:4], found[4])
    return [x1 + 1, y1 + 1, x2, y2]


def _of_polygon(item: Element) -> list[float] | None:
    """The box around the polygon of LabelMe's website, which counts from 0; brought to count from 1."""
    found = [numbers((_text(point, "x"), _text(point, "y"))) for point in item.iterfind("polygon/pt")]
    box = around([point for point in found if point]) if all(found) else None
    return [box[0] + 1, box[1] + 1, box[2], box[3]] if box else None


def _single(item: Element) -> list[Element]:
    """The objects of an <object>: one, or one for each of several <bndbox>, with its <name> where there are as many."""
    boxes, names = item.findall("bndbox"), item.findall("name")
    if len(boxes) < 2:
        return [item]
    rest = [element for element in item if element.tag not in ("bndbox", "name")]
    found = []
    for place, box in enumerate(boxes):
        single = Element(item.tag)
        # Of a number of names that fits nothing none is taken: the box is a fault then.
        name = names if len(names) == 1 else names[place : place + 1] if len(names) == len(boxes) else []
        single.extend([*name, box, *rest])
        found.append(single)
    return found


def _turned(item: Element, corners: list[float]) -> list[float] | None:
    """The upright box around one that CVAT turned about its centre by its attribute `rotation`; None where it is upright."""
    for attribute in item.iterfind("attributes/attribute"):
        degrees = numbers([_text(attribute, "value")]) if _text(attribute, "name") == "rotation" else None
        if degrees and degrees[0] % 360:
            x1, y1, x2, y2 = corners  # counted from 1
            a, b, c, d = rotated.about_center((x1 - 1, y1 - 1, x2, y2), degrees[0])
            return [a + 1, b + 1, c, d]
    return None


def _box(item: Element, file: str, reference: str, report: Report) -> RawBox | None:
    category = category_name(_text(item, "name"))
    if not category:
        report.add("unknown_category", file, "the object has no <name>", reference)
        return None
    written = [_text(item, f"bndbox/{corner}") for corner in _CORNERS]
    polygon = None if any(written) else _of_polygon(item)
    corners = numbers(_DECIMAL_COMMA.sub(r"\1.\2", word) for word in written) or polygon or _of_rotated(item)
    if corners is None:
        report.add(
            "invalid_annotation", file, f"bndbox is {written}, four finite numbers are wanted", reference
        )
        return None
    upright = _turned(item, corners) if any(written) else None
    if upright or (not any(written) and not polygon):
        rotated.say(report, file, 1)
    corners = upright or corners
    x1, x2 = sorted((corners[0], corners[2]))
    y1, y2 = sorted((corners[1], corners[3]))
    if x1 == x2 or y1 == y2:
        report.add(
            "degenerate_box", file, f"xmax, ymax must lie beyond xmin, ymin; found {written}", reference
        )
        return None
    if [x1, y1, x2, y2] != corners:
        report.add("swapped_corners", file, f"xmin, ymin, xmax, ymax are {written}: put in order", reference)
    return RawBox(
        category, (x1, y1, x2, y2), file, reference, ignore=_text(item, "difficult") in ("1", "true", "True")
    )


def read(tree: Tree, report: Report) -> Raw:
    """Read every VOC XML of the tree.

    VOC corners count pixels from 1 and include the last one: (xmin - 1, ymin - 1, xmax, ymax) in continuous
    coordinates (VOC devkit, section 'Annotation'). An archive in which a coordinate 0 occurs was written by a tool
    that counts from 0; there nothing is subtracted.
    """
    lists = split_lists.find(tree)
    listed = split_lists.read(tree, lists, report)
    images: dict[str, RawImage] = {}
    files = _xml_files(tree)
    for file, found in pictures_of(tree, files).items():
        try:
            root = _parsed(tree.absolute(file).read_bytes())
        except (ParseError, DefusedXmlException, ValueError, LookupError, OSError) as error:
            report.add("unreadable_file", file, f"not valid XML: {error}")
            continue
        # LabelMe's website keeps what was deleted.
        found_objects = [item for item in root.iter("object") if _text(item, "deleted") != "1"]
        objects = [single for item in found_objects for single in _single(item)]
        try:
            path = _image_path(tree, file, found, _text(root, "filename"))
        except NoSuchPicture as refusal:
            code = refusal.code if refusal.code == "unsafe_path" else "label_without_image"
            report.add(code, file, f"no picture for it: {refusal.reason}", lost=len(objects), image=True)
            continue
        split = listed.get(path) or split_of_folders(path) or split_of_folders(file)
        image = images.setdefault(
            path,
            RawImage(path, split, declared=pixel_size(_text(root, "size/width"), _text(root, "size/height"))),
        )
        for place, item in enumerate(objects, start=1):
            if box := _box(item, file, f"object {place}", report):
                image.boxes.append(box)
            else:
                image.dropped += 1
    used = {*files, *lists, *_set_files(tree)}
    return Raw(list(images.values()), used, notes=[_count_from(images)])


def _count_from(images: dict[str, RawImage]) -> str:
    boxes = [box for image in images.values() for box in image.boxes]
    if any(box.corners[0] == 0 or box.corners[1] == 0 for box in boxes):
        return "VOC corners count from 0 in this archive (a coordinate 0 occurs): taken as they are"
    for box in boxes:
        x1, y1, x2, y2 = box.corners
        box.corners = (x1 - 1, y1 - 1, x2, y2)
    return "VOC corners count from 1: one pixel was taken off xmin and ymin"
