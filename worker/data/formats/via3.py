"""Projects of VGG Image Annotator 3, brought to the shapes and attributes of version 2 (gitlab.com/vgg/via, via-3.x.y/CodeDoc)."""

from collections.abc import Iterator
from typing import Any

from worker.data.formats.json_files import mapping

KEYS = ("metadata", "view", "fid_list", "xy")
_KINDS = {1: "point", 2: "rect", 3: "circle", 4: "ellipse", 5: "polyline", 6: "polyline", 7: "polygon"}
_NUMBERS = {
    "rect": ("x", "y", "width", "height"),
    "circle": ("cx", "cy", "r"),
    "ellipse": ("cx", "cy", "rx", "ry"),
}

Region = tuple[dict[str, Any], dict[str, Any], str]


def _shape(xy: list[Any]) -> dict[str, Any]:
    kind = _KINDS.get(xy[0], f"shape {xy[0]}") if isinstance(xy[0], int) else "unknown"
    if kind == "polygon":
        return {"name": kind, "all_points_x": xy[1::2], "all_points_y": xy[2::2]}
    return {"name": kind, **dict(zip(_NUMBERS.get(kind, ()), xy[1:], strict=False))}


def entries(content: dict[str, Any]) -> Iterator[tuple[object, list[Region]]]:
    """(picture's name, [(shape, attributes, reference)]) of every view of one picture."""
    files, attributes = mapping(content.get("file")), mapping(content.get("attribute"))
    regions: dict[str, list[Region]] = {}
    for identity, row in mapping(content.get("metadata")).items():
        entry = mapping(row)
        xy = entry.get("xy")
        if isinstance(xy, list) and xy:
            values = {}
            for number, value in mapping(entry.get("av")).items():
                attribute = mapping(attributes.get(number))
                options = mapping(attribute.get("options"))
                # Of a list of choices the number is written; what the project does not list is no class.
                known = options.get(value) if isinstance(value, str) else None
                values[str(attribute.get("aname", number))] = known if options or not attribute else value
            regions.setdefault(str(entry.get("vid")), []).append((_shape(xy), values, f"region {identity}"))
    for view, row in mapping(content.get("view")).items():
        listed = mapping(row).get("fid_list")
        if isinstance(listed, list) and len(listed) == 1:
            file = mapping(files.get(str(listed[0])))
            yield file.get("src") or file.get("fname"), regions.pop(view, [])
    yield from regions.items()  # of views that are not there
