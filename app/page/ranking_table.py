"""A ranking's document as the rows, points and orders that people look at."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from app.page.charts import Point
from detrank.show import NEARLY, by_prediction

Record = dict[str, Any]
SHOWN_NEAR = 4


@dataclass(frozen=True)
class Row:
    """A candidate in the table.

    value, interval: of what orders the candidates, its score or its gain. near: marks of those it cannot be told from;
    `more` of them are not shown. leads: it cannot be told from the best, or where predictions order them its chance of being
    best is at least half of the highest.
    """

    candidate: Record
    mark: str
    value: float | None
    interval: list[float] | None
    near: list[str]
    more: int
    leads: bool


def rows(ranking: Record) -> list[Row]:
    """Candidates as the API orders them: those with a rank first."""
    by_gain = quantity(ranking) == "gain"
    marks = {one["checkpoint_id"]: mark(one) for one in ranking["candidates"]}
    best = next((one["checkpoint_id"] for one in ranking["candidates"] if one["rank"] == 1), None)
    chances = [one["chance_of_best"] or 0.0 for one in ranking["candidates"] if one["rank"] is not None]
    enough = NEARLY * max(chances, default=0.0)
    found = []
    for one in ranking["candidates"]:
        near = [marks[id] for id in one["near"] if id in marks]
        found.append(
            Row(
                candidate=one,
                mark=marks[one["checkpoint_id"]],
                value=one["gain"] if by_gain else one["value"],
                interval=one["gain_interval"] if by_gain else one["interval"],
                near=near[:SHOWN_NEAR],
                more=max(0, len(near) - SHOWN_NEAR),
                leads=one["rank"] is not None
                and (
                    (one["chance_of_best"] or 0.0) >= enough
                    if by_prediction(ranking)
                    else one["checkpoint_id"] == best or best in one["near"]
                ),
            )
        )
    return found


def mark(candidate: Record) -> str:
    return f"#{candidate['rank']}" if candidate["rank"] else candidate["name"]


def quantity(ranking: Record) -> str | None:
    return (ranking["ranked_by"] or {}).get("quantity")


def span(found: Sequence[Row]) -> tuple[float, float] | None:
    """The scale that all intervals of the column share; None where there are none."""
    ends = [end for row in found if row.interval and row.value is not None for end in row.interval]
    return (min(ends), max(ends)) if ends else None


def running(candidate: Record) -> Record:
    """Milliseconds and memory of finding the objects of a picture; where that was not measured, of reading one."""
    found: Record = candidate["cost"].get("inference") or candidate["cost"]
    return found


def accuracy_of(found: Sequence[Row]) -> str:
    """What is drawn against milliseconds: `predicted` mAP where all with a place have it, else the `score`."""
    placed = [row for row in found if row.candidate["rank"] is not None]
    told = [row for row in placed if row.candidate["predicted_map"]]
    return "predicted" if told and len(told) == len(placed) else "score"


def points(found: Sequence[Row], accuracy: str) -> list[Point]:
    """`accuracy` (`map`, `predicted` or `score`) against milliseconds, of the candidates that have both."""
    made = []
    whole = all(row.candidate["cost"].get("inference") for row in found if row.candidate["rank"] is not None)
    for row in found:
        cost = running(row.candidate) if whole else row.candidate["cost"]
        ms, name = cost["ms_per_image"], row.candidate["name"]
        if ms is None:
            continue
        told = row.candidate["predicted_map"]
        if accuracy == "predicted" and told is not None:
            limits = [100 * told[part] for part in ("mean", "low", "high")]
            made.append(Point(name, row.mark, ms, *limits))
        elif accuracy == "map" and row.candidate["map"] is not None:
            made.append(Point(name, row.mark, ms, 100 * row.candidate["map"]))
        elif accuracy == "score" and row.value is not None:
            low, high = row.interval or (None, None)
            made.append(Point(name, row.mark, ms, row.value, low, high))
    return made


def static_orders(ranking: Record) -> list[tuple[str, list[str]]]:
    """(baseline, the candidates in the order it gives): what needs no score at all."""
    found: dict[str, list[tuple[int, str]]] = {}
    for one in ranking["candidates"]:
        for baseline, known in one["baselines"].items():
            rank = known.get("rank") if isinstance(known, dict) else None
            if rank is not None:
                found.setdefault(baseline, []).append((rank, one["name"]))
    return [(baseline, [name for _, name in sorted(order)]) for baseline, order in found.items()]


def place_of(score: Record) -> str:
    """Which score it is, as the page's addresses name it: `logme@backbone.c4@local`."""
    return f"{score.get('metric')}@{score.get('layer')}@{score.get('level')}"


def places(ranking: Record) -> dict[str, str]:
    """All that candidates were scored by: `place_of` to words, by metric."""
    found = {
        place_of(score): f"{score['metric']} at {score['layer']} ({score['level']})"
        for candidate in ranking["candidates"]
        for score in candidate["scores"]
    }
    return dict(sorted(found.items(), key=lambda item: item[1]))


def by_place(ranking: Record, place: str) -> list[tuple[Record, Record | None]]:
    """(candidate, its score there), the highest first; those without a value come last."""
    found = [
        (one, next((score for score in one["scores"] if place_of(score) == place), None))
        for one in ranking["candidates"]
    ]

    def order(row: tuple[Record, Record | None]) -> tuple[bool, float]:
        value = row[1] and row[1]["value"]
        return value is None, -(value or 0.0)

    return sorted(found, key=order)


def metrics_of(candidate: Record) -> dict[str, list[Record]]:
    """All scores of a candidate by layer and level."""
    found: dict[str, list[Record]] = {}
    for score in candidate["scores"]:
        found.setdefault(f"{score['layer']} ({score['level']})", []).append(score)
    return found
