"""An unpacked archive in any known format becomes a dataset in canonical form, with a report of all that was wrong."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from worker.data import canonical
from worker.data.canonical import CanonicalImage
from worker.data.faults import Report, Unusable
from worker.data.formats import ALIASES, RANKS, READERS
from worker.data.formats.raw import Raw, RawImage
from worker.data.lookahead import in_order
from worker.data.pictures import BadPicture, Picture, inspect
from worker.data.previews import draw_previews
from worker.data.splits import complete
from worker.data.summary import summarise
from worker.data.tree import Tree, walk

Progress = Callable[[int, int, str], None]
_THREADS = 2


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


def _accepted() -> str:
    return "; ".join(f"{name}: {reader.TITLE}" for name, reader in READERS.items())


def recognise(tree: Tree, report: Report) -> ModuleType:
    """The reader for the tree. Raises Unusable when none fits, or several do."""
    for rank in RANKS:
        found = {name: evidence for name in rank if (evidence := READERS[name].recognise(tree))}
        if len(found) == 1:
            return READERS[next(iter(found))]
        if found:
            listed = "; ".join(f"{name} ({evidence})" for name, evidence in found.items())
            raise Unusable(
                f"The archive holds annotations in {len(found)} formats: {listed}. Say which one is meant with "
                f"format={' or format='.join(found)}, or take the others out.",
                report.to_json(),
            )
    raise Unusable(
        f"The archive holds no dataset in a known format. Found: {tree.inventory()}. Accepted: {_accepted()}.",
        report.to_json(),
    )


def _reader(tree: Tree, format: str | None, report: Report) -> ModuleType:
    if format is None:
        return recognise(tree, report)
    reader = READERS.get(ALIASES.get(format, format))
    if reader is None:
        raise Unusable(f"'{format}' is no known format. Known: {_accepted()}.", report.to_json())
    return reader


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


def _refuse_empty(name: str, raw: Raw, images: Sequence[CanonicalImage], tree: Tree, report: Report) -> None:
    wanted = "" if raw.supervision == "none" else " with annotations"
    usable = [image for image in images if image.annotations or raw.supervision == "none"]
    if usable:
        return
    codes = report.to_json()["counts"]
    faults = (
        ", ".join(f"{count} x {code}" for code, count in sorted(codes.items(), key=lambda item: -item[1]))
        or "none"
    )
    alone = "; to take the pictures without labels, give format=unlabelled" if images else ""
    raise Unusable(
        f"Read as {name}, the archive has no usable picture{wanted}: {len(raw.images)} listed, {len(images)} readable. "
        f"Faults: {faults}. Found: {tree.inventory()}. Accepted: {_accepted()}{alone}.",
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
    progress: Progress = lambda done, total, message: None,
) -> Ingested:
    """Read the unpacked archive `source` and write the canonical form into the empty folder `out`.

    `format` is a name of formats.READERS (or an alias), None to recognise it. Splits that the archive does not name
    are drawn with `seed`. Raises Unusable with the reason and the report when nothing usable is there; nothing is
    left in `out` then. Exceptions of `progress` (a stop request) pass through.
    """
    report = Report()
    tree = walk(source)
    for link in tree.links:
        report.add(
            "unsafe_path", link, "a link; links are not followed, put the file itself into the archive"
        )
    reader = _reader(tree, format, report)
    raw: Raw = reader.read(tree, report)
    steps = 2 * len(raw.images) + 1
    found = _inspected(tree, raw.images, report, lambda done: progress(done, steps, "checking pictures"))
    unique = canonical.without_repeats(found, report)
    images = [
        CanonicalImage(image.path, picture, image.split, canonical.place(image, picture, report))
        for image, picture in unique
    ]
    _refuse_empty(reader.NAME, raw, images, tree, report)
    splits, splits_from = complete(
        [image.split for image in images],
        [image.picture.sha256 for image in images],
        seed=seed, val_fraction=val_fraction, test_fraction=test_fraction,
    )  # fmt: skip
    for image, split in zip(images, splits, strict=True):
        image.split = split
    categories = raw.categories or sorted({row.category for image in images for row in image.annotations})
    supervision = canonical.supervision_of(raw, images)
    digest = canonical.digest_of(categories, supervision, images)

    def stored(done: int) -> None:
        progress(len(raw.images) + done, steps, "storing pictures")

    canonical.store_pictures(tree.root, out, images, report, stored, _THREADS)
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


__all__ = ["Ingested", "Unusable", "ingest", "recognise"]
