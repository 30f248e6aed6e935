"""Label Studio's own JSON, JSON-MIN and CSV (labelstud.io/guide/export): results in percent of the picture."""

import math
from collections.abc import Iterator
from typing import Any

from worker.data.faults import Report
from worker.data.formats import rotated, tables
from worker.data.formats.collecting import Collected, around, flat, xywh
from worker.data.formats.json_files import content_of, keys, mapping, parsed, points, rows, sample
from worker.data.formats.locate import is_picture
from worker.data.formats.raw import Corners, Raw, RawImage, head_of, numbers
from worker.data.tree import Tree, written_parts

NAME = "label_studio"
TITLE = "Label Studio JSON, JSON-MIN and CSV"
_LABELS = ("rectanglelabels", "polygonlabels", "ellipselabels", "labels", "hypertextlabels")
_AREAS = frozenset({"width", "points", "radiusX"})
_WITHOUT_AREA = ("keypoint", "keypointlabels", "brush", "brushlabels", "vector", "vectorlabels")


def tables_of(tree: Tree) -> list[str]:
    """The tables of the tree that have results in their cells."""
    return [
        file
        for file in tree.with_suffix(*tables.SUFFIXES)
        if '""original_width""' in (head := head_of(tree, file, 1 << 16)) and "labels" in head
    ]


def _is_mine(tree: Tree, file: str) -> bool:
    found = keys(tree, file)
    return "original_width" in found and not found.isdisjoint(_LABELS)


def recognise(tree: Tree) -> str | None:
    """The evidence for this format in the tree, or None."""
    file = next((file for file in sample(tree.with_suffix(".json")) if _is_mine(tree, file)), None)
    file = file or next(iter(tables_of(tree)), None)
    return f"Label Studio results, such as {file}" if file else None


def _picture_name(data: dict[str, Any]) -> str | None:
    words = {key: value for key, value in data.items() if isinstance(value, str)}
    if "image" in words:
        return words["image"]
    return next((value for value in words.values() if is_picture("/".join(written_parts(value)))), None)


def _by_picture(
    task: dict[str, Any], results: list[dict[str, Any]], file: str, report: Report
) -> list[tuple[str | None, list[dict[str, Any]]]]:
    """(picture's name, its results): of several pictures in one task each result says by `to_name` which one it is about."""
    data = mapping(task.get("data")) or task
    pictures = {
        key
        for key, value in data.items()
        if isinstance(value, str) and is_picture("/".join(written_parts(value)))
    }
    about = {str(row["to_name"]) for row in results if row.get("to_name")}
    if len(pictures) < 2 or len(about) < 2:
        only = data.get(next(iter(about))) if about and about <= pictures else None
        return [(only or _picture_name(data), results)]
    if not about <= pictures:
        listed = ", ".join(sorted(about))
        reason = f"the results are about {listed}, and the task has pictures of other names: {', '.join(sorted(pictures))}"
        report.add("annotation_without_image", file, reason, f"task {task.get('id')}", lost=len(results))
        return []
    return [(data[key], [row for row in results if row.get("to_name") == key]) for key in sorted(about)]


def _results(task: dict[str, Any], file: str, report: Report) -> list[dict[str, Any]] | None:
    """The results of one task; None when nobody has labelled it. Of several annotators the ground truth counts, else the first."""
    if not isinstance(task.get("annotations", task.get("completions")), list):
        flat_results = [row for value in task.values() for row in rows(value) if "original_width" in row]
        return [{"value": row, "type": "", **row} for row in flat_results] or None
    done = [
        row for row in rows(task.get("annotations", task.get("completions"))) if not row.get("was_cancelled")
    ]
    if not done:
        return None
    done.sort(key=lambda row: row.get("ground_truth") is not True)
    for other in done[1:]:
        lost = len(rows(other.get("result")))
        reason = "another annotator's labels of the same task are left aside"
        report.add("duplicate_annotation", file, reason, f"task {task.get('id')}", lost=lost)
    return rows(done[0].get("result"))


def _labels_by_region(results: list[dict[str, Any]]) -> dict[object, str]:
    """Labels that stand in a result of their own, by the id they share with the region."""
    labels = ((row.get("id"), _own_label(mapping(row.get("value")))) for row in results)
    return {str(identity): label for identity, label in labels if identity is not None and label}


def _own_label(value: dict[str, Any]) -> str | None:
    for key in _LABELS:
        given = value.get(key)
        if isinstance(given, list) and given and isinstance(given[0], str):
            return given[0]
    return None


def _corners(value: dict[str, Any]) -> tuple[Corners | None, list[list[float]] | None]:
    if "points" in value:
        found = [[x / 100, y / 100] for x, y in points(value["points"])]
        return around(found), flat(found)
    if "radiusX" in value:
        given = numbers(value.get(key) for key in ("x", "y", "radiusX", "radiusY"))
        if given is None:
            return None, None
        x, y, a, b = (number / 100 for number in given)
        return (x - a, y - b, x + a, y + b), None
    given = numbers(value.get(key) for key in ("x", "y", "width", "height"))
    return xywh([number / 100 for number in given] if given else None), None


def _turned(result: dict[str, Any], value: dict[str, Any], corners: Corners, degrees: float) -> Corners:
    """The upright box around a rotated one: it turns in pixels, not in fractions."""
    size = numbers((result.get("original_width"), result.get("original_height")))
    width, height = size if size and min(size) > 0 else (1.0, 1.0)
    x1, y1, x2, y2 = corners
    in_pixels = (x1 * width, y1 * height, x2 * width, y2 * height)
    if "radiusX" in value:
        center = (in_pixels[0] + in_pixels[2]) / 2, (in_pixels[1] + in_pixels[3]) / 2
        sides = in_pixels[2] - in_pixels[0], in_pixels[3] - in_pixels[1]
        a, b, c, d = rotated.around_rotated(center, sides, math.radians(degrees))
    else:
        a, b, c, d = rotated.about_corner(in_pixels, degrees)
    return a / width, b / height, c / width, d / height


def _tasks(tree: Tree, file: str, report: Report) -> Iterator[dict[str, Any]]:
    """The tasks of a file; a row of a table is a task of JSON-MIN whose cells hold the results."""
    if not file.lower().endswith(".json"):
        for line, row in tables.rows(tree, file, report):
            task: dict[str, Any] = dict(row)
            for column, cell in row.items():
                if "original_width" in cell:
                    task[column] = parsed(cell)
                    if task[column] is None:
                        report.add("invalid_annotation", file, f"{column} is not valid JSON", f"line {line}")
            yield task
        return
    content = content_of(tree, file, report)
    yield from rows(content if isinstance(content, list) else [content])


def _add(
    collected: Collected, image: RawImage, results: list[dict[str, Any]], file: str, task: object
) -> None:
    elsewhere = _labels_by_region(results)
    turned = several = 0
    for place, result in enumerate(results, start=1):
        value, kind = mapping(result.get("value")), str(result.get("type", ""))
        reference = f"task {task}, result {place}"
        if kind in _WITHOUT_AREA or "rle" in value:
            collected.no_box(image, f"a result of type '{kind}'", file, reference)
        elif not _AREAS.isdisjoint(value) or kind in _LABELS or "rectanglelabels" in value:
            if kind == "labels":  # the region itself stands in another result
                continue
            corners, polygon = _corners(value)
            degrees = numbers([value.get("rotation") or 0])
            if corners and degrees and degrees[0] % 360:
                corners = _turned(result, value, corners, degrees[0])
                turned += 1
            several += any(isinstance(value.get(key), list) and len(value[key]) > 1 for key in _LABELS)
            label = _own_label(value) or elsewhere.get(str(result.get("id")))
            collected.box(image, label, corners, file, reference, segmentation=polygon)
    rotated.say(collected.report, file, turned)
    if several:
        reason = f"{several} regions have several labels: the first is the class, the others are not read"
        collected.report.add("extra_columns", file, reason, f"task {task}", lost=0)


def read(tree: Tree, report: Report) -> Raw:
    """Read every task that somebody has labelled; tasks without an annotation stay unlabelled, predictions are not read."""
    collected = Collected(tree, report)
    for file in (*tree.with_suffix(".json"), *tables_of(tree)):
        if file.lower().endswith(".json") and not _is_mine(tree, file):
            continue
        collected.used.add(file)
        for place, task in enumerate(_tasks(tree, file, report), start=1):
            results = _results(task, file, report)
            identity = task.get("id", place)
            if results is None:
                continue
            for name, found in _by_picture(task, results, file, report):
                image = collected.named(name, file, relative=True, lost=len(found))
                if image is not None:
                    _add(collected, image, found, file, identity)
    return collected.raw()
