"""PASCAL VOC XML: `Annotations/*.xml`, `JPEGImages/`, `ImageSets/Main/*.txt` where there; or XML beside the pictures."""

from xml.etree.ElementTree import Element, ParseError

import defusedxml.ElementTree
from defusedxml import DefusedXmlException

from worker.data.faults import Report
from worker.data.formats.raw import (
    Raw,
    RawBox,
    RawImage,
    category_name,
    head_of,
    numbers,
    pixel_size,
    text_of,
)
from worker.data.splits import split_of_folders
from worker.data.tree import NotFound, Tree, join, parent, stem

NAME = "voc"
TITLE = "PASCAL VOC XML (Annotations/*.xml, JPEGImages/, ImageSets/Main/*.txt where there)"
_SETS = {"train": "train", "val": "val", "test": "test", "trainval": "train"}
_CORNERS = ("xmin", "ymin", "xmax", "ymax")


def _xml_files(tree: Tree) -> list[str]:
    return [file for file in tree.with_suffix(".xml") if "<annotation" in head_of(tree, file)]


def recognise(tree: Tree) -> str | None:
    """The evidence for this format in the tree, or None."""
    files = _xml_files(tree)
    return f"{len(files)} VOC XML, such as {files[0]}" if files else None


def _image_sets(tree: Tree, report: Report) -> dict[str, str]:
    """Image stem -> split, from ImageSets/Main; a picture's own val or test list goes before trainval."""
    splits: dict[str, str] = {}
    for name, split in _SETS.items():
        for file in tree.with_suffix(f"/main/{name}.txt"):
            for line in (text_of(tree, file, report) or "").splitlines():
                if words := line.split():
                    splits.setdefault(words[0], split)
    return splits


def _image_path(tree: Tree, file: str, filename: str) -> str:
    here = parent(file)
    near = [here, join(parent(here), "JPEGImages"), join(parent(here), "images"), "JPEGImages", "images"]
    split = split_of_folders(file)
    try:
        # The XML's own name is the image's id in VOC; <filename> is often left over from another machine.
        return tree.image_of_stem(stem(file), near, split)
    except NotFound:
        if not filename:
            raise
        return tree.image_named(filename, near, split)


def _text(element: Element, path: str) -> str:
    return (element.findtext(path) or "").strip()


def _box(item: Element, file: str, reference: str, report: Report) -> RawBox | None:
    category = category_name(_text(item, "name"))
    if not category:
        report.add("unknown_category", file, "the object has no <name>", reference)
        return None
    written = [_text(item, f"bndbox/{corner}") for corner in _CORNERS]
    corners = numbers(written)
    if corners is None:
        report.add(
            "invalid_annotation", file, f"bndbox is {written}, four finite numbers are wanted", reference
        )
        return None
    if corners[2] <= corners[0] or corners[3] <= corners[1]:
        report.add(
            "degenerate_box", file, f"xmax, ymax must lie beyond xmin, ymin; found {written}", reference
        )
        return None
    return RawBox(category, (corners[0], corners[1], corners[2], corners[3]), file, reference)


def read(tree: Tree, report: Report) -> Raw:
    """Read every VOC XML of the tree.

    VOC corners count pixels from 1 and include the last one: (xmin - 1, ymin - 1, xmax, ymax) in continuous
    coordinates (VOC devkit, section 'Annotation'). An archive in which a coordinate 0 occurs was written by a tool
    that counts from 0; there nothing is subtracted.
    """
    listed = _image_sets(tree, report)
    images: dict[str, RawImage] = {}
    files = _xml_files(tree)
    for file in files:
        try:
            # Bytes, not text: the XML says its own encoding.
            root = defusedxml.ElementTree.fromstring(tree.absolute(file).read_bytes())
        except (ParseError, DefusedXmlException, ValueError, LookupError, OSError) as error:
            report.add("unreadable_file", file, f"not valid XML: {error}")
            continue
        objects = list(root.iter("object"))
        try:
            path = _image_path(tree, file, _text(root, "filename"))
        except NotFound as refusal:
            code = refusal.code if refusal.code == "unsafe_path" else "label_without_image"
            report.add(code, file, f"no picture for it: {refusal.reason}", lost=len(objects), image=True)
            continue
        split = listed.get(stem(file)) or split_of_folders(path)
        image = images.setdefault(
            path,
            RawImage(path, split, declared=pixel_size(_text(root, "size/width"), _text(root, "size/height"))),
        )
        for place, item in enumerate(objects, start=1):
            if box := _box(item, file, f"object {place}", report):
                image.boxes.append(box)
    for path in sorted(set(tree.images) - images.keys()):
        report.add("unlisted_image", path, "no XML belongs to this picture", lost=0, image=True)
    return Raw(list(images.values()), notes=[_count_from(images)])


def _count_from(images: dict[str, RawImage]) -> str:
    boxes = [box for image in images.values() for box in image.boxes]
    if any(box.corners[0] == 0 or box.corners[1] == 0 for box in boxes):
        return "VOC corners count from 0 in this archive (a coordinate 0 occurs): taken as they are"
    for box in boxes:
        x1, y1, x2, y2 = box.corners
        box.corners = (x1 - 1, y1 - 1, x2, y2)
    return "VOC corners count from 1: one pixel was taken off xmin and ymin"
