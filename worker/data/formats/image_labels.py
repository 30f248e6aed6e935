"""Image-level labels: a CSV (`filename,label`, several labels split by `|`, or one 0/1 column a class), or one folder a class."""

import re

from worker.data.faults import Report
from worker.data.formats import box_tables, tables
from worker.data.formats.box_cells import NUMBER, PLAIN, has_a_box_among_words
from worker.data.formats.raw import Raw, RawImage, category_name
from worker.data.splits import split_named, split_of_file, split_of_folders
from worker.data.tree import NoSuchPicture, Tree, join, parent

NAME = "image_labels"
TITLE = "image-level labels (CSV filename,label; or one folder per class)"
_FILE = ("filename", "file_name", "image", "image_id", "image_name", "file", "path", "img")
_LABEL = ("label", "labels", "class", "classes", "category", "categories", "class_name", "tags")
_OBJECTS = re.compile(r"\s*(\{|\[\s*(\{|\[|-?\d))")
_BEYOND = re.compile(r"column \d+")  # as tables.py calls a column without a name
_DATE = re.compile(r"\d{2,4}[-./]\d{1,2}[-./]\d{2,4}")
_PLAIN_FOLDERS = {"images", "image", "imgs", "img", "data", "pictures", "jpegimages", "photos"}


def _columns(tree: Tree, file: str, asked: bool) -> tuple[str, str | None] | None:
    """(picture column, label column or None for one 0/1 column a class), or None when it is no such table.

    Who `asked` for image labels has answered what numbers that look like boxes are.
    """
    columns = tables.header(tree, file)
    picture = next((name for name in columns if name.lower() in _FILE), None)
    if picture is None or box_tables.may_hold_boxes(tree, file, unclear=not asked):
        return None
    label = next((name for name in columns if name.lower() in _LABEL), None)
    found = [row for _, row in tables.rows(tree, file, Report())[:20]]
    if any(_is_no_label(name, cell) for row in found for name, cell in row.items() if name != picture):
        return None
    if label:
        # Objects and lists of numbers are annotations of some tool, and no labels of a picture.
        return None if any(_OBJECTS.match(row.get(label, "")) for row in found) else (picture, label)
    if len(columns) < 2:
        return None
    flags = all(row.get(name) in ("0", "1") for row in found for name in columns if name != picture)
    return (picture, None) if found and flags else None


def _is_no_label(column: str, cell: str) -> bool:
    """Whether a cell holds a box, a polygon or run lengths, or stands beyond the header, where the columns are not what they say."""
    if has_a_box_among_words(cell):
        return True
    if _BEYOND.fullmatch(column):
        return bool(cell)
    return (
        len(cell) > 6
        and PLAIN.fullmatch(cell) is not None
        and len(NUMBER.findall(cell)) >= 4
        and not _DATE.match(cell)
    )


def _label_tables(tree: Tree, asked: bool = False) -> list[tuple[str, str, str | None]]:
    found = ((file, _columns(tree, file, asked)) for file in tree.with_suffix(*tables.SUFFIXES))
    return [(file, *columns) for file, columns in found if columns]


def _class_folder(path: str) -> str | None:
    folder = parent(path).rpartition("/")[2]
    return None if not folder or split_named(folder) or folder.lower() in _PLAIN_FOLDERS else folder


def recognise(tree: Tree) -> str | None:
    """The evidence for this format in the tree, or None."""
    if files := _label_tables(tree):
        return f"a CSV of labels, {files[0][0]}"
    folders = {_class_folder(path) for path in tree.images}
    if len(folders) >= 2 and None not in folders:
        return f"{len(folders)} folders of pictures, such as {min(str(folder) for folder in folders)}/"
    return None


def _labels(row: dict[str, str], picture: str, label: str | None) -> list[str]:
    if label is None:
        return [category_name(name) for name, cell in row.items() if name != picture and cell == "1"]
    return [name for piece in re.split(r"[|;]", row.get(label, "")) if (name := category_name(piece))]


def _read_table(
    tree: Tree, file: str, picture: str, label: str | None, images: dict[str, RawImage], report: Report
) -> None:
    split = split_of_file(file)
    near = [parent(file), join(parent(file), "images"), "images", ""]
    for line, row in tables.rows(tree, file, report):
        name = row.get(picture, "")
        labels = _labels(row, picture, label)
        try:
            try:
                path = tree.image_named(name, near, split)
            except NoSuchPicture as missing:
                if missing.code == "unsafe_path":
                    raise
                path = tree.image_of_stem(name, near, split)
        except NoSuchPicture as refusal:
            report.add(
                refusal.code, name, f"{refusal.reason} (line {line} of {file})", lost=len(labels), image=True
            )
            continue
        image = images.setdefault(
            path, RawImage(path, split_named(row.get("split", "")) or split or split_of_folders(path))
        )
        image.labels.extend(labels)


def read(tree: Tree, report: Report) -> Raw:
    """Read the labels of every picture, from tables where there are any, else from the folders' names."""
    images: dict[str, RawImage] = {}
    # Nobody comes here unasked while a table is unclear: that is a question first (unclear_tables.py).
    files = _label_tables(tree, asked=True)
    for file, picture, label in files:
        _read_table(tree, file, picture, label, images, report)
    for path in tree.images:
        folder = _class_folder(path)
        if folder and not files:
            images[path] = RawImage(path, split_of_folders(path), labels=[category_name(folder)])
    return Raw(list(images.values()), used=[file for file, *_ in files], supervision="image_labels")
