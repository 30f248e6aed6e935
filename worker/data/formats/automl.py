"""Google's AutoML and Vertex AI: CSV without a header (`set,path,label,x1,y1,,,x2,y2,,`) and JSON lines, in fractions."""

from typing import Any

from worker.data.faults import Report
from worker.data.formats import tables
from worker.data.formats.collecting import Collected, around
from worker.data.formats.json_files import keys, lines_of, mapping, rows, sample
from worker.data.formats.locate import is_picture
from worker.data.formats.raw import Corners, Raw, numbers
from worker.data.splits import split_named
from worker.data.tree import Tree

NAME = "automl"
TITLE = "Google AutoML or Vertex AI (CSV set,path,label,x1,y1,,,x2,y2,, or JSON lines)"
_SETS = ("train", "training", "validation", "valid", "val", "test", "unassigned")
_JSON = (".jsonl", ".ndjson", ".json")
_ML_USE = "aiplatform.googleapis.com/ml_use"


def _is_row(cells: tuple[str, ...]) -> bool:
    """Whether a row is `[set,] path [, label and eight numbers, of which four may be empty]`."""
    return _parts(cells) is not None


def _parts(cells: tuple[str, ...]) -> tuple[str | None, str, str, tuple[str, ...]] | None:
    """(set, path, label, eight cells) of a row, or None."""
    split, rest = (split_named(cells[0]), cells[1:]) if cells[0].lower() in _SETS else (None, cells)
    if len(rest) < 10 or not is_picture(rest[0]) or any(rest[10:]):
        return None
    label, numbered = rest[1], rest[2:10]
    # x2, y1 and x1, y2 may be left out; without a label nothing is there.
    given = [cell for cell in numbered if cell]
    whole = numbers(given)
    fits = whole is not None and len(given) in (0, 4, 8) and all(-0.5 <= value <= 1.5 for value in whole)
    return (split, rest[0], label, numbered) if fits else None


def tables_of(tree: Tree) -> list[str]:
    """The tables of the tree whose rows are AutoML's."""
    found = ((file, tables.sample(tree, file)) for file in tree.with_suffix(*tables.SUFFIXES))
    return [
        file
        for file, table in found
        if table is not None and table.rows and any(_is_row(cells) for _, cells in table.rows[:20])
    ]


def _json_files(tree: Tree, files: list[str]) -> list[str]:
    return [
        file
        for file in files
        if keys(tree, file) >= {"boundingBoxAnnotations", "xMin"}
        or keys(tree, file) >= {"bounding_box_annotations", "x_min"}
    ]


def recognise(tree: Tree) -> str | None:
    """The evidence for this format in the tree, or None."""
    file = next(iter([*tables_of(tree), *_json_files(tree, sample(tree.with_suffix(*_JSON)))]), None)
    return f"AutoML boxes, {file}" if file else None


def _corners(cells: tuple[str, ...]) -> Corners | None:
    """The box around the corners that are given: x1, y1, x2, y1, x2, y2, x1, y2."""
    pairs = [numbers(cells[start : start + 2]) for start in range(0, 8, 2) if cells[start]]
    whole = [pair for pair in pairs if pair]
    return around(whole) if len(whole) == len(pairs) else None


def _read_table(collected: Collected, file: str) -> None:
    table = tables.whole(collected.tree, file, collected.report)
    for line, cells in table.rows if table else ():
        parts = _parts(cells)
        if parts is None:
            reason = "'set,path,label,x1,y1,,,x2,y2,,' with fractions is wanted"
            collected.report.add("invalid_annotation", file, reason, f"line {line}")
            continue
        split, path, label, numbered = parts
        empty = not label and not any(numbered)
        image = collected.named(path, file, split=split, relative=True, lost=int(not empty))
        if image is not None and not empty:
            collected.box(image, label, _corners(numbered), file, f"line {line}")


def _read_json(collected: Collected, file: str) -> None:
    for line, content in lines_of(collected.tree, file, collected.report):
        entry: dict[str, Any] = mapping(content)
        found = rows(entry.get("boundingBoxAnnotations", entry.get("bounding_box_annotations")))
        labels = mapping(entry.get("dataItemResourceLabels", entry.get("data_item_resource_labels")))
        name = entry.get("imageGcsUri", entry.get("image_gcs_uri"))
        split = split_named(labels.get(_ML_USE))
        image = collected.named(name, file, split=split, relative=True, lost=len(found))
        if image is None:
            continue
        for place, row in enumerate(found, start=1):
            label = row.get("displayName", row.get("display_name"))
            sides = (("xMin", "x_min"), ("yMin", "y_min"), ("xMax", "x_max"), ("yMax", "y_max"))
            # Protocol buffers leave out what is 0.
            values = numbers(row.get(camel, row.get(snake, 0)) for camel, snake in sides)
            collected.box(image, label, values, file, f"line {line}, annotation {place}")


def read(tree: Tree, report: Report) -> Raw:
    """Read every table and JSON lines file (cloud.google.com/vertex-ai, 'Prepare image training data for object detection')."""
    collected = Collected(tree, report)
    for file in tables_of(tree):
        collected.used.add(file)
        _read_table(collected, file)
    for file in _json_files(tree, tree.with_suffix(*_JSON)):
        collected.used.add(file)
        _read_json(collected, file)
    return collected.raw()
