"""Open Images tables (storage.googleapis.com/openimages): `ImageID,LabelName,XMin,XMax,YMin,YMax,IsGroupOf` in fractions."""

from worker.data.faults import Report
from worker.data.formats import tables
from worker.data.formats.collecting import Collected
from worker.data.formats.raw import Raw, numbers
from worker.data.splits import split_of_file
from worker.data.tree import Tree

NAME = "open_images"
TITLE = "Open Images CSV (ImageID, LabelName, XMin, XMax, YMin, YMax)"
_COLUMNS = {"ImageID", "LabelName", "XMin", "XMax", "YMin", "YMax"}


def tables_of(tree: Tree) -> list[str]:
    """The tables of the tree that have Open Images' columns."""
    return [file for file in tree.with_suffix(*tables.SUFFIXES) if set(tables.header(tree, file)) >= _COLUMNS]


def recognise(tree: Tree) -> str | None:
    """The evidence for this format in the tree, or None."""
    files = tables_of(tree)
    return f"Open Images boxes, {files[0]}" if files else None


def _descriptions(tree: Tree, collected: Collected) -> dict[str, str]:
    """/m/01yrx -> Cat, from class-descriptions-boxable.csv (no header, or LabelName,DisplayName)."""
    found: dict[str, str] = {}
    for file in tree.with_suffix(".csv"):
        table = tables.sample(tree, file)
        if table and len(table.columns) == 2 and any(row[0].startswith("/m/") for _, row in table.rows[:5]):
            whole = tables.whole(tree, file, collected.report)
            collected.used.add(file)
            # Without a header the first row is a class too.
            given = [whole.columns, *(row for _, row in whole.rows)] if whole else []
            found.update({row[0]: row[1] for row in given if row[0].startswith("/") and row[1]})
    return found


def _ignored_tables(tree: Tree) -> list[str]:
    """Open Images' other tables: lists of pictures, image-level labels, relations."""
    return [
        file
        for file in tree.with_suffix(".csv")
        if {"ImageID", "Subset"} <= set(tables.header(tree, file))
        or {"ImageID", "OriginalURL"} <= set(tables.header(tree, file))
        or {"ImageID", "LabelName", "Confidence"} == set(tables.header(tree, file)) - {"Source"}
    ]


def read(tree: Tree, report: Report) -> Raw:
    """Read every table of boxes; a group of objects (IsGroupOf) is a crowd, as Open Images' evaluation treats it.

    Labels are called by class-descriptions where it is there, else by their machine names (/m/01yrx), said so.
    """
    collected = Collected(tree, report)
    names = _descriptions(tree, collected)
    bare: dict[str, str] = {}
    for file in tables_of(tree):
        collected.used.add(file)
        split = split_of_file(file)
        wanted_names: dict[str, list[tuple[int, dict[str, str]]]] = {}
        for line, row in tables.rows(tree, file, report):
            wanted_names.setdefault(row["ImageID"], []).append((line, row))
        for identity, found in wanted_names.items():
            image = collected.named(identity, file, split=split, relative=True, lost=len(found))
            for line, row in found if image else ():
                label = row["LabelName"]
                values = numbers(row[key] for key in ("XMin", "YMin", "XMax", "YMax"))
                if label.startswith("/m/") and label not in names:
                    bare.setdefault(label, file)
                crowd = row.get("IsGroupOf") == "1"
                collected.box(image, names.get(label, label), values, file, f"line {line}", crowd=crowd)  # type: ignore[arg-type]
    if bare:
        label, file = next(iter(bare.items()))
        reason = f"{len(bare)} labels such as {label} are called so: add class-descriptions-boxable.csv to name them"
        report.add("unnamed_classes", file, reason)
    for file in _ignored_tables(tree):
        if file not in collected.used:
            collected.used.add(file)
            report.add("other_task", file, "lists pictures or image-level labels: not read beside the boxes")
    return collected.raw()
