"""From a source to a pinned dataset: annotations are read whole, pictures are listed, and a handful is looked at."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from worker.data import canonical
from worker.data.faults import Report, Unusable
from worker.data.formats.raw import Raw, RawImage
from worker.data.ingest import Ingested, Progress, Unlabelled, read_annotations
from worker.data.pictures import white_of
from worker.data.previews import draw_previews
from worker.data.sources.base import Bounds, Check, Pin, Source
from worker.data.sources.kept import KeptPictures
from worker.data.sources.pinned import Pinned, pinned_of
from worker.data.sources.sample import Sample, fetch_sample
from worker.data.splits import SPLITS, complete

# Pictures that are fetched at once, to be shown and to find out early that none can be read.
TRIED = 16


@dataclass(frozen=True)
class Means:
    """What this host gives: where pictures are kept, the most that is listed, and who hears of it or may stop it."""

    kept: KeptPictures
    bounds: Bounds = field(default_factory=Bounds)
    progress: Progress = lambda done, total, message: None
    check: Check = lambda: None


def pin_dataset(
    source: Source,
    out: Path,
    scratch: Path,
    means: Means,
    *,
    format: str | None = None,
    seed: int = 0,
    val_fraction: float = 0.2,
    test_fraction: float = 0.0,
    unlabelled: Unlabelled = "leave_out",
) -> Ingested:
    """Reads what is at `source` and writes the pinned dataset (`Pinned.load`) and report.json into the empty folder `out`.

    `scratch`: an empty folder for annotations and the pictures that are tried. As `ingest` otherwise; raises SourceError too.
    """
    report, check = Report(), means.check
    tree = source.tree(scratch / "mirror", means.bounds, means.progress, check)
    there = set(tree.images)  # before a reader adds those that lie inside annotation files
    reader, raw = read_annotations(tree, format, report, unlabelled)
    images, pins = _listed(source, raw, there, report, check)
    _refuse_empty(reader.NAME, raw, images, len(tree.images), report)
    splits, splits_from = complete(
        [image.split for image in images],
        [f"{image.path}\0{pin.size}\0{pin.mark}" for image, pin in zip(images, pins, strict=True)],
        seed=seed,
        val_fraction=val_fraction,
        test_fraction=test_fraction,
    )
    categories = raw.categories or sorted(
        {box.category for image in images for box in image.boxes}
        | {x for image in images for x in image.labels}
    )
    pinned = pinned_of(source.url, reader.NAME, categories, _supervision(raw, images), images, pins, splits)
    tried = fetch_sample(
        pinned,
        source,
        _to_try(pinned, seed),
        _new(scratch / "tried"),
        kept=means.kept,
        progress=means.progress,
        check=check,
    )
    _refuse_unreadable(pinned, tried, report)
    peaks = [image.picture.peak for image in tried.images if image.picture.peak is not None]
    pinned = replace(pinned, white=white_of(max(peaks)) if peaks else None)
    previews = draw_previews(scratch / "tried", tried.images, categories, seed)
    report.faults += tried.report.faults
    report.images_dropped += tried.report.images_dropped
    report.annotations_dropped += tried.report.annotations_dropped
    pinned.save(out)
    canonical.write_json(out / "report.json", report.to_json(shown=None))
    summary = summary_of(pinned, splits_from, [*raw.notes, _note(pinned)])
    return Ingested(pinned.digest, reader.NAME, pinned.supervision, summary, report.to_json(), previews)


def summary_of(pinned: Pinned, splits_from: str, notes: Sequence[str]) -> dict:
    """The summary as JSON: what can be counted without opening pictures, and how many bytes they have at `pictures.at`."""
    objects = ~(pinned.crowds | pinned.ignored)
    labels, owners = pinned.labels[objects], pinned.owners[objects]
    per_image = np.bincount(owners, minlength=len(pinned.paths))
    counts = np.bincount(labels, minlength=len(pinned.categories)).tolist()
    pairs = np.unique(np.stack([labels, owners]), axis=1)[0]
    images = np.bincount(pairs, minlength=len(pinned.categories)).tolist()
    return {
        "images": len(pinned.paths),
        "annotations": int(objects.sum()),
        "crowd": int(pinned.crowds.sum()),
        "ignored": int((pinned.ignored & ~pinned.crowds).sum()),
        "images_without_boxes": int((per_image == 0).sum()),
        "categories": [
            {"id": id, "name": name, "annotations": counts[id - 1], "images": images[id - 1]}
            for id, name in enumerate(pinned.categories, start=1)
        ],
        "splits": {
            split: {"images": int(here.sum()), "annotations": int(per_image[here].sum())}
            for index, split in enumerate(SPLITS)
            if (here := pinned.splits == index).any()
        },
        "splits_from": splits_from,
        "objects": {
            "per_image": {
                "min": int(per_image.min()),
                "median": float(np.median(per_image)),
                "max": int(per_image.max()),
            }
        },
        "pictures": {"at": pinned.url, "bytes": int(pinned.sizes.sum())},
        "notes": list(notes),
    }


def _listed(
    source: Source, raw: Raw, there: set[str], report: Report, check: Check
) -> tuple[list[RawImage], list[Pin]]:
    """The pictures by path with their pins: those that the source lists, one for each content where marks tell.

    Of equal ones the annotated is kept, of train before val before test, with the annotations of all, as ingestion does.
    """
    found: list[tuple[RawImage, Pin]] = []
    first: dict[Pin, RawImage] = {}
    order = {split: place for place, split in enumerate(SPLITS)}
    for image in sorted(raw.images, key=lambda x: (not x.boxes, order.get(x.split or "", 3), x.path)):
        if image.path not in there:
            report.add(
                "missing_image",
                image.path,
                "it lies inside an annotation file, not beside it; send such a dataset as an archive",
                lost=len(image.boxes) or len(image.labels),
                image=True,
            )
            continue
        if image.dropped and not image.boxes:
            reason = f"its annotations ({image.dropped}) were all dropped, so it is left out"
            report.add("emptied_image", image.path, reason, lost=0, image=True)
            continue
        check()
        pin = source.pin(image.path)
        if source.content_marks and (same := first.setdefault(pin, image)) is not image:
            _unite(same, image, report)
            continue
        found.append((image, pin))
    found.sort(key=lambda pair: pair[0].path)
    return [image for image, _ in found], [pin for _, pin in found]


def _unite(first: RawImage, copy: RawImage, report: Report) -> None:
    fits = (first.relative, first.declared) == (copy.relative, copy.declared)
    lost = 0 if fits else len(copy.boxes)
    report.add("duplicate_image", copy.path, f"the same bytes as {first.path}", lost=lost, image=True)
    first.labels.extend(copy.labels)
    if fits:
        # what is there twice is found where the boxes are placed
        first.boxes.extend(copy.boxes)


def _supervision(raw: Raw, images: Sequence[RawImage]) -> str:
    boxes = [box for image in images for box in image.boxes]
    if not boxes and not any(image.labels for image in images):
        return "none"
    if raw.supervision == "boxes" and all(box.segmentation or box.crowd for box in boxes):
        return "masks"
    return raw.supervision


def _refuse_empty(name: str, raw: Raw, images: Sequence[RawImage], total: int, report: Report) -> None:
    if any(image.boxes or image.labels for image in images) or (images and raw.supervision == "none"):
        return
    first = report.first_cause()
    raise Unusable(
        f"{first or 'No label was found.'} No picture with annotations is left of {total}, read as {name}.",
        report.to_json(),
    )


def _refuse_unreadable(pinned: Pinned, tried: Sample, report: Report) -> None:
    if tried.images:
        return
    faults = tried.report.faults
    found = Counter(fault["code"] for fault in faults)
    raise Unusable(
        f"None of the {min(TRIED, len(pinned.paths))} pictures that were tried at {pinned.url} can be used: "
        f"{', '.join(f'{count} x {code}' for code, count in found.items())}; such as {faults[0]['file']}: "
        f"{faults[0]['reason']}.",
        report.to_json(),
    )


def _to_try(pinned: Pinned, seed: int) -> list[int]:
    annotated = np.unique(pinned.owners[~(pinned.crowds | pinned.ignored)])
    pool = annotated if len(annotated) else np.arange(len(pinned.paths))
    chosen = np.random.default_rng(seed).permutation(len(pool))[:TRIED]
    return sorted((pool[chosen] + 1).tolist())


def _note(pinned: Pinned) -> str:
    return (
        f"the pictures stay at {pinned.url}: those of a sample are fetched and checked when it is drawn, and until then their "
        "sizes are not known"
    )


def _new(folder: Path) -> Path:
    folder.mkdir(parents=True)
    return folder
