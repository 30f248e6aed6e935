"""A dataset with pseudo boxes as a person has corrected it: what was decided on counts as drawn, the other boxes stay as said."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from worker.data import canonical
from worker.data.canonical import Annotation
from worker.data.dataset import Dataset
from worker.data.faults import Report
from worker.pseudo_boxes.derived import Derived, canonical_image, drawn, files_of, written
from worker.pseudo_boxes.pseudo_boxes import Unteachable

# annotation id to what stands in its place: {"bbox": xywh in pixels, "category"}, or None where there is no object
Changes = Mapping[int, Mapping[str, Any] | None]


def revised(
    source: Dataset,
    changes: Changes,
    out: Path,
    *,
    description: str,
    lineage: dict[str, Any] | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Derived:
    """Writes into the empty folder `out` all pictures of `source`, with boxes exchanged or taken away as `changes` say.

    A box that was decided on has no score any more, as one that a person drew. A picture that loses its last box is left out,
    for it may hold objects all the same. Boxes end at the picture's edge.

    Raises Unteachable `unknown_box` for an id that is not there, `no_pseudo_boxes` where no box is left.
    """
    if strangers := sorted(set(changes) - set(source.annotation_ids.tolist())):
        raise Unteachable(
            "unknown_box", f"the dataset has no box {strangers[0]}: it is not the one that was reviewed"
        )
    report, files, images, left = Report(), files_of(source), [], 0
    for image in source.images:
        rows = np.flatnonzero(source.annotation_image_ids == image.id)
        ids = source.annotation_ids[rows].tolist()
        kept = drawn(
            source, np.array([row for row, id in zip(rows, ids, strict=True) if id not in changes], np.int64)
        )
        decided = [changes[id] for id in ids if id in changes]
        made = [_box(one, image.width, image.height) for one in decided if one is not None]
        boxes = [*kept, *(box for box in made if box is not None)]
        if len(rows) and not boxes:
            name = files[image.id]["source"]
            report.add("no_pseudo_box", name, "its last box was taken away: left out", image=True)
            continue
        left += bool(boxes)
        images.append(
            canonical_image(files[image.id], image.path.suffix, sorted(boxes, key=Annotation.order))
        )
    if not left:
        raise Unteachable("no_pseudo_boxes", "no box is left: nothing can be learned from that")
    return written(
        source,
        source.categories,
        images,
        out,
        description=description,
        report=report,
        lineage=lineage,
        notes=(f"{len(changes)} of its boxes were looked at by a person",),
        progress=progress,
    )


def _box(one: Mapping[str, Any], width: int, height: int) -> Annotation | None:
    """None where nothing of it lies in the picture."""
    left, top, wide, tall = one["bbox"]
    x0, x1 = (round(min(max(value, 0.0), width), 3) for value in (left, left + wide))
    y0, y1 = (round(min(max(value, 0.0), height), 3) for value in (top, top + tall))
    if min(x1 - x0, y1 - y0) < canonical.MIN_SIDE:
        return None
    return Annotation(one["category"], (x0, y0, x1, y1))
