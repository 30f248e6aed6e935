"""What a person is asked about pseudo boxes, so that few answers say how many of all are right.

Boxes are drawn at random within three strata, the thirds of all pseudo boxes by score: half of them from the most doubtful
third. What is known of each third counts as the third's share of all boxes, so that looking at doubtful ones first does not
bias what is said of all. Objects without a box are counted in pictures that are drawn at random from all pictures.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from worker.data.dataset import Dataset

BOXES, PICTURES = 30, 10
# of the boxes that are looked at, from the most doubtful third to the surest
SHARES = (0.5, 0.25, 0.25)


def draw_review(
    dataset: Dataset, *, seed: int = 0, boxes: int = BOXES, pictures: int = PICTURES
) -> dict[str, Any]:
    """Plain JSON of what is to be looked at in a dataset with pseudo boxes, the most doubtful box first.

    `items`: `number`, `image_id`, `annotation_id`, `category`, `bbox` xywh in pixels, `score`, `stratum`. `pictures`: as
    `images` says one, with `boxes`, all pseudo boxes in it. `strata`: `boxes`, how many of all there are, and the `low` and
    `high` score. `images`: `id`, `file_name`, `width` and `height` of what is named; `all_pictures`: how many were drawn from.
    """
    if dataset.scores is None:
        raise ValueError("the dataset has no pseudo boxes")
    rng = np.random.default_rng(seed)
    rows = np.flatnonzero(~np.isnan(dataset.scores))
    rows = rows[np.argsort(dataset.scores[rows], kind="stable")]
    drawn: list[tuple[int, int]] = []
    strata = []
    for stratum, (part, share) in enumerate(zip(np.array_split(rows, len(SHARES)), SHARES, strict=True)):
        count = min(len(part), round(share * boxes))
        drawn += [(int(row), stratum) for row in rng.permutation(part)[:count]]
        if len(part):
            low, high = (float(dataset.scores[part[end]]) for end in (0, -1))
            strata.append({"boxes": len(part), "low": low, "high": high})
    drawn.sort(key=lambda each: (dataset.scores[each[0]], each[0]))  # type: ignore[index]
    by_image: dict[int, list[int]] = {}
    for row in rows.tolist():
        by_image.setdefault(int(dataset.annotation_image_ids[row]), []).append(row)
    # pictures of other splits hold what people drew: what a teacher missed is not to be seen there
    splits = {image.split for image in dataset.images if image.id in by_image}
    among = [image for image in dataset.images if image.split in splits]
    chosen = sorted(rng.permutation(len(among))[:pictures].tolist())
    items = [
        {"number": number, "stratum": stratum, **_box(dataset, row)}
        for number, (row, stratum) in enumerate(drawn, 1)
    ]
    shown = [
        {
            "image_id": among[place].id,
            "boxes": [_box(dataset, row) for row in by_image.get(among[place].id, [])],
        }
        for place in chosen
    ]
    named = {each["image_id"] for each in (*items, *shown)}
    return {
        "items": items,
        "pictures": shown,
        "strata": strata,
        "all_pictures": len(among),
        "categories": list(dataset.categories),
        "images": [
            {
                "id": image.id,
                "file_name": image.path.relative_to(dataset.root).as_posix(),
                "width": image.width,
                "height": image.height,
            }
            for image in dataset.images
            if image.id in named
        ],
    }


def _box(dataset: Dataset, row: int) -> dict[str, Any]:
    left, top, right, bottom = dataset.boxes[row].tolist()
    if dataset.scores is None:
        raise AssertionError("asked for scores before")
    return {
        "image_id": int(dataset.annotation_image_ids[row]),
        "annotation_id": int(dataset.annotation_ids[row]),
        "category": dataset.categories[dataset.labels[row]],
        "bbox": [left, top, round(right - left, 3), round(bottom - top, 3)],
        "score": float(dataset.scores[row]),
    }
