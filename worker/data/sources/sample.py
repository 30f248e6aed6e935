"""The pictures of a sample, fetched, checked and brought to canonical form beside their annotations."""

import shutil
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from worker.data import canonical
from worker.data.canonical import CanonicalImage
from worker.data.faults import Report
from worker.data.formats.raw import RawImage
from worker.data.frames import frames
from worker.data.lookahead import in_order
from worker.data.pictures import BadPicture, Picture, inspect
from worker.data.sources.base import Check, Source, changed
from worker.data.sources.kept import KeptPictures
from worker.data.sources.pinned import Pinned

Progress = Callable[[int, int, str], None]
_HELD = ".held"
_STORING_THREADS = 2


@dataclass(frozen=True)
class Sample:
    """Images by id in canonical form, and what was dropped or repaired of them."""

    images: tuple[CanonicalImage, ...]
    report: Report


def fetch_sample(
    pinned: Pinned,
    source: Source,
    ids: Collection[int],
    out: Path,
    *,
    kept: KeptPictures,
    progress: Progress = lambda done, total, message: None,
    check: Check = lambda: None,
) -> Sample:
    """Writes a folder for `open_dataset` into the empty `out`: the images with these ids, the ids that they and their annotations have.

    They are treated as those of an archive are. One that cannot be read, repeats another of the sample or loses all its
    annotations is left out, and stands in report.json. Raises SourceError, `changed` where a picture is not what was pinned.
    """
    report, held = Report(), out / _HELD
    held.mkdir()
    wanted = sorted(ids)
    raws = {image_id: pinned.raw(image_id) for image_id in wanted}

    def fetch(image_id: int) -> Picture | BadPicture:
        path, pin = raws[image_id].path, pinned.pin(image_id)
        at = held / str(image_id)
        kept.hold(pinned.url, path, pin, lambda: source.read(path, pin), at)
        try:
            return inspect(at)
        except BadPicture as refusal:
            return refusal

    found: list[tuple[RawImage, Picture]] = []
    results = in_order(fetch, wanted, threads=source.threads, ahead=2 * source.threads)
    for done, (image_id, result) in enumerate(zip(wanted, results, strict=True), start=1):
        check()
        progress(done, len(wanted), "fetching pictures")
        image = raws[image_id]
        if isinstance(result, BadPicture):
            report.add(
                result.code, image.path, result.reason, lost=len(image.boxes) + len(image.labels), image=True
            )
        else:
            found.append((image, result))
    id_of = {image.path: image_id for image_id, image in raws.items()}
    images = _placed(found, report)
    images.sort(key=lambda image: id_of[image.source])
    _store(images, [id_of[image.source] for image in images], pinned.white, out, report)
    shutil.rmtree(held)
    _write(pinned, images, id_of, out, report)
    return Sample(tuple(images), report)


def look_again(pinned: Pinned, source: Source, ids: Collection[int], check: Check = lambda: None) -> None:
    """Raises SourceError `changed` where a picture is no longer what was pinned; nothing is fetched."""

    def look(image_id: int) -> None:
        path, pin = pinned.paths[image_id - 1], pinned.pin(image_id)
        now = source.look(path, pin)
        if now is None:
            raise changed(pinned.url, path, "it is gone")
        if now != pin:
            raise changed(
                pinned.url, path, f"it has {now.size:,} bytes (then {pin.size:,}), or was written since"
            )

    for _ in in_order(look, sorted(ids), threads=source.threads, ahead=4 * source.threads):
        check()


def _placed(found: Sequence[tuple[RawImage, Picture]], report: Report) -> list[CanonicalImage]:
    """As ingestion does it; a picture whose annotations were all dropped is left out, for it is no background."""
    images = []
    for (image, picture), frame in zip(found, frames(found), strict=True):
        annotations = canonical.place(image, picture, frame, report)
        if image.boxes and not annotations:
            reason = f"its annotations ({len(image.boxes)}) were all dropped, so it is left out"
            report.add("emptied_image", image.path, reason, lost=0, image=True)
        else:
            images.append(CanonicalImage(image.path, picture, image.split, annotations))
    return canonical.united(images, report)


def _store(
    images: Sequence[CanonicalImage], ids: Sequence[int], white: float | None, out: Path, report: Report
) -> None:
    (out / "images").mkdir()

    def store(item: tuple[CanonicalImage, int]) -> None:
        image, image_id = item
        image.file_name = f"images/{image_id:07d}{image.picture.suffix}"
        canonical.store_picture(out / _HELD / str(image_id), out / image.file_name, image.picture, white)

    pairs = list(zip(images, ids, strict=True))
    for _ in in_order(store, pairs, threads=_STORING_THREADS, ahead=2 * _STORING_THREADS):
        pass
    for image in images:
        if image.picture.rewrite and image.picture.orientation == 1:
            report.add("converted_image", image.source, f"{image.picture.rewrite}: rewritten as 8-bit RGB")


def _write(
    pinned: Pinned, images: Sequence[CanonicalImage], id_of: dict[str, int], out: Path, report: Report
) -> None:
    rows = [row for image in images for row in image.annotations]
    lost = pinned.supervision == "masks" and not all(row.segmentation or row.crowd for row in rows)
    supervision = "boxes" if lost else pinned.supervision
    content = canonical.to_coco(
        pinned.categories, supervision, images, pinned.digest, f"sampled from {pinned.url}"
    )
    ids = [id_of[image.source] for image in images]
    for entry, image_id in zip(content["images"], ids, strict=True):
        entry["id"] = image_id
    # a label that a picture has from an equal one in the sample has no row of its own
    spare = count(len(pinned.owners) + 1)
    for entry, row in zip(content["annotations"], rows, strict=True):
        entry["image_id"] = ids[entry["image_id"] - 1]
        own = row.reference or pinned.label_id(entry["image_id"], row.category)
        entry["id"] = int(own or next(spare))
    canonical.write_json(out / "report.json", report.to_json(shown=None))
    canonical.write_json(out / "annotations.json", content)
