"""MNIST-like detection sets: `images/*.png` with `labels/*.txt` of the header `label,xmin,ymin,xmax,ymax` (dataiku's generator)."""

from worker.data.faults import Report
from worker.data.formats import tables
from worker.data.formats.raw import Raw, RawBox, RawImage, category_name, head_of, numbers, text_of
from worker.data.splits import split_of_folders
from worker.data.tree import NoSuchPicture, Tree, join, parent, stem

NAME = "mnist"
TITLE = "MNIST-like images/*.png with labels/*.txt (header label,xmin,ymin,xmax,ymax)"
_HEADER = "label,xmin,ymin,xmax,ymax"
_CORNERS = ("xmin", "ymin", "xmax", "ymax")


def _label_files(tree: Tree) -> list[str]:
    return [
        file
        for file in tree.with_suffix(".txt")
        if head_of(tree, file, 64).replace(" ", "").lower().startswith(_HEADER)
    ]


def recognise(tree: Tree) -> str | None:
    """The evidence for this format in the tree, or None."""
    files = _label_files(tree)
    return f"{len(files)} label files with the header {_HEADER}, such as {files[0]}" if files else None


def _names_file(tree: Tree) -> str | None:
    return next((file for file in tree.files if file.rpartition("/")[2].lower() == "classes.txt"), None)


def _names(tree: Tree, file: str | None, report: Report) -> list[str]:
    lines = (text_of(tree, file, report) or "").splitlines() if file else []
    return [category_name(line) for line in lines if line.strip()]


def _category(label: str, names: list[str]) -> str | None:
    value = numbers([label])
    if value is None or value[0] != int(value[0]):
        return None
    if not names:
        return str(int(value[0]))
    return names[int(value[0]) - 1] if 1 <= value[0] <= len(names) else None


def _near(file: str) -> list[str]:
    parts = parent(file).split("/")
    mirrored = [
        join(*parts[:place], "images", *parts[place + 1 :])
        for place in range(len(parts))
        if parts[place].lower() == "labels"
    ]
    return [*mirrored, parent(file)]


def read(tree: Tree, report: Report) -> Raw:
    """Read every label file. With a `classes.txt` label k means its k-th line; without, the label is the name.

    Corners are continuous coordinates from 0 (`xmax` is the first column behind the object).
    """
    names_file = _names_file(tree)
    names = _names(tree, names_file, report)
    files = _label_files(tree)
    images: dict[str, RawImage] = {}
    for file in files:
        found = tables.rows(tree, file, report)
        try:
            path = tree.image_of_stem(stem(file), _near(file), split_of_folders(file))
        except NoSuchPicture as missing:
            report.add("label_without_image", file, missing.reason, lost=len(found))
            continue
        image = images.setdefault(path, RawImage(path, split_of_folders(path)))
        image.dropped += len(found)
        for line, row in found:
            corners = numbers(row.get(corner, "") for corner in _CORNERS)
            category = _category(row.get("label", ""), names)
            if corners is None:
                report.add(
                    "invalid_annotation",
                    file,
                    "xmin, ymin, xmax, ymax must be finite numbers",
                    f"line {line}",
                )
            elif category is None:
                report.add(
                    "unknown_category",
                    file,
                    f"label {row.get('label')!r} is not one of 1..{len(names)}",
                    f"line {line}",
                )
            else:
                image.dropped -= 1
                image.boxes.append(
                    RawBox(category, (corners[0], corners[1], corners[2], corners[3]), file, f"line {line}")
                )
    if not names:
        names = sorted({box.category for image in images.values() for box in image.boxes}, key=int)
    used = [*files, names_file] if names_file else files
    return Raw(list(images.values()), used, list(dict.fromkeys(names)))
