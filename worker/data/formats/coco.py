"""COCO JSON: `annotations/instances_train.json` beside picture folders, Roboflow's `train/_annotations.coco.json`, or our own canonical form."""

import codecs
import json
from collections import defaultdict
from collections.abc import Iterator

from worker.data.encodings import encoding_of
from worker.data.faults import Report, Unusable, printable
from worker.data.formats import box_order
from worker.data.formats.box_order import Reading, Sized
from worker.data.formats.json_files import parsed
from worker.data.formats.raw import (
    Corners,
    Raw,
    RawBox,
    RawImage,
    category_name,
    numbers,
    pixel_size,
    text_of,
)
from worker.data.run_lengths import box_of, run_lengths
from worker.data.splits import split_named, split_of_file, split_of_folders
from worker.data.tree import NoSuchPicture, Tree, join, parent, stem, written_parts

NAME = "coco"
TITLE = "COCO JSON (also Roboflow's train/_annotations.coco.json)"
_LOOKED_AT = 20_000  # boxes that tell what four numbers are
# What COCO files have besides annotations.
_LISTS = frozenset(
    {
        "images",
        "annotations",
        "categories",
        "info",
        "licenses",
        "license",
        "videos",
        "tracks",
        "type",
        "tag_categories",
    }
)
# Same pictures, other tasks: they would double the boxes of instances_*.json.
_OTHER_TASKS = ("person_keypoints_", "captions_", "panoptic_", "stuff_")


def _mentions(tree: Tree, file: str, *words: str) -> bool:
    """Whether every word stands somewhere in the file, as one byte a letter or as two."""
    path = tree.absolute(file)
    with path.open("rb") as stream:
        encoding = encoding_of(stream.read(512))
    if encoding == "utf-16":
        encoding = "utf-16-le" if path.read_bytes()[:2] == codecs.BOM_UTF16_LE else "utf-16-be"
    wide = encoding if encoding.startswith("utf-16") else "utf-8"
    missing = [word.encode(wide) for word in words]
    tail = b""
    with path.open("rb") as stream:
        while missing and (chunk := stream.read(1 << 20)):
            window = tail + chunk
            missing = [word for word in missing if word not in window]
            tail = window[-64:]
    return not missing


def _json_files(tree: Tree) -> tuple[list[str], list[str]]:
    """The files with objects, and those of other tasks."""
    files = [file for file in tree.with_suffix(".json") if _mentions(tree, file, '"images"', '"file_name"')]
    names = [file.rpartition("/")[2] for file in files]
    if any(name.startswith("instances_") for name in names):
        others = [file for file, name in zip(files, names, strict=True) if name.startswith(_OTHER_TASKS)]
        return [file for file in files if file not in others], others
    return files, []


def recognise(tree: Tree) -> str | None:
    """The evidence for this format in the tree, or None."""
    files, _ = _json_files(tree)
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
    content["annotations"] = [*_annotations(content)]
    return content


def _annotations(content: dict) -> Iterator[dict]:
    """The annotations wherever they stand: in a list, by their ids, within their images, as the segments of panoptic ones."""
    given = content.get("annotations")
    for row in _dicts([*given.values()] if isinstance(given, dict) else given):
        if isinstance(row.get("segments_info"), list):
            for segment in _dicts(row["segments_info"]):
                yield {"image_id": row.get("image_id"), **segment}
        else:
            yield row
    for entry in _rows(content, "images"):
        for row in _dicts(entry.get("annotations")):
            yield {**row, "image_id": entry.get("id")}


def _dicts(value: object) -> list[dict]:
    """The objects of a list, and of lists in it."""
    if not isinstance(value, list):
        return []
    found = (row if isinstance(row, list) else [row] for row in value)
    return [row for rows in found for row in rows if isinstance(row, dict)]


def _refuse_unknown_lists(contents: dict[str, dict], report: Report) -> None:
    """Raises Unusable where a file without annotations has a list of objects that may be those."""
    for file, content in contents.items():
        for key, value in content.items():
            if key not in _LISTS and _dicts([*value.values()] if isinstance(value, dict) else value):
                raise Unusable(
                    f"{file} has no list 'annotations', and {printable(key, 60)!r} might be it: rename it, or take the file out "
                    "where it says nothing of objects.",
                    report.to_json(),
                )


def _rows(content: dict, name: str) -> list[dict]:
    rows = content.get(name)
    return [row for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []


def _identity(value: object) -> str | None:
    """What an id is compared by: 1, 1.0, "1" and "000001" are one."""
    if type(value) is int:
        return str(value)
    if isinstance(value, bool) or not isinstance(value, int | str | float):
        return None
    text = str(value).strip()
    number = text.removesuffix(".0")
    return str(int(number)) if number.isascii() and number.isdigit() else text


def _categories(content: dict, file: str, report: Report) -> dict[str, str]:
    rows = [
        (identity, row)
        for row in _rows(content, "categories")
        if (identity := _identity(row.get("id"))) is not None
    ]
    rows.sort(key=lambda item: (not item[0].isdigit(), int(item[0]) if item[0].isdigit() else 0, item[0]))
    used = {_identity(row.get("category_id")) for row in _rows(content, "annotations")}
    names = {}
    for identity, row in rows:
        names[identity] = category_name(row.get("name")) or f"category {identity}"
        if not category_name(row.get("name")) and identity in used:
            report.add(
                "unnamed_classes", file, f"category {identity} has no name: called '{names[identity]}'"
            )
    # Roboflow puts a group above the real categories and lists it as the first of them.
    above = {
        category_name(row.get("supercategory"))
        for _, row in rows
        if row.get("supercategory") != row.get("name")
    }
    for identity in [identity for identity in names if names[identity] in above and identity not in used]:
        report.add("unused_category", file, f"'{names.pop(identity)}' only groups the other categories")
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


def _four(row: dict) -> list[float] | None:
    """The four numbers of `bbox`, which may be a text."""
    given = row.get("bbox")
    if isinstance(given, str):
        given = parsed(given)
    return numbers(given) if isinstance(given, list) and len(given) == 4 else None


def _meaning(entries: dict[str, dict], rows_of: dict[str, list[dict]], file: str, report: Report) -> Reading:
    """What the four numbers of `bbox` are: COCO's, unless those put many boxes outside the pictures and corners none."""
    boxes: list[Sized] = []
    for identity, entry in entries.items():
        size = pixel_size(entry.get("width"), entry.get("height"))
        boxes += [(box, size) for row in rows_of.get(identity, ()) if size and (box := _four(row))]
        if len(boxes) > _LOOKED_AT:
            break
    found = box_order.meant(box_order.corner_and_size, boxes, fractions=False)
    if box_order.corners not in found:
        return box_order.corner_and_size
    reason = f"many boxes lie outside the pictures as COCO's x, y, width, height and none as {box_order.NAMES[box_order.corners]}"
    report.add("box_order", file, f"{reason}: read so")
    return box_order.corners


def _corners(row: dict, segmentation: list | dict | None, reading: Reading) -> Corners | None:
    if box := _four(row):
        return reading(box)
    given = row.get("bbox")
    if given in (None, []) and isinstance(segmentation, list):
        xs = [x for polygon in segmentation for x in polygon[0::2]]
        ys = [y for polygon in segmentation for y in polygon[1::2]]
        return min(xs), min(ys), max(xs), max(ys)
    if given in (None, []) and isinstance(segmentation, dict):
        height, width = segmentation["size"]
        try:
            return box_of(run_lengths(segmentation["counts"], height * width), height)
        except ValueError:
            return None
    return None


def _box(row: dict, names: dict[str, str], reading: Reading, file: str, report: Report) -> RawBox | None:
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
    corners = _corners(row, segmentation, reading)
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
        category,
        corners,
        file,
        reference,
        crowd=row.get("iscrowd") in (1, True, "1"),
        ignore=row.get("ignore") in (1, True, "1"),
        segmentation=segmentation,
    )


def _near(file: str, split: str | None) -> list[str]:
    here, above = parent(file), parent(parent(file))
    beside = [join(above, folder) for folder in (split or "", "images", f"images/{split}") if folder]
    return [here, join(here, "images"), *beside, "images", ""]


def _paths(tree: Tree, file: str, names: list[object], split: str | None) -> dict[str, str | NoSuchPicture]:
    """Where each picture is that a file names. What several names would lead to belongs to the one that spells it out."""
    near = _near(file, split)
    found: dict[str, str | NoSuchPicture] = {}
    claims: dict[str, list[str]] = defaultdict(list)
    for name in names:
        try:
            if not isinstance(name, str):
                raise NoSuchPicture("missing_image", "the entry has no file_name")
            if name not in found:
                found[name] = path = tree.image_named(name, near, split)
                claims[path].append(name)
        except NoSuchPicture as refusal:
            found[str(name)] = refusal
    for path, claiming in claims.items():
        written = {name: "/".join(written_parts(name)) for name in claiming}
        if len(set(written.values())) > 1:
            for name in claiming:
                if not f"/{path}".endswith(f"/{written[name]}"):
                    found[name] = NoSuchPicture(
                        "missing_image", f"{len(claiming)} names would lead to {path}"
                    )
    return found


def _rows_by_image(
    content: dict, entries: dict[str, dict], file: str, report: Report
) -> dict[str, list[dict]]:
    """Annotations by the id of their image; an `image_id` that is a file name stands for the picture of that name."""
    by_name: dict[str, str] = {}
    for identity, entry in entries.items():
        name = str(entry.get("file_name"))
        for word in (name, name.rpartition("/")[2], stem(name)):
            by_name.setdefault(word, identity)
    found: dict[str, list[dict]] = defaultdict(list)
    for row in _rows(content, "annotations"):
        identity = _identity(row.get("image_id")) or ""
        if identity not in entries:
            identity = by_name.get(str(row.get("image_id")), "")
        if identity:
            found[identity].append(row)
        else:
            report.add(
                "annotation_without_image",
                file,
                f"image_id {row.get('image_id')!r} is not in 'images'",
                row.get("id", "without id"),
            )
    return found


def _entries(content: dict, file: str, report: Report) -> dict[str, dict]:
    found: dict[str, dict] = {}
    for place, entry in enumerate(_rows(content, "images")):
        identity = _identity(entry.get("id")) or f"without id, place {place}"
        if identity in found:
            report.add(
                "repeated_id", file, f"two pictures have the id {identity}; the second is left out", lost=0
            )
        else:
            found[identity] = entry
    return found


def _read_file(
    tree: Tree,
    file: str,
    content: dict,
    names: dict[str, str],
    images: dict[str, RawImage],
    whole: bool,
    report: Report,
) -> None:
    """Add the pictures of one file; where it is the whole beside files of splits, only those that they do not have."""
    file_split = split_of_file(file)
    entries = _entries(content, file, report)
    rows_of = _rows_by_image(content, entries, file, report)
    reading = _meaning(entries, rows_of, file, report)
    paths = _paths(tree, file, [entry.get("file_name") for entry in entries.values()], file_split)
    there = images.keys() if whole else set()
    repeated = {path for path in paths.values() if path in there}
    if repeated:
        found = f"{len(repeated)} of its {len(entries)} pictures are listed in the files of the splits too: those are meant"
        report.add("repeated_labels", file, found, lost=0)
    for identity, entry in entries.items():
        rows, name = rows_of.get(identity, []), str(entry.get("file_name"))
        path = paths[name]
        if isinstance(path, NoSuchPicture):
            report.add(path.code, name, f"{path.reason} (listed in {file})", lost=len(rows), image=True)
            continue
        if path in repeated:
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
        boxes = [box for row in rows if (box := _box(row, names, reading, file, report))]
        image.boxes.extend(boxes)
        image.dropped += len(rows) - len(boxes)


def _is_whole(file: str) -> bool:
    """Whether a file may hold the pictures of several splits."""
    return split_of_file(file) is None or "trainval" in file.rpartition("/")[2].lower()


def _own_reports(tree: Tree, files: list[str]) -> list[str]:
    """What ingestion wrote beside annotations of its own."""
    beside = ((file, join(parent(file), "report.json")) for file in files)
    return [
        report
        for file, report in beside
        if report in tree.files and _mentions(tree, file, '"detrank_version"')
    ]


def read(tree: Tree, report: Report) -> Raw:
    """Read every COCO JSON of the tree; files of several splits share categories by name.

    The whole set beside its splits adds nothing to them, and pictures of a file that annotates none of them are unlabelled
    where another file has annotations.
    """
    images: dict[str, RawImage] = {}
    categories: dict[str, None] = {}  # an ordered set
    files, others = _json_files(tree)
    contents = {file: content for file in files if (content := _parsed(tree, file, report))}
    ordered = sorted(contents, key=lambda file: (_is_whole(file), file))
    used = [*contents, *others, *_own_reports(tree, files)]
    annotated = [file for file in ordered if _rows(contents[file], "annotations")]
    if not annotated:
        _refuse_unknown_lists(contents, report)
    for file in annotated or ordered:
        whole = _is_whole(file) and not _is_whole(ordered[0])
        content = contents.pop(file)
        names = _categories(content, file, report)
        categories |= dict.fromkeys(names.values())
        _read_file(tree, file, content, names, images, whole, report)
    for file in others:
        report.add("other_task", file, "key points, captions or segments of the same pictures: not read")
    boxes = any(image.boxes for image in images.values()) or report.annotations_dropped > 0
    return Raw(list(images.values()), used, list(categories), supervision="boxes" if boxes else "none")
