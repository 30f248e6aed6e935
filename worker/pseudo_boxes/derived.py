"""A dataset in canonical form from another one and what a teacher says of its pictures."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from worker.data import canonical
from worker.data.canonical import Annotation, CanonicalImage
from worker.data.dataset import Dataset
from worker.data.faults import Report
from worker.data.pictures import Picture
from worker.data.previews import draw_previews
from worker.data.summary import summarise
from worker.evaluation.prediction import Prediction
from worker.pseudo_boxes.pseudo_boxes import Unteachable

SUPERVISION = "pseudo_boxes"
_THREADS = 2


@dataclass(frozen=True)
class Derived:
    """As `worker.data.ingest.Ingested`; `pictures`: how many got pseudo boxes, `boxes`: how many these are."""

    digest: str
    summary: dict[str, Any]
    report: dict[str, Any]
    previews: tuple[Path, ...]
    pictures: int
    boxes: int


def derive(
    source: Dataset,
    categories: tuple[str, ...],
    found: Mapping[int, Prediction],
    splits: Collection[str],
    out: Path,
    *,
    description: str,
    lineage: dict[str, Any] | None = None,
    notes: tuple[str, ...] = (),
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Derived:
    """Writes into the empty folder `out` the pictures of `source` with pseudo boxes in place of what those of `splits` have.

    A picture of `splits` without a pseudo box is left out, since it may hold objects, unless its image labels say that it
    holds none. Those of other splits keep the boxes that people drew, and are left out where the source has none.

    `lineage`: where the boxes come from, kept beside them. Raises Unteachable `no_pseudo_boxes` where no picture has any.
    """
    report = Report()
    files = files_of(source)
    images, pseudo = [], 0
    for image in source.images:
        own = source.annotation_image_ids == image.id
        if image.split in splits:
            annotations = _said(found.get(image.id), categories, image.width, image.height)
            known_empty = source.supervision == "image_labels" and not own.any()
            if not annotations and not known_empty:
                name = files[image.id]["source"]
                report.add("no_pseudo_box", name, "the teacher finds nothing in it: left out", image=True)
                continue
            pseudo += bool(annotations)
        elif source.has_boxes:
            annotations = drawn(source, np.flatnonzero(own))
        else:
            continue
        images.append(canonical_image(files[image.id], image.path.suffix, annotations))
    if not pseudo:
        raise Unteachable("no_pseudo_boxes", "no picture has a pseudo box: nothing can be learned from that")
    made = written(
        source,
        categories,
        images,
        out,
        description=description,
        report=report,
        lineage=lineage,
        notes=notes,
        progress=progress,
    )
    return replace(made, pictures=pseudo)


def files_of(source: Dataset) -> dict[int, dict[str, Any]]:
    """The rows of its pictures in its annotations, by id."""
    rows = json.loads((source.root / "annotations.json").read_text(encoding="utf-8"))["images"]
    return {row["id"]: row for row in rows}


def written(
    source: Dataset,
    categories: tuple[str, ...],
    images: list[CanonicalImage],
    out: Path,
    *,
    description: str,
    report: Report,
    lineage: dict[str, Any] | None,
    notes: tuple[str, ...],
    progress: Callable[[int, int], None],
) -> Derived:
    """Writes these of the pictures of `source` into the empty folder `out`, as a dataset with pseudo boxes; `pictures` are then
    those with any box."""
    files = files_of(source)
    places = {files[image.id]["source"]: image.path for image in source.images}
    digest = canonical.digest_of(categories, SUPERVISION, images)
    total = len(images)
    canonical.store_pictures(
        lambda name: places[name], out, images, report, lambda done: progress(done, total), _THREADS
    )
    previews = draw_previews(out, images, categories, seed=0)
    canonical.write_json(out / "report.json", report.to_json(shown=None))
    content = canonical.to_coco(categories, SUPERVISION, images, digest, description)
    if lineage is not None:
        content["info"]["lineage"] = lineage
    canonical.write_json(out / "annotations.json", content)
    said = [row for image in images for row in image.annotations if row.score is not None]
    return Derived(
        digest,
        summarise(categories, images, "the dataset it was derived from", notes) | {"pseudo_boxes": len(said)},
        report.to_json(),
        previews,
        sum(bool(image.annotations) for image in images),
        len(said),
    )


def canonical_image(row: dict[str, Any], suffix: str, annotations: list[Annotation]) -> CanonicalImage:
    size = (row["width"], row["height"])
    picture = Picture(row["sha256"], *size, stored=size, orientation=1, suffix=suffix, rewrite=None)
    return CanonicalImage(row["source"], picture, row["split"], annotations)


def _said(found: Prediction | None, categories: tuple[str, ...], width: int, height: int) -> list[Annotation]:
    """Within the picture, rounded as every canonical box is; what is left of a box has at least a pixel a side."""
    if found is None:
        return []
    boxes = found.boxes.clip(0, [width, height, width, height]).round(3)
    whole = (boxes[:, 2:] - boxes[:, :2] >= canonical.MIN_SIDE).all(axis=1)
    rows = zip(boxes[whole].tolist(), found.labels[whole].tolist(), found.scores[whole].tolist(), strict=True)
    made = [
        Annotation(categories[label], (box[0], box[1], box[2], box[3]), score=round(score, 4))
        for box, label, score in rows
    ]
    return sorted({each.key(): each for each in made}.values(), key=Annotation.order)


def drawn(source: Dataset, rows: np.ndarray) -> list[Annotation]:
    """Its own annotations of these rows."""
    made = [
        Annotation(
            source.categories[source.labels[row]],
            _corners(source.boxes[row]),
            crowd=bool(source.iscrowd[row]),
            ignore=bool(source.ignored is not None and source.ignored[row]),
            score=_score(source, row),
        )
        for row in rows.tolist()
    ]
    return sorted(made, key=Annotation.order)


def _corners(box: np.ndarray) -> tuple[float, float, float, float]:
    left, top, right, bottom = (round(float(value), 3) for value in box)
    return left, top, right, bottom


def _score(source: Dataset, row: int) -> float | None:
    if source.scores is None or np.isnan(source.scores[row]):
        return None
    return float(source.scores[row])
