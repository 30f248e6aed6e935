"""CSV tables of boxes: Global Wheat (`image_id,bbox`), its 2021 edition (`image_name,BoxesString`), or one row a box with corners."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from worker.data.faults import Report
from worker.data.formats import tables
from worker.data.formats.raw import Corners, Raw, RawBox, RawImage, category_name, numbers, pixel_size
from worker.data.splits import split_named, split_of_file, split_of_folders
from worker.data.tree import NotFound, Tree, join, parent

NAME = "csv"
TITLE = "CSV of boxes (Global Wheat image_id,bbox; or filename,class,xmin,ymin,xmax,ymax)"
_FILE = ("filename", "image_id", "image_name", "image", "file_name", "img", "path")
_CLASS = ("class", "label", "category", "class_name", "name")
_CORNERS = ("xmin", "ymin", "xmax", "ymax")

Boxes = Callable[[dict[str, str]], Iterator[Corners | None]]


@dataclass(frozen=True)
class Dialect:
    """Where a table keeps the picture, the class and the boxes; `single` is the class of tables without one."""

    file: str
    category: str | None
    boxes: Boxes
    single: str = "object"
    lists_every_picture: bool = True


def _corner_columns(row: dict[str, str]) -> Iterator[Corners | None]:
    written = [row.get(corner, "") for corner in _CORNERS]
    if any(written):
        values = numbers(written)
        yield (values[0], values[1], values[2], values[3]) if values else None


def _bbox_column(row: dict[str, str]) -> Iterator[Corners | None]:
    written = row.get("bbox", "")
    if not written:
        return
    try:
        content = json.loads(written)
    except (ValueError, RecursionError):
        content = None
    values = numbers(content) if isinstance(content, list) and len(content) == 4 else None
    yield (values[0], values[1], values[0] + values[2], values[1] + values[3]) if values else None


def _boxes_string(row: dict[str, str]) -> Iterator[Corners | None]:
    written = row.get("BoxesString", "")
    if written in ("", "no_box"):
        return
    for piece in written.split(";"):
        values = numbers(piece.split())
        yield (values[0], values[1], values[2], values[3]) if values and len(values) == 4 else None


def _dialect(columns: list[str]) -> Dialect | None:
    file = next((name for name in _FILE if name in columns), None)
    category = next((name for name in _CLASS if name in columns), None)
    if "image_name" in columns and "BoxesString" in columns:
        return Dialect("image_name", None, _boxes_string, single="wheat head", lists_every_picture=False)
    if file and "bbox" in columns:
        wheat = file == "image_id" and category is None
        return Dialect(
            file,
            category,
            _bbox_column,
            single="wheat head" if wheat else "object",
            lists_every_picture=not wheat,
        )
    if file and set(_CORNERS) <= set(columns):
        return Dialect(file, category, _corner_columns)
    return None


def _box_tables(tree: Tree) -> list[tuple[str, Dialect]]:
    found = ((file, _dialect(tables.header(tree, file))) for file in tree.with_suffix(".csv"))
    return [(file, dialect) for file, dialect in found if dialect]


def recognise(tree: Tree) -> str | None:
    """The evidence for this format in the tree, or None."""
    files = _box_tables(tree)
    return f"{len(files)} CSV of boxes, such as {files[0][0]}" if files else None


def _find(tree: Tree, name: str, file: str, split: str | None) -> str:
    here = parent(file)
    near = [
        here,
        *(join(here, folder) for folder in ("images", split or "", f"images/{split}") if folder),
        "images",
        "",
    ]
    try:
        return tree.image_named(name, near, split)
    except NotFound as missing:
        if missing.code == "unsafe_path":
            raise
        # Global Wheat writes the name without .jpg.
        return tree.image_of_stem(name, near, split)


def _read_table(tree: Tree, file: str, dialect: Dialect, images: dict[str, RawImage], report: Report) -> None:
    file_split = split_of_file(file)
    lost: dict[str, tuple[NotFound, int]] = {}
    for line, row in tables.rows(tree, file, report):
        name = row.get(dialect.file, "")
        found = list(dialect.boxes(row))
        try:
            path = _find(tree, name, file, file_split)
        except NotFound as refusal:
            lost[name] = (refusal, lost.get(name, (refusal, 0))[1] + len(found))
            continue
        split = split_named(row.get("split", "")) or file_split or split_of_folders(path)
        image = images.setdefault(
            path, RawImage(path, split, declared=pixel_size(row.get("width", ""), row.get("height", "")))
        )
        for corners in found:
            category = category_name(row.get(dialect.category, "")) if dialect.category else dialect.single
            if corners is None:
                report.add("invalid_annotation", file, "the box is not four finite numbers", f"line {line}")
            elif not category:
                report.add("unknown_category", file, "the row names no class", f"line {line}")
            else:
                image.boxes.append(RawBox(category, corners, file, f"line {line}"))
    for name, (refusal, count) in lost.items():
        report.add(refusal.code, name, f"{refusal.reason} (listed in {file})", lost=count, image=True)


def read(tree: Tree, report: Report) -> Raw:
    """Read every table of boxes; corners are continuous coordinates from 0, `bbox` cells are [x, y, width, height]."""
    images: dict[str, RawImage] = {}
    every_picture = True
    for file, dialect in _box_tables(tree):
        _read_table(tree, file, dialect, images, report)
        every_picture = every_picture and dialect.lists_every_picture
    for path in sorted(set(tree.images) - images.keys()):
        if every_picture:
            report.add("unlisted_image", path, "no table lists this picture", lost=0, image=True)
        else:
            # Global Wheat lists only pictures with at least one head.
            images[path] = RawImage(path, split_of_folders(path))
    return Raw(list(images.values()))
