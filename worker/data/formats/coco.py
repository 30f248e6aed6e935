"""COCO JSON: `annotations/instances_train.json` beside picture folders, Roboflow's `train/_annotations.coco.json`, or our own canonical form."""

import codecs
import json
from collections import defaultdict
from collections.abc import Iterator

from worker.data.encodings import encoding_of
from worker.data.faults import Report, Unusable, printable
from worker.data.formats import coco_boxes, coco_categories, rotated
from worker.data.formats.box_order import Reading, Sized, Sizes
from worker.data.formats.coco_categories import identity_of
from worker.data.formats.json_files import mapping
from worker.data.formats.raw import Raw, RawBox, RawImage, is_set_aside, pixel_size, text_of
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


def _box(row: dict, names: dict[str, str], reading: Reading, file: str, report: Report) -> RawBox | None:
    """The box of one annotation; None and a fault where it has no class or no box."""
    reference = str(row.get("id", "without id"))
    category = names.get(identity_of(row.get("category_id")) or "")
    if category is None:
        report.add(
            "unknown_category",
            file,
            f"category_id {row.get('category_id')!r} is not in 'categories'",
            reference,
        )
        return None
    segmentation = coco_boxes.segmentation_of(row)
    corners = coco_boxes.corners_of(row, segmentation, reading)
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
    if degrees := coco_boxes.angle_of(row):
        corners = rotated.about_center(corners, degrees)
    return RawBox(
        category,
        corners,
        file,
        reference,
        crowd=row.get("iscrowd") in (1, True, "1"),
        ignore=is_set_aside(row, mapping(row.get("attributes"))),
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
        identity = identity_of(row.get("image_id")) or ""
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
        identity = identity_of(entry.get("id")) or f"without id, place {place}"
        if identity in found:
            report.add(
                "repeated_id", file, f"two pictures have the id {identity}; the second is left out", lost=0
            )
        else:
            found[identity] = entry
    return found


def _sized(
    tree: Tree,
    entries: dict[str, dict],
    rows_of: dict[str, list[dict]],
    paths: dict[str, str | NoSuchPicture],
) -> list[Sized]:
    """The four numbers of the first boxes with the sizes of their pictures: declared, else the file's own."""
    sizes = Sizes(tree)
    found: list[Sized] = []
    for identity, entry in entries.items():
        path = paths[str(entry.get("file_name"))]
        declared = pixel_size(entry.get("width"), entry.get("height"))
        unknown = declared is None and isinstance(path, str) and identity in rows_of
        size = sizes.of(str(path)) if unknown else declared
        found += [(box, size) for row in rows_of.get(identity, ()) if (box := coco_boxes.four(row))]
        if len(found) > _LOOKED_AT:
            break
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
    paths = _paths(tree, file, [entry.get("file_name") for entry in entries.values()], file_split)
    reading, fractions = coco_boxes.meaning(_sized(tree, entries, rows_of, paths), file, report)
    there = images.keys() if whole else set()
    repeated = {path for path in paths.values() if path in there}
    if repeated:
        found = f"{len(repeated)} of its {len(entries)} pictures are listed in the files of the splits too: those are meant"
        report.add("repeated_labels", file, found, lost=0)
    turned = 0
    for identity, entry in entries.items():
        rows, name = rows_of.get(identity, []), str(entry.get("file_name"))
        path = paths[name]
        if isinstance(path, NoSuchPicture):
            report.add(path.code, name, f"{path.reason} (listed in {file})", lost=len(rows), image=True)
            continue
        if path in repeated:
            continue
        split = split_named(entry.get("split")) or file_split or split_of_folders(path)
        declared = pixel_size(entry.get("width"), entry.get("height"))
        image = images.setdefault(path, RawImage(path, split, declared=declared, relative=fractions))
        if image.split != split:
            report.add(
                "duplicate_image",
                path,
                f"listed for {image.split} and again for {split} in {file}; kept in {image.split}",
            )
        if image.relative != fractions:
            reason = "its boxes are in pixels in one file and in fractions in this one: those are left out"
            report.add("invalid_annotation", file, f"{path}: {reason}", lost=len(rows))
            continue
        boxes = [box for row in rows if (box := _box(row, names, reading, file, report))]
        image.boxes.extend(boxes)
        image.dropped += len(rows) - len(boxes)
        turned += sum(coco_boxes.angle_of(row) != 0 for row in rows)
    rotated.say(report, file, turned)


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
        names = coco_categories.names_of(
            _rows(content, "categories"), _rows(content, "annotations"), file, report
        )
        categories |= dict.fromkeys(names.values())
        _read_file(tree, file, content, names, images, whole, report)
    for file in others:
        report.add("other_task", file, "key points, captions or segments of the same pictures: not read")
    boxes = any(image.boxes for image in images.values()) or report.annotations_dropped > 0
    return Raw(list(images.values()), used, list(categories), supervision="boxes" if boxes else "none")
