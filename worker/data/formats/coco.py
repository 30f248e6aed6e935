"""COCO JSON: `annotations/instances_train.json` beside picture folders, Roboflow's `train/_annotations.coco.json`, or our own canonical form."""

import json
import re
from collections import defaultdict

from worker.data.faults import Report
from worker.data.formats.raw import Raw, RawBox, RawImage, category_name, numbers, pixel_size, text_of
from worker.data.splits import split_named, split_of_file, split_of_folders
from worker.data.tree import NotFound, Tree, join, parent

NAME = "coco"
TITLE = "COCO JSON (also Roboflow's train/_annotations.coco.json)"
# Same pictures, other tasks: they would double the boxes of instances_*.json.
_OTHER_TASKS = ("person_keypoints_", "captions_", "panoptic_", "stuff_")


def _mentions(tree: Tree, file: str, *needles: bytes) -> bool:
    missing = set(needles)
    tail = b""
    with tree.absolute(file).open("rb") as stream:
        while missing and (chunk := stream.read(1 << 20)):
            window = tail + chunk
            missing = {needle for needle in missing if needle not in window}
            tail = window[-64:]
    return not missing


def _json_files(tree: Tree) -> list[str]:
    files = [file for file in tree.with_suffix(".json") if _mentions(tree, file, b'"images"', b'"file_name"')]
    names = [file.rpartition("/")[2] for file in files]
    if any(name.startswith("instances_") for name in names):
        files = [file for file, name in zip(files, names, strict=True) if not name.startswith(_OTHER_TASKS)]
    return files


def recognise(tree: Tree) -> str | None:
    """The evidence for this format in the tree, or None."""
    files = _json_files(tree)
    return f"{len(files)} COCO JSON, such as {files[0]}" if files else None


def _parsed(tree: Tree, file: str, report: Report) -> dict | None:
    text = text_of(tree, file, report)
    if text is None:
        return None
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        report.add("unreadable_file", file, f"not valid JSON: {error}")
        return None
    if not isinstance(content, dict) or not isinstance(content.get("images"), list):
        report.add("unreadable_file", file, "no COCO file: an object with a list 'images' is wanted")
        return None
    return content


def _rows(content: dict, name: str) -> list[dict]:
    rows = content.get(name)
    return [row for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []


def _identity(value: object) -> str | None:
    return str(value) if isinstance(value, int | str | float) else None


def _categories(content: dict, file: str, report: Report) -> dict[str, str]:
    rows = [row for row in _rows(content, "categories") if _identity(row.get("id")) is not None]
    rows.sort(
        key=lambda row: (
            not isinstance(row["id"], int | float),
            row["id"] if isinstance(row["id"], int | float) else 0,
            str(row["id"]),
        )
    )
    names = {str(row["id"]): category_name(row.get("name")) or f"category {row['id']}" for row in rows}
    used = {_identity(row.get("category_id")) for row in _rows(content, "annotations")}
    # Roboflow puts a group above the real categories and lists it as the first of them.
    above = {
        category_name(row.get("supercategory")) for row in rows if row.get("supercategory") != row.get("name")
    }
    for row in rows:
        if names[str(row["id"])] in above and str(row["id"]) not in used:
            report.add(
                "unused_category", file, f"'{names.pop(str(row['id']))}' only groups the other categories"
            )
    return names


def _segmentation(value: object) -> list[list[float]] | dict | None:
    if isinstance(value, dict):
        size, counts = value.get("size"), value.get("counts")
        if isinstance(size, list) and len(size) == 2 and numbers(size) and isinstance(counts, str | list):
            return {"size": [int(side) for side in size], "counts": counts}
        return None
    if not isinstance(value, list) or not value:
        return None
    polygons = [numbers(polygon) if isinstance(polygon, list) else None for polygon in value]
    whole = [polygon for polygon in polygons if polygon and len(polygon) >= 6 and len(polygon) % 2 == 0]
    return whole if len(whole) == len(value) else None


def _corners(row: dict, segmentation: list | dict | None) -> tuple[float, float, float, float] | None:
    given = row.get("bbox")
    if isinstance(given, list) and len(given) == 4 and (box := numbers(given)):
        return box[0], box[1], box[0] + box[2], box[1] + box[3]
    if given in (None, []) and isinstance(segmentation, list):
        xs = [x for polygon in segmentation for x in polygon[0::2]]
        ys = [y for polygon in segmentation for y in polygon[1::2]]
        return min(xs), min(ys), max(xs), max(ys)
    return None


def _box(row: dict, names: dict[str, str], file: str, report: Report) -> RawBox | None:
    reference = str(row.get("id", "without id"))
    category = names.get(_identity(row.get("category_id")) or "")
    if category is None:
        report.add(
            "unknown_category",
            file,
            f"category_id {row.get('category_id')!r} is not in 'categories'",
            reference,
        )
        return None
    segmentation = _segmentation(row.get("segmentation"))
    corners = _corners(row, segmentation)
    if corners is None:
        report.add(
            "invalid_annotation",
            file,
            f"bbox is {row.get('bbox')!r}, four finite numbers [x, y, width, height] are wanted",
            reference,
        )
        return None
    if segmentation is None and row.get("segmentation"):
        report.add(
            "invalid_mask",
            file,
            "segmentation is neither polygons of at least 3 points nor RLE; the box is kept without it",
            reference,
        )
    return RawBox(
        category, corners, file, reference, crowd=row.get("iscrowd") in (1, True), segmentation=segmentation
    )


def _read_file(
    tree: Tree, file: str, images: dict[str, RawImage], categories: list[str], report: Report
) -> None:
    content = _parsed(tree, file, report)
    if content is None:
        return
    names = _categories(content, file, report)
    categories.extend(name for name in names.values() if name not in categories)
    file_split = split_of_file(file)
    here = parent(file)
    near = [
        here,
        *(
            join(parent(here), folder)
            for folder in (file_split or "", "images", f"images/{file_split}")
            if folder
        ),
        "images",
        "",
    ]
    rows_of: dict[str, list[dict]] = defaultdict(list)
    for row in _rows(content, "annotations"):
        rows_of[str(row.get("image_id"))].append(row)
    for entry in _rows(content, "images"):
        rows = rows_of.pop(str(entry.get("id")), [])
        name = entry.get("file_name")
        try:
            if not isinstance(name, str):
                raise NotFound("missing_image", "the entry has no file_name")
            path = tree.image_named(name, near, file_split)
        except NotFound as refusal:
            report.add(
                refusal.code, str(name), f"{refusal.reason} (listed in {file})", lost=len(rows), image=True
            )
            continue
        split = split_named(entry.get("split")) or file_split or split_of_folders(path)
        image = images.setdefault(
            path, RawImage(path, split, declared=pixel_size(entry.get("width"), entry.get("height")))
        )
        if image.split != split:
            report.add(
                "duplicate_image",
                path,
                f"listed for {image.split} and again for {split} in {file}; kept in {image.split}",
            )
        image.boxes.extend(box for row in rows if (box := _box(row, names, file, report)))
    for identity, rows in rows_of.items():
        for row in rows:
            report.add(
                "invalid_annotation",
                file,
                f"image_id {identity} is not in 'images'",
                row.get("id", "without id"),
            )


def read(tree: Tree, report: Report) -> Raw:
    """Read every COCO JSON of the tree; files of several splits share categories by name."""
    images: dict[str, RawImage] = {}
    categories: list[str] = []
    for file in _json_files(tree):
        _read_file(tree, file, images, categories, report)
    for path in sorted(set(tree.images) - images.keys()):
        if not re.search(r"(^|/)previews?(/|\.|_|$)", path):
            report.add("unlisted_image", path, "no COCO JSON lists this picture", lost=0, image=True)
    boxes = any(image.boxes for image in images.values()) or report.annotations_dropped > 0
    return Raw(list(images.values()), categories, supervision="boxes" if boxes else "none")
