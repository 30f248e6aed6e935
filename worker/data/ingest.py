"""An unpacked archive in any known format becomes a dataset in canonical form, with a report of all that was wrong."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Literal

from worker.data import canonical, ledger, recognition
from worker.data.canonical import CanonicalImage
from worker.data.faults import Report, Unusable
from worker.data.formats.raw import Raw, RawImage
from worker.data.frames import frames
from worker.data.lookahead import in_order
from worker.data.pictures import BadPicture, Picture, inspect
from worker.data.previews import draw_previews
from worker.data.side_pictures import side_pictures
from worker.data.splits import complete, split_of_folders
from worker.data.summary import summarise
from worker.data.tree import Tree, walk
from worker.data.versions import say_versions

Unlabelled = Literal["leave_out", "background"]
Progress = Callable[[int, int, str], None]
_THREADS = 2
_PREVIEWS = re.compile(r"(^|/)previews?(/|\.|_|$)")


@dataclass(frozen=True)
class Ingested:
    """What ingestion made of an archive.

    `summary` has counts and histograms (summary.py), `report` the validation report (faults.py) with its first 1000
    faults; the whole report lies in out/report.json. `previews`: a sheet of pictures with boxes, then each alone.
    """

    digest: str
    format: str
    supervision: str
    summary: dict
    report: dict
    previews: tuple[Path, ...]


def _unlisted(tree: Tree, raw: Raw, unlabelled: Unlabelled, report: Report) -> list[RawImage]:
    """The pictures that no label belongs to, where they are to count as background; else each is a fault."""
    listed = {image.path for image in raw.images}
    bare = [path for path in tree.images if path not in listed and not _PREVIEWS.search(path)]
    if unlabelled == "background":
        if bare:
            raw.notes.append(f"{len(bare)} pictures without labels count as background, as asked")
        return [RawImage(path, split_of_folders(path)) for path in bare]
    for path in bare:
        report.add(
            "unlisted_image",
            path,
            "no label belongs to this picture: left out, for it might be unlabelled; unlabelled=background keeps such ones",
            lost=0,
            image=True,
        )
    return []


def _say_similar(raw: Raw, report: Report) -> None:
    """Classes that differ by case or separators alone stay apart, and the report says so."""
    files = {box.category: box.file for image in raw.images for box in image.boxes}
    files |= {label: image.path for image in raw.images for label in image.labels}
    alike: dict[str, list[str]] = {}
    for name in dict.fromkeys([*raw.categories, *sorted(files)]):
        alike.setdefault(re.sub(r"[\s_-]+", "", name).casefold(), []).append(name)
    for names in alike.values():
        if len(names) > 1:
            listed = ", ".join(map(repr, names))
            reason = f"the classes {listed} differ in case or separators only: kept apart, unite them if they are one"
            report.add("similar_classes", next((files[name] for name in names if name in files), ""), reason)


def read_annotations(
    tree: Tree, format: str | None, report: Report, unlabelled: Unlabelled = "leave_out"
) -> tuple[ModuleType, Raw]:
    """The reader that fits the tree, and all it found; no picture is opened, so they need not be on this disk.

    Raises Unusable where no reader fits, or several do, or most of the labels were not read.
    """
    for link in tree.links:
        report.add(
            "unsafe_path", link, "a link; links are not followed, put the file itself into the archive"
        )
    tree.set_aside(side_pictures(tree))
    if tree.aside:
        said = f"{len(tree.aside)} pictures of one plane have the names of others and lie in folders of masks: not read"
        report.add("side_picture", tree.aside[0], said, lost=0)
    reading = recognition.read_as(tree, format, report)
    reader, raw = reading.reader, reading.raw
    unread = ledger.name_unread(tree, raw, report)
    if format is None:
        ledger.refuse_garbled(raw, reader.NAME, report)
        ledger.refuse_unread(tree, raw, unread, lambda: recognition.others(tree, reader), reader.NAME, report)
    _say_similar(raw, report)
    say_versions(raw, report)
    if raw.supervision != "none":
        raw.images.extend(_unlisted(tree, raw, unlabelled, report))
    return reader, raw


def _inspected(
    tree: Tree, images: Sequence[RawImage], report: Report, progress: Callable[[int], None]
) -> list[tuple[RawImage, Picture]]:
    def look(image: RawImage) -> Picture | BadPicture:
        try:
            return inspect(tree.absolute(image.path))
        except BadPicture as refusal:
            return refusal
        except OSError as error:
            return BadPicture("unreadable_image", f"cannot be read: {error.strerror or error}")

    found: list[tuple[RawImage, Picture]] = []
    results = in_order(look, images, threads=_THREADS, ahead=4 * _THREADS)
    for done, (image, result) in enumerate(zip(images, results, strict=True), start=1):
        if isinstance(result, BadPicture):
            report.add(
                result.code, image.path, result.reason, lost=len(image.boxes) or len(image.labels), image=True
            )
        else:
            found.append((image, result))
        progress(done)
    return found


def _without_emptied(
    images: Sequence[CanonicalImage], sources: Sequence[RawImage], report: Report
) -> list[CanonicalImage]:
    """Those that have annotations or never had any: a picture whose annotations were all dropped is no background."""
    kept = []
    for image, source in zip(images, sources, strict=True):
        had = len(source.boxes) + source.dropped
        if had and not image.annotations:
            report.add(
                "emptied_image",
                image.source,
                f"its annotations ({had}) were all dropped, so it is left out",
                lost=0,
                image=True,
            )
        else:
            kept.append(image)
    return kept


def _refuse_empty(name: str, raw: Raw, images: Sequence[CanonicalImage], tree: Tree, report: Report) -> None:
    if any(image.annotations or raw.supervision == "none" for image in images):
        return
    wanted = "" if raw.supervision == "none" else " with annotations"
    unread = ledger.unread_files(tree, raw.used)
    named = f" {len(unread)} files were not read, such as {unread[0]}." if unread else ""
    first = report.first_cause()
    unread = ledger.unread_files(tree, raw.used)
    named = f" {len(unread)} files were not read, such as {unread[0]}." if unread else ""
    alone = "; to take the pictures without labels, give format=unlabelled" if tree.images and wanted else ""
    raise Unusable(
        f"{first or 'No label was found.'}{named} No picture{wanted} is left of {len(tree.images)}, read as {name}{alone}.",
        report.to_json(),
    )


def ingest(
    source: Path,
    out: Path,
    *,
    format: str | None = None,
    seed: int = 0,
    val_fraction: float = 0.2,
    test_fraction: float = 0.0,
    unlabelled: Unlabelled = "leave_out",
    progress: Progress = lambda done, total, message: None,
) -> Ingested:
    """Read the unpacked archive `source` and write the canonical form into the empty folder `out`.

    `format` is a name of formats.READERS (or an alias), None to recognise it. Splits that the archive does not name
    are drawn with `seed`. Pictures that no label belongs to are left out, or kept as `background`. Raises Unusable
    with the reason and the report when nothing usable is there, or most labels were not read; nothing is left in `out` then. Exceptions of `progress` (a stop request) pass through.
    """
    report = Report()
    tree = walk(source)
    tree.scratch = out.parent
    reader, raw = read_annotations(tree, format, report, unlabelled)
    steps = 2 * len(raw.images) + 1
    found = _inspected(tree, raw.images, report, lambda done: progress(done, steps, "checking pictures"))
    placed = [
        CanonicalImage(image.path, picture, image.split, canonical.place(image, picture, frame, report))
        for (image, picture), frame in zip(found, frames(found), strict=True)
    ]
    images = canonical.united(_without_emptied(placed, [image for image, _ in found], report), report)
    _refuse_empty(reader.NAME, raw, images, tree, report)
    if format is None:
        ledger.refuse_misplaced(raw, sum(len(image.annotations) for image in images), reader.NAME, report)
    splits, splits_from = complete(
        [image.split for image in images],
        [image.picture.sha256 for image in images],
        seed=seed,
        val_fraction=val_fraction,
        test_fraction=test_fraction,
    )
    for image, split in zip(images, splits, strict=True):
        image.split = split
    categories = raw.categories or sorted({row.category for image in images for row in image.annotations})
    supervision = canonical.supervision_of(raw, images)
    digest = canonical.digest_of(categories, supervision, images)

    def stored(done: int) -> None:
        progress(len(raw.images) + done, steps, "storing pictures")

    canonical.store_pictures(tree.absolute, out, images, report, stored, _THREADS)
    previews = draw_previews(out, images, categories, seed)
    canonical.write_json(out / "report.json", report.to_json(shown=None))
    content = canonical.to_coco(categories, supervision, images, digest, f"ingested from {reader.NAME}")
    canonical.write_json(out / "annotations.json", content)
    progress(steps, steps, "done")
    return Ingested(
        digest,
        reader.NAME,
        supervision,
        summarise(categories, images, splits_from, raw.notes),
        report.to_json(),
        previews,
    )


__all__ = ["Ingested", "Unusable", "ingest", "read_annotations"]
