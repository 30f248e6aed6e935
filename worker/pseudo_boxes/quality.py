"""What pseudo boxes are worth where true boxes are known: how many are right, how many objects they find, and whether their scores say so."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from worker.data.dataset import Dataset
from worker.evaluation.evaluate import evaluate
from worker.evaluation.matching import FALSE, HIT, IGNORED, Matches, match
from worker.evaluation.prediction import Prediction

CONFIDENCES = tuple(np.round(np.arange(0.05, 1.0, 0.05), 2).tolist())
BINS = 10


def chosen_confidence(
    truth: Dataset, image_ids: Sequence[int], found: Iterable[Prediction]
) -> tuple[float, float]:
    """(confidence, F1): of CONFIDENCES the one with the best F1 at IoU 0.5 over all classes; the highest of equals."""
    matches = match(truth, image_ids, list(found))
    objects = int(matches.objects.sum())
    best = (CONFIDENCES[-1], 0.0)
    for confidence in CONFIDENCES:
        kept = matches.outcome[matches.scores >= confidence]
        hits, false = int((kept == HIT).sum()), int((kept == FALSE).sum())
        f1 = 2 * hits / (hits + false + objects) if objects else 0.0
        if f1 > 0 and f1 >= best[1]:
            best = (confidence, f1)
    return best


def quality_of(truth: Dataset, image_ids: Sequence[int], found: Sequence[Prediction]) -> dict[str, Any]:
    """Plain JSON, every share in [0, 1] or None where it is undefined.

    `precision`, `recall`, `f1` at IoU 0.5 over all boxes and classes; `ap50`, `map` as COCO has them; `corloc` the mean over
    classes; `per_class`; `pictures`, `objects`, `boxes`: how many were compared; `calibration`: see `calibration_of`.
    """
    matches = match(truth, image_ids, found)
    hits, false = int((matches.outcome == HIT).sum()), int((matches.outcome == FALSE).sum())
    objects = int(matches.objects.sum())
    precision, recall = _share(hits, hits + false), _share(hits, objects)
    whole = evaluate(truth, image_ids, found)
    counted = matches.outcome != IGNORED
    return {
        "pictures": len(set(image_ids)),
        "objects": objects,
        "boxes": hits + false,
        "precision": precision,
        "recall": recall,
        "f1": _share(2 * hits, hits + false + objects),
        "ap50": whole.box["ap50"],
        "map": whole.box["map"],
        "corloc": whole.corloc,
        "per_class": [_of_class(truth, matches, label, row) for label, row in enumerate(whole.per_class)],
        "calibration": calibration_of(matches.scores[counted], matches.outcome[counted] == HIT),
    }


def calibration_of(scores: np.ndarray, right: np.ndarray) -> dict[str, Any]:
    """Whether a score is the share of such boxes that are right.

    `error`: the expected calibration error (Naeini et al., AAAI 2015) over BINS equal bins of scores; None without a box.
    `bins`: of those with boxes `low`, `high`, `boxes`, mean `score` and share `right`.
    """
    place = np.minimum((scores * BINS).astype(int), BINS - 1)
    bins = [
        {
            "low": number / BINS,
            "high": (number + 1) / BINS,
            "boxes": int((place == number).sum()),
            "score": float(scores[place == number].mean()),
            "right": float(right[place == number].mean()),
        }
        for number in range(BINS)
        if (place == number).any()
    ]
    error = sum(each["boxes"] * abs(each["score"] - each["right"]) for each in bins)
    return {"error": error / len(scores) if len(scores) else None, "bins": bins}


def _of_class(truth: Dataset, matches: Matches, label: int, row: dict[str, Any]) -> dict[str, Any]:
    own = matches.labels == label
    hits, false = int((matches.outcome[own] == HIT).sum()), int((matches.outcome[own] == FALSE).sum())
    objects = int(matches.objects[label])
    return {
        "category": truth.categories[label],
        "objects": objects,
        "boxes": hits + false,
        "precision": _share(hits, hits + false),
        "recall": _share(hits, objects),
        "ap50": row["ap50"],
        "corloc": row["corloc"],
    }


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None
