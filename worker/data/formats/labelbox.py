"""Labelbox's exports: JSON lines of `data_row` and `projects`, or the list of `Labeled Data` and `Label` of before 2023."""

from typing import Any

from worker.data.faults import Report
from worker.data.formats.collecting import Collected, around, flat, xywh
from worker.data.formats.json_files import entries_of, first_with, mapping, named_points, rows, with_keys
from worker.data.formats.locate import locate
from worker.data.formats.raw import Corners, Raw, numbers, pixel_size
from worker.data.tree import NoSuchPicture, Tree

NAME = "labelbox"
TITLE = "Labelbox export (JSON lines, or the older JSON)"
_KINDS = (("data_row", "projects"), ("Label", "objects", "schemaId"))
_SUFFIXES = (".ndjson", ".jsonl", ".json")


def recognise(tree: Tree) -> str | None:
    """The evidence for this format in the tree, or None."""
    for keys in _KINDS:
        if file := first_with(tree, *keys, suffixes=_SUFFIXES):
            return f"an export of Labelbox, {file}"
    return None


def _name(tree: Tree, file: str, names: list[object]) -> object:
    """Of what a picture is called that which leads to one of the tree; else the first."""
    written = [name for name in names if isinstance(name, str) and name]
    for name in written:
        try:
            locate(tree, name, file)
        except NoSuchPicture:
            continue
        return name
    return written[0] if written else None


def _labels(entry: dict[str, Any]) -> list[dict[str, Any]]:
    """What each annotator said of the picture; nothing of one that skipped it."""
    if "projects" not in entry:
        label = entry.get("Label")
        return [label] if isinstance(label, dict) and isinstance(label.get("objects"), list) else []
    found = [
        label
        for project in mapping(entry["projects"]).values()
        for label in rows(mapping(project).get("labels"))
    ]
    return [
        label["annotations"]
        for label in found
        if isinstance(label.get("annotations"), dict)
        and mapping(label.get("performance_details")).get("skipped") is not True
    ]


def _shape(row: dict[str, Any]) -> tuple[Corners | None, list[list[float]] | None]:
    box = row.get("bounding_box") or row.get("bbox")
    if isinstance(box, dict):
        return xywh(numbers(box.get(side) for side in ("left", "top", "width", "height"))), None
    points = named_points(row.get("polygon"))
    return around(points), flat(points)


def read(tree: Tree, report: Report) -> Raw:
    """Read boxes and polygons in pixels from 0 (docs.labelbox.com, 'Export image annotations'), those of the first annotator.

    A picture that nobody labelled, or that was skipped, has no answer.
    """
    collected = Collected(tree, report)
    files = {file: None for keys in _KINDS for file in with_keys(tree, *keys, suffixes=_SUFFIXES)}
    for file in files:
        collected.used.add(file)
        several = videos = 0
        for place, entry in entries_of(tree, file, report):
            said = _labels(entry)
            if not said:
                continue
            if "objects" not in said[0]:
                videos += 1
                continue
            several += len(said) > 1
            row, media = mapping(entry.get("data_row")), mapping(entry.get("media_attributes"))
            found = rows(said[0]["objects"])
            image = collected.named(
                _name(
                    tree,
                    file,
                    [
                        row.get("external_id"),
                        row.get("global_key"),
                        row.get("row_data"),
                        entry.get("External ID"),
                        entry.get("Labeled Data"),
                    ],
                ),
                file,
                declared=pixel_size(media.get("width"), media.get("height")),
                lost=len(found),
            )
            if image is None:
                continue
            for number, each in enumerate(found, start=1):
                reference = f"entry {place}, object {number}"
                if not {"bounding_box", "bbox", "polygon"} & {key for key, value in each.items() if value}:
                    kind = str(each.get("annotation_kind", "an object of another kind"))
                    collected.no_box(image, kind, file, reference)
                    continue
                corners, polygon = _shape(each)
                wanted = "finite numbers left, top, width, height are wanted"
                name = each.get("name") or each.get("title") or each.get("value")
                collected.box(image, name, corners, file, reference, segmentation=polygon, wanted=wanted)
        if several:
            reason = f"{several} pictures were labelled more than once: the first labels are read, the others are not"
            report.add("extra_columns", file, reason, lost=0)
        if videos:
            report.add(
                "other_task", file, f"{videos} entries have no objects of a picture (videos, texts): not read"
            )
    return collected.raw()
