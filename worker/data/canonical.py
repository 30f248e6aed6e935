"""From what a reader found to the canonical form: boxes placed in the upright picture, repeats dropped, a digest, files."""

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from worker.data.faults import Report
from worker.data.formats.raw import Corners, Raw, RawBox, RawImage
from worker.data.frames import Frame
from worker.data.lookahead import in_order
from worker.data.pictures import Picture, rewrite, white_of
from worker.data.run_lengths import run_lengths

VERSION = 1
MIN_SIDE = 0.99  # pixels: a box of one pixel survives the six decimals of a YOLO file
BORDER_TOLERANCE = 0.1  # pixels: rounding in the archive, not a box over the border
_SIZES = {
    "scaled": "boxes scaled",
    "fits": "boxes taken as they are, for all such boxes fit the file",
    "unknown": "boxes taken as they are, check them",
}


@dataclass(slots=True)
class Annotation:
    """One row: xyxy `corners` in the upright picture (pixels, three decimals); `reference` as the box had it.

    `score`: how sure a teacher was of it; None where a person drew it.
    """

    category: str
    corners: Corners
    crowd: bool = False
    segmentation: list[list[float]] | dict | None = None
    reference: str = ""
    ignore: bool = False
    score: float | None = None

    def key(self) -> tuple:
        """What makes two annotations of one picture the same."""
        return self.category, self.corners, self.crowd

    def order(self) -> tuple:
        """A sorting key that follows the content alone."""
        mask = "null" if self.segmentation is None else json.dumps(self.segmentation, sort_keys=True)
        return self.category, self.corners, self.crowd, mask


@dataclass(slots=True)
class CanonicalImage:
    """One usable picture: its source in the tree, decode facts, split, annotations in canonical order."""

    source: str
    picture: Picture
    split: str | None
    annotations: list[Annotation] = field(default_factory=list)
    file_name: str = ""


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
    left, top, right, bottom = (
        max(x1, 0.0),
        max(y1, 0.0),
        min(x2, float(picture.width)),
        min(y2, float(picture.height)),
    )

    def found() -> str:
        return f"({x1:.6g}, {y1:.6g}, {x2:.6g}, {y2:.6g}) in a picture of {picture.width} x {picture.height}"

    if right - left < MIN_SIDE or bottom - top < MIN_SIDE:
        report.add("box_outside", box.file, f"outside the picture: {found()}", box.reference)
        return None
    if max(left - x1, top - y1, x2 - right, y2 - bottom) > BORDER_TOLERANCE:
        report.add("box_clipped", box.file, f"over the border, cut at it: {found()}", box.reference)
    return round(left, 3) + 0.0, round(top, 3) + 0.0, round(right, 3) + 0.0, round(bottom, 3) + 0.0


def place(image: RawImage, picture: Picture, frame: Frame, report: Report) -> list[Annotation]:
    """The image's annotations in the upright picture, clipped, without repeats, in canonical order.

    Image labels become one box each, the whole picture.
    """
    move, what = frame.move, frame.how
    if picture.orientation != 1:
        turned = (
            "its boxes were turned with it"
            if what == "turned"
            else "its boxes were taken as drawn on the upright picture"
        )
        report.add("exif_rotation", image.path, f"EXIF orientation {picture.orientation} applied; {turned}")
    if what in _SIZES:
        found = f"annotated at {image.declared[0]} x {image.declared[1]}, the file is {picture.width} x {picture.height}"  # type: ignore[index]
        report.add("size_mismatch", image.path, f"{found}: {_SIZES[what]}")
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
            box.category,
            corners,
            box.crowd,
            _moved_mask(box, move, what, picture, report),
            box.reference,
            box.ignore,
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
        if box.ignore:
            report.add(
                "ignored",
                box.file,
                "marked as difficult or to ignore: kept, and counts neither way",
                box.reference,
            )
    whole = (0.0, 0.0, float(picture.width), float(picture.height))
    for label in dict.fromkeys(image.labels):
        kept[(label,)] = Annotation(label, whole)
    return sorted(kept.values(), key=Annotation.order)


def united(images: Sequence[CanonicalImage], report: Report) -> list[CanonicalImage]:
    """One image for equal bytes, in train before val before test, annotated before bare, first by name.

    Its annotations and those of its copies are united: one folder for each class holds a picture once for each. What overlaps
    an object of the same class by half is that object. Sorted by sha256, so that ids follow the content and neither names nor
    the order of files.
    """
    splits = {"train": 0, "val": 1, "test": 2}
    by_content: dict[str, list[CanonicalImage]] = {}
    for image in images:
        by_content.setdefault(image.picture.sha256, []).append(image)
    kept = []
    for _, group in sorted(by_content.items()):
        group.sort(key=lambda image: (not image.annotations, splits.get(image.split or "", 3), image.source))
        first = group[0]
        for copy in group[1:]:
            new = [
                row for row in copy.annotations if not any(_same(row, other) for other in first.annotations)
            ]
            elsewhere = f", in {first.split}" if first.split != copy.split else ""
            added = f"; {len(new)} of its annotations are new and go there" if new else ""
            report.add(
                "duplicate_image",
                copy.source,
                f"the same bytes as {first.source}{elsewhere}{added}",
                lost=len(copy.annotations) - len(new),
                image=True,
            )
            first.annotations = sorted([*first.annotations, *new], key=Annotation.order)
        kept.append(first)
    return kept


def _same(one: Annotation, other: Annotation) -> bool:
    if one.category != other.category:
        return False
    (a1, b1, a2, b2), (c1, d1, c2, d2) = one.corners, other.corners
    shared = max(min(a2, c2) - max(a1, c1), 0.0) * max(min(b2, d2) - max(b1, d1), 0.0)
    return 3 * shared >= (a2 - a1) * (b2 - b1) + (c2 - c1) * (d2 - d1)


def digest_of(categories: Sequence[str], supervision: str, images: Sequence[CanonicalImage]) -> str:
    """sha256 over pictures' bytes, splits and annotations, in canonical order."""
    digest = hashlib.sha256()
    # json.dumps would make an encoder for every row
    encode = json.JSONEncoder(sort_keys=True).encode

    def feed(value: object) -> None:
        digest.update(encode(value).encode() + b"\n")

    feed([VERSION, supervision, list(categories)])
    for image in images:
        feed([image.picture.sha256, image.picture.width, image.picture.height, image.split])
        for row in image.annotations:
            marks = [*(["ignore"] if row.ignore else []), *([] if row.score is None else [row.score])]
            feed([row.category, row.corners, row.crowd, row.segmentation, *marks])
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
    image_rows: list[dict[str, Any]] = []
    annotation_rows: list[dict[str, Any]] = []
    for image_id, image in enumerate(images, start=1):
        image_rows.append(
            {
                "id": image_id,
                "file_name": image.file_name,
                "width": image.picture.width,
                "height": image.picture.height,
                "split": image.split,
                "source": image.source.encode("utf-8", "backslashreplace").decode(),
                "sha256": image.picture.sha256,
            }
        )
        for row in image.annotations:
            x1, y1, x2, y2 = row.corners
            entry = {
                "id": len(annotation_rows) + 1,
                "image_id": image_id,
                "category_id": identities[row.category],
                "bbox": [x1, y1, round(x2 - x1, 3), round(y2 - y1, 3)],
                "area": _area(row),
                "iscrowd": int(row.crowd),
            }
            if row.ignore:
                entry["ignore"] = 1
            if row.score is not None:
                entry["score"] = row.score
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


def store_picture(source: Path, destination: Path, picture: Picture, white: float | None) -> None:
    """Bring one picture to its place: its own bytes (hard link, else copy), or rewritten upright as 8-bit RGB."""
    if picture.rewrite:
        rewrite(source, destination, white)
        return
    try:
        os.link(source, destination)
    except OSError:
        shutil.copyfile(source, destination)


def store_pictures(
    absolute: Callable[[str], Path],
    out: Path,
    images: Sequence[CanonicalImage],
    report: Report,
    progress: Callable[[int], None],
    threads: int,
) -> None:
    """Bring the pictures, which are at `absolute(source)`, to out/images/000001.jpg ...: their own bytes (hard link, else copy), or rewritten upright as 8-bit RGB.

    Pictures of more than 8 bits have one white, that of the brightest of them, so that they stay as bright beside each other.
    """
    (out / "images").mkdir(parents=True, exist_ok=True)
    peaks = [image.picture.peak for image in images if image.picture.peak is not None]
    white = white_of(max(peaks)) if peaks else None
    for index, image in enumerate(images, start=1):
        image.file_name = f"images/{index:06d}{image.picture.suffix}"
        if image.picture.rewrite and image.picture.orientation == 1:
            deep = f", {white:g} is white" if image.picture.peak is not None else ""
            report.add(
                "converted_image", image.source, f"{image.picture.rewrite}: rewritten as 8-bit RGB{deep}"
            )

    def work(image: CanonicalImage) -> None:
        store_picture(absolute(image.source), out / image.file_name, image.picture, white)

    for done, _ in enumerate(in_order(work, images, threads=threads, ahead=2 * threads), start=1):
        progress(done)


def write_json(path: Path, content: object) -> None:
    """Write JSON beside its place and rename it there, so that no reader sees half a file."""
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(json.dumps(content, allow_nan=False), encoding="utf-8")
    os.replace(partial, path)
