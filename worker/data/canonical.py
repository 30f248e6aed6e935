"""From what a reader found to the canonical form: boxes placed in the upright picture, repeats dropped, a digest, files."""

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from worker.data.faults import Report
from worker.data.formats.raw import Corners, Raw, RawBox, RawImage
from worker.data.lookahead import in_order
from worker.data.pictures import Picture, rewrite, turn
from worker.data.run_lengths import run_lengths

VERSION = 1
MIN_SIDE = 0.99  # pixels: a box of one pixel survives the six decimals of a YOLO file
BORDER_TOLERANCE = 0.1  # pixels: rounding in the archive, not a box over the border
_SAME_SHAPE = 0.01  # relative difference of aspect ratios


@dataclass(slots=True)
class Annotation:
    """One row: xyxy `corners` in the upright picture (pixels, three decimals)."""

    category: str
    corners: Corners
    crowd: bool = False
    segmentation: list[list[float]] | dict | None = None

    def key(self) -> tuple:
        """What makes two annotations of one picture the same."""
        return self.category, self.corners, self.crowd

    def order(self) -> tuple:
        """A sorting key that follows the content alone."""
        return self.category, self.corners, self.crowd, json.dumps(self.segmentation, sort_keys=True)


@dataclass(slots=True)
class CanonicalImage:
    """One usable picture: its source in the tree, decode facts, split, annotations in canonical order."""

    source: str
    picture: Picture
    split: str | None
    annotations: list[Annotation] = field(default_factory=list)
    file_name: str = ""


def _frame(image: RawImage, picture: Picture) -> tuple[Callable[[float, float], tuple[float, float]], str]:
    """The map from the annotations' frame into the upright picture, and what it does (empty: nothing)."""
    width, height = picture.width, picture.height
    if image.relative:
        return (lambda x, y: (x * width, y * height)), ""
    if image.declared is None or image.declared == (width, height):
        return (lambda x, y: (x, y)), ""
    if image.declared == picture.stored:
        return (lambda x, y: turn(x, y, picture.orientation, picture.stored)), "turned"
    declared_width, declared_height = image.declared
    if abs(declared_width * height / (declared_height * width) - 1) > _SAME_SHAPE:
        return (lambda x, y: (x, y)), "unknown"
    return (lambda x, y: (x * width / declared_width, y * height / declared_height)), "scaled"


def _moved_mask(
    box: RawBox,
    move: Callable[[float, float], tuple[float, float]],
    moved_how: str,
    picture: Picture,
    report: Report,
) -> list[list[float]] | dict | None:
    if isinstance(box.segmentation, list):
        moved = (
            [move(x, y) for x, y in zip(polygon[0::2], polygon[1::2], strict=True)]
            for polygon in box.segmentation
        )
        return [[round(value, 3) + 0.0 for point in polygon for value in point] for polygon in moved]
    size = [picture.height, picture.width]
    if box.segmentation and (moved_how or box.segmentation["size"] != size):
        reason = f"its RLE mask is made for {box.segmentation['size']}, the upright picture is {size} (height, width)"
        report.add("invalid_mask", box.file, f"{reason}; the box is kept without it", box.reference)
        return None
    if box.segmentation:
        try:
            run_lengths(box.segmentation["counts"], picture.height * picture.width)
        except ValueError as error:
            report.add("invalid_mask", box.file, f"RLE: {error}; the box is kept without it", box.reference)
            return None
    return box.segmentation


def _clipped(box: RawBox, corners: Corners, picture: Picture, report: Report) -> Corners | None:
    x1, y1, x2, y2 = corners
    if x2 - x1 < MIN_SIDE or y2 - y1 < MIN_SIDE:
        report.add(
            "degenerate_box", box.file, f"{x2 - x1:.3g} x {y2 - y1:.3g} pixels is no object", box.reference
        )
        return None
    inside = max(x1, 0.0), max(y1, 0.0), min(x2, float(picture.width)), min(y2, float(picture.height))
    found = f"({x1:.6g}, {y1:.6g}, {x2:.6g}, {y2:.6g}) in a picture of {picture.width} x {picture.height}"
    if inside[2] - inside[0] < MIN_SIDE or inside[3] - inside[1] < MIN_SIDE:
        report.add("box_outside", box.file, f"outside the picture: {found}", box.reference)
        return None
    if max(abs(was - now) for was, now in zip(corners, inside, strict=True)) > BORDER_TOLERANCE:
        report.add("box_clipped", box.file, f"over the border, cut at it: {found}", box.reference)
    return tuple(round(value, 3) + 0.0 for value in inside)  # type: ignore[return-value]


def place(image: RawImage, picture: Picture, report: Report) -> list[Annotation]:
    """The image's annotations in the upright picture, clipped, without repeats, in canonical order.

    Image labels become one box each, the whole picture.
    """
    move, what = _frame(image, picture)
    if picture.orientation != 1:
        turned = (
            "its boxes were turned with it"
            if what == "turned"
            else "its boxes were taken as drawn on the upright picture"
        )
        report.add("exif_rotation", image.path, f"EXIF orientation {picture.orientation} applied; {turned}")
    if what in ("scaled", "unknown"):
        found = f"annotated at {image.declared[0]} x {image.declared[1]}, the file is {picture.width} x {picture.height}"  # type: ignore[index]
        done = "boxes scaled" if what == "scaled" else "boxes taken as they are, check them"
        report.add("size_mismatch", image.path, f"{found}: {done}")
    kept: dict[tuple, Annotation] = {}
    for box in image.boxes:
        a, b = move(*box.corners[:2]), move(*box.corners[2:])
        if box.corners[0] > box.corners[2] or box.corners[1] > box.corners[3]:
            report.add(
                "degenerate_box",
                box.file,
                f"its corners are the wrong way round: {box.corners}",
                box.reference,
            )
            continue
        corners = _clipped(
            box, (min(a[0], b[0]), min(a[1], b[1]), max(a[0], b[0]), max(a[1], b[1])), picture, report
        )
        if corners is None:
            continue
        annotation = Annotation(
            box.category, corners, box.crowd, _moved_mask(box, move, what, picture, report)
        )
        if annotation.key() in kept:
            report.add(
                "duplicate_annotation",
                box.file,
                f"the same '{box.category}' box is there already",
                box.reference,
            )
            continue
        kept[annotation.key()] = annotation
        if box.crowd:
            report.add(
                "crowd", box.file, "a group, not one object: kept as a region to ignore", box.reference
            )
    whole = (0.0, 0.0, float(picture.width), float(picture.height))
    for label in dict.fromkeys(image.labels):
        kept[(label,)] = Annotation(label, whole)
    return sorted(kept.values(), key=Annotation.order)


def without_repeats(
    found: Sequence[tuple[RawImage, Picture]], report: Report
) -> list[tuple[RawImage, Picture]]:
    """One image for equal bytes: the annotated one, of train before val before test, first by name.

    Image labels of the copies move to the one that is kept; boxes leave with their copy. Sorted by sha256, so that
    ids follow the content and neither names nor the order of files.
    """
    splits = {"train": 0, "val": 1, "test": 2}
    by_content: dict[str, list[tuple[RawImage, Picture]]] = {}
    for image, picture in found:
        by_content.setdefault(picture.sha256, []).append((image, picture))
    kept: list[tuple[RawImage, Picture]] = []
    for _, group in sorted(by_content.items()):
        group.sort(key=lambda item: (not item[0].boxes, splits.get(item[0].split or "", 3), item[0].path))
        first, picture = group[0]
        for copy, _ in group[1:]:
            elsewhere = f", in {first.split}" if first.split != copy.split else ""
            report.add(
                "duplicate_image",
                copy.path,
                f"the same bytes as {first.path}{elsewhere}",
                lost=len(copy.boxes),
                image=True,
            )
            first = replace(first, labels=[*first.labels, *copy.labels])
        kept.append((first, picture))
    return kept


def digest_of(categories: Sequence[str], supervision: str, images: Sequence[CanonicalImage]) -> str:
    """sha256 over pictures' bytes, splits and annotations, in canonical order."""
    digest = hashlib.sha256()

    def feed(value: object) -> None:
        digest.update(json.dumps(value, sort_keys=True).encode() + b"\n")

    feed([VERSION, supervision, list(categories)])
    for image in images:
        feed([image.picture.sha256, image.picture.width, image.picture.height, image.split])
        for row in image.annotations:
            feed([row.category, row.corners, row.crowd, row.segmentation])
    return digest.hexdigest()


def supervision_of(raw: Raw, images: Sequence[CanonicalImage]) -> str:
    """`boxes` becomes `masks` when every object has one; whatever has no annotation at all is `none`."""
    rows = [row for image in images for row in image.annotations]
    if not rows:
        return "none"
    if raw.supervision == "boxes" and all(row.segmentation or row.crowd for row in rows):
        return "masks"
    return raw.supervision


def _area(row: Annotation) -> float:
    x1, y1, x2, y2 = row.corners
    return round((x2 - x1) * (y2 - y1), 3)


def to_coco(
    categories: Sequence[str],
    supervision: str,
    images: Sequence[CanonicalImage],
    digest: str,
    description: str,
) -> dict:
    """The canonical annotations.json: COCO with contiguous ids from 1, `split`, `source` and `sha256` on images."""
    identities = {name: index for index, name in enumerate(categories, start=1)}
    image_rows, annotation_rows = [], []
    for image_id, image in enumerate(images, start=1):
        image_rows.append(
            {
                "id": image_id, "file_name": image.file_name, "width": image.picture.width, "height": image.picture.height,
                "split": image.split, "source": image.source.encode("utf-8", "backslashreplace").decode(), "sha256": image.picture.sha256,
            }
        )  # fmt: skip
        for row in image.annotations:
            x1, y1, x2, y2 = row.corners
            entry = {
                "id": len(annotation_rows) + 1, "image_id": image_id, "category_id": identities[row.category],
                "bbox": [x1, y1, round(x2 - x1, 3), round(y2 - y1, 3)], "area": _area(row), "iscrowd": int(row.crowd),
            }  # fmt: skip
            if row.segmentation is not None:
                entry["segmentation"] = row.segmentation
            annotation_rows.append(entry)
    return {
        "info": {
            "description": description,
            "detrank_version": VERSION,
            "digest": digest,
            "supervision": supervision,
        },
        "images": image_rows,
        "annotations": annotation_rows,
        "categories": [
            {"id": identity, "name": name, "supercategory": ""} for name, identity in identities.items()
        ],
    }


def _store(source: Path, destination: Path, picture: Picture) -> None:
    if picture.rewrite:
        rewrite(source, destination)
        return
    try:
        os.link(source, destination)
    except OSError:
        shutil.copyfile(source, destination)


def store_pictures(
    root: Path,
    out: Path,
    images: Sequence[CanonicalImage],
    report: Report,
    progress: Callable[[int], None],
    threads: int,
) -> None:
    """Bring the pictures to out/images/000001.jpg ...: their own bytes (hard link, else copy), or rewritten upright as 8-bit RGB."""
    (out / "images").mkdir(parents=True, exist_ok=True)
    for index, image in enumerate(images, start=1):
        image.file_name = f"images/{index:06d}{image.picture.suffix}"
        if image.picture.rewrite and image.picture.orientation == 1:
            report.add("converted_image", image.source, f"{image.picture.rewrite}: rewritten as 8-bit RGB")

    def work(image: CanonicalImage) -> None:
        _store(root / image.source, out / image.file_name, image.picture)

    for done, _ in enumerate(in_order(work, images, threads=threads, ahead=2 * threads), start=1):
        progress(done)


def write_json(path: Path, content: object) -> None:
    """Write JSON beside its place and rename it there, so that no reader sees half a file."""
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(json.dumps(content, allow_nan=False), encoding="utf-8")
    os.replace(partial, path)
