"""VGG Image Annotator (robots.ox.ac.uk/~vgg/software/via): JSON and CSV of versions 1 and 2, projects of versions 2 and 3."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from worker.data.faults import Report, Unusable
from worker.data.formats import tables, via3
from worker.data.formats.collecting import Collected, around, flat, xywh
from worker.data.formats.json_files import content_of, first_with, mapping, parsed, rows, with_keys
from worker.data.formats.raw import Corners, Raw, RawImage, numbers
from worker.data.tree import Tree

NAME = "via"
TITLE = "VGG Image Annotator: JSON, project or CSV"
_KEYS = ("filename", "regions")
_CELLS = {"region_shape_attributes", "region_attributes"}
_CLASS = ("class", "label", "name", "category", "type", "object", "species")


@dataclass(frozen=True)
class Region:
    """One region as VIA writes it, from either kind of file."""

    filename: object
    shape: dict[str, Any]
    attributes: dict[str, Any]
    file: str
    reference: str


def tables_of(tree: Tree) -> list[str]:
    """The tables of the tree that have VIA's columns."""
    """The tables of the tree that have VIA's columns."""
    return [file for file in tree.with_suffix(*tables.SUFFIXES) if set(tables.header(tree, file)) >= _CELLS]


def recognise(tree: Tree) -> str | None:
    """The evidence for this format in the tree, or None."""
    file = first_with(tree, *_KEYS) or first_with(tree, *via3.KEYS) or next(iter(tables_of(tree)), None)
    return f"VIA regions, such as {file}" if file else None


def _of_json(content: dict[str, Any], file: str) -> Iterator[tuple[object, list[Region]]]:
    entries = mapping(content.get("_via_img_metadata")) or content
    for entry in entries.values():
        if isinstance(entry, dict) and "filename" in entry and isinstance(entry.get("regions"), dict | list):
            given = entry["regions"]
            found = rows(list(given.values()) if isinstance(given, dict) else given)
            name = entry["filename"]
            yield (
                name,
                [
                    Region(
                        name,
                        mapping(region.get("shape_attributes")),
                        mapping(region.get("region_attributes")),
                        file,
                        f"{name} region {place}",
                    )
                    for place, region in enumerate(found)
                ],
            )


def _of_table(tree: Tree, file: str, report: Report) -> Iterator[tuple[object, list[Region]]]:
    counts: dict[str, list[int]] = {}  # picture -> [regions there should be, regions there are]
    for line, row in tables.rows(tree, file, report):
        name = row.get("filename", "")
        empty = row.get("region_count") == "0" or row["region_shape_attributes"] in ("", "{}")
        shape, attributes = (
            mapping(parsed(row["region_shape_attributes"])),
            mapping(parsed(row["region_attributes"])),
        )
        wanted = row.get("region_count", "")
        count = counts.setdefault(name, [int(wanted) if wanted.isdecimal() else 0, 0])
        count[1] += not empty
        yield name, [] if empty else [Region(name, shape, attributes, file, f"line {line}")]
    for name, (wanted_regions, found) in counts.items():
        if found < wanted_regions:
            reason = f"{name} should have {wanted_regions} regions and has {found}"
            report.add("invalid_annotation", file, reason, name, lost=wanted_regions - found)


def _options(content: dict[str, Any]) -> dict[str, dict[str, str]]:
    """attribute -> {number: what it means}, from a project's own list of choices."""
    region = mapping(mapping(content.get("_via_attributes")).get("region"))
    return {
        name: {
            key: str(text)
            for key, text in mapping(mapping(given).get("options")).items()
            if key.isdigit() and text
        }
        for name, given in region.items()
    }


def _class_attribute(regions: list[Region], report: Report) -> str | None:
    """The attribute that holds the class; None when no region has any. Raises Unusable when it could be several."""
    found = {
        name: None for region in regions for name, value in region.attributes.items() if value not in ("", {})
    }
    for usual in _CLASS:
        for name in found:
            if name.lower() == usual:
                return name
    if len(found) > 1:
        raise Unusable(
            f"The VIA regions have the attributes {', '.join(map(repr, found))}, and none is called 'class' or 'label'. "
            "Rename the one that holds the class to 'class'.",
            report.to_json(),
        )
    return next(iter(found), None)


def _category(value: object, options: dict[str, str]) -> object:
    if isinstance(value, dict):  # check boxes: {"cat": true}
        chosen = [name for name, on in value.items() if on]
        value = chosen[0] if len(chosen) == 1 else None
    return options.get(value, value) if isinstance(value, str) else value


def _corners(shape: dict[str, Any]) -> tuple[Corners | None, list[list[float]] | None]:
    """(corners, polygon) of a shape; no corners where the numbers are missing."""
    match shape.get("name"):
        case "rect":
            return xywh(numbers(shape.get(key) for key in ("x", "y", "width", "height"))), None
        case "polygon":
            xs, ys = numbers(shape.get("all_points_x") or ()), numbers(shape.get("all_points_y") or ())
            if xs is None or ys is None or len(xs) != len(ys):
                return None, None
            found = [[x, y] for x, y in zip(xs, ys, strict=True)]
            return around(found), flat(found)
        case "circle":
            found_circle = numbers(shape.get(key) for key in ("cx", "cy", "r"))
            if found_circle is None:
                return None, None
            x, y, radius = found_circle
            return (x - radius, y - radius, x + radius, y + radius), None
        case "ellipse":
            values = numbers([*(shape.get(key) for key in ("cx", "cy", "rx", "ry")), shape.get("theta") or 0])
            if values is None:
                return None, None
            x, y, a, b, theta = values
            half_width = math.hypot(a * math.cos(theta), b * math.sin(theta))
            half_height = math.hypot(a * math.sin(theta), b * math.cos(theta))
            return (x - half_width, y - half_height, x + half_width, y + half_height), None
    return None, None


def _region(
    collected: Collected, image: RawImage, region: Region, attribute: str | None, options: dict[str, str]
) -> None:
    kind = region.shape.get("name")
    if kind in ("point", "polyline"):
        collected.no_box(image, f"a region of type '{kind}'", region.file, region.reference)
        return
    corners, polygon = _corners(region.shape)
    category = _category(region.attributes.get(attribute), options) if attribute else "object"
    collected.box(image, category, corners, region.file, region.reference, segmentation=polygon)


def read(tree: Tree, report: Report) -> Raw:
    """Read every region; coordinates are continuous pixels from 0. Regions without any attribute are called 'object', said so."""
    collected = Collected(tree, report)
    entries: list[tuple[str, object, list[Region]]] = []
    options: dict[str, dict[str, str]] = {}
    for file in with_keys(tree, *_KEYS):
        given = content_of(tree, file, report)
        content = mapping(given)
        found = list(_of_json(content, file))
        if found or given is None:
            collected.used.add(file)
            entries += ((file, name, regions) for name, regions in found)
            options.update(_options(content))
    for file in with_keys(tree, *via3.KEYS):
        collected.used.add(file)
        for name, shapes in via3.entries(mapping(content_of(tree, file, report))):
            entries.append((file, name, [Region(name, *shape[:2], file, shape[2]) for shape in shapes]))
    for file in tables_of(tree):
        collected.used.add(file)
        entries += ((file, name, regions) for name, regions in _of_table(tree, file, report))
    every = [region for *_, regions in entries for region in regions]
    attribute = _class_attribute(every, report)
    if attribute is None and every:
        reason = "the regions have no attribute that names a class: all of them are called 'object'"
        report.add("unnamed_classes", every[0].file, reason)
    for file, name, regions in entries:
        image = collected.named(name, file, lost=len(regions))
        if image is not None:
            for region in regions:
                _region(collected, image, region, attribute, options.get(attribute or "", {}))
    return collected.raw()
