"""Results of trainings as the curves, tables and pictures that people look at."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

Record = dict[str, Any]


@dataclass(frozen=True)
class Side:
    """One of the verifications that are looked at together. boxes: what /predictions answered, None where none were kept."""

    letter: str
    verification: Record
    boxes: Record | None

    @property
    def threshold(self) -> float:
        """The score that its slider begins at."""
        best = (self.boxes or {}).get("threshold")
        return 0.5 if best is None else float(best)


@dataclass(frozen=True)
class Shot:
    """A picture with what each side found on it; None where a side did not look at it."""

    image: Record
    found: list[Record | None]


def shots(sides: Sequence[Side]) -> list[Shot]:
    """The pictures of the first side, in its order."""
    by_id = [{image["image_id"]: image for image in (side.boxes or {"items": []})["items"]} for side in sides]
    return [Shot(image, [images.get(id) for images in by_id]) for id, image in by_id[0].items()]


def headline(verification: Record) -> Record:
    """The evaluation that its mAP is of: on test pictures, or on validation where there are no others."""
    return verification["test"] or verification["val"] or {}


def classes_of(evaluations: Sequence[Record]) -> list[tuple[str, list[float | None]]]:
    """(class, AP in each evaluation), those where two differ most first, else the lowest AP first."""
    found = [{row["category"]: row["ap"] for row in one.get("per_class") or []} for one in evaluations]
    rows = [(name, [of.get(name) for of in found]) for name in found[0]] if found else []
    return sorted(rows, key=lambda row: _order(row[1]))


def _order(values: Sequence[float | None]) -> tuple[bool, float]:
    known = [value for value in values if value is not None]
    if len(known) < len(values):
        return True, 0.0
    return False, known[0] if len(known) == 1 else min(known) - max(known)


def curve(points: Sequence[Record], name: str = "loss") -> list[tuple[float, float]]:
    return [(p["iteration"], p[name]) for p in points if isinstance(p.get(name), int | float)]


def map_curve(points: Sequence[Record]) -> list[tuple[float, float]]:
    """mAP on validation over iterations, in points of 100 as everywhere."""
    found = curve([{"iteration": p["iteration"], **p["val"]} for p in points if p.get("val")], "map")
    return [(iteration, 100 * map) for iteration, map in found]


def recall_curves(points: Sequence[Record]) -> list[tuple[str, list[tuple[float, float]]]]:
    """(what is covered, points) of a pretraining: the share that its 30 best boxes cover, over iterations."""
    looks = [(p["iteration"], (p.get("val") or {}).get("recall") or {}) for p in points]
    words = {"objects": "objects", "proposals": "regions"}
    found = {
        kind: [
            (at, recall[kind]["30"]) for at, recall in looks if (recall.get(kind) or {}).get("30") is not None
        ]
        for kind in words
    }
    return [(words[kind], line) for kind, line in found.items() if line]


def precision_at_recall(evaluation: Record) -> list[tuple[str, list[tuple[float, float]]]]:
    """(IoU, points) for each IoU that was kept: the mean precision over classes at each recall."""
    curves = evaluation.get("curves") or {"recall": [], "precision": {}}
    return [
        (f"IoU {iou}", [(x, y) for x, y in zip(curves["recall"], values, strict=True) if y is not None])
        for iou, values in curves["precision"].items()
    ]


# worker/studies/measures/foreknown.py
BESIDE = {
    "belief": "belief",
    "static_blind_list": "blind list",
    "half_training": "half of the training",
}


MOST_CURVES = 4


def recall_of_classes(evaluation: Record) -> list[tuple[str, list[tuple[float, float]]]]:
    """(class with its AP50, points at IoU 0.5) of the classes that are found worst, at most MOST_CURVES; the worst first."""
    curves = evaluation.get("curves") or {}
    ap50 = {row["category"]: row.get("ap50") for row in evaluation.get("per_class") or []}
    found = []
    for name, values in sorted(
        (curves.get("by_class") or {}).items(), key=lambda one: ap50.get(one[0]) or 0.0
    ):
        step = 1 / max(1, len(values) - 1)
        found.append((name, [(n * step, y) for n, y in enumerate(values) if y is not None]))
    return found[:MOST_CURVES]


def trusted(study: Record, most: int = 12) -> list[Record]:
    """How well scores and static baselines agree with mAP by weighted tau, on average over datasets, the best first; what
    stands beside them in any case."""
    rows = (study["correlations"] or {"rows": []})["rows"]
    several = len(study["dataset_ids"]) > 1
    found = [
        row
        for row in rows
        if row["measure"] == "weighted_tau"
        and row["kind"] in ("metric", "baseline")
        and (row["dataset"] == "average") == several
        and row["value"] is not None
    ]
    found.sort(key=lambda row: -row["value"])
    return [
        row | {"metric": BESIDE.get(row["metric"], row["metric"])}
        for place, row in enumerate(found)
        if place < most or row["metric"] in BESIDE
    ]


ROUNDS = {"timing": "timing", "final": "test of the winner"}


def spent_by_round(search: Record) -> list[tuple[str, float]]:
    """(what it was spent on, seconds of workers): scores, then each round."""
    rounds = [
        (ROUNDS.get(round["kind"]) or f"to iteration {round['stop']}", round["seconds"] or 0.0)
        for round in search["rounds"]
    ]
    return [("scores", search["spent"]["ranking_s"]), *rounds]
