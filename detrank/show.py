"""A ranking as text for a terminal and as a table with a plot for a notebook; both read only its document."""

import math
from collections.abc import Sequence
from html import escape
from typing import Any

Record = dict[str, Any]
NONE = "–"
SHOWN_NEAR = 4
# of the highest chance of being best: from here on another stands beside the best
NEARLY = 0.5


def ordering(ranking: Record, candidate: Record) -> tuple[float | None, Sequence[float] | None]:
    """A candidate's score, the gain or the value of it, and its 95 % interval."""
    by_gain = (ranking["ranked_by"] or {}).get("quantity") == "gain"
    names = ("gain", "gain_interval") if by_gain else ("value", "interval")
    return candidate[names[0]], candidate[names[1]]


def by_prediction(ranking: Record) -> bool:
    """Whether the ranks are of the predicted mAP; of a score otherwise."""
    found: bool = ranking["order_by"] == "predicted_map"
    return found


def ordered_by(ranking: Record) -> str | None:
    """What the ranks are of, as a heading; None where there is no order yet."""
    by = ranking["ranked_by"] or {}
    if not by.get("metric"):
        return None
    if by_prediction(ranking):
        return "ranked by the mAP that fine-tuning is predicted to reach"
    gain = "gain of " if by.get("quantity") == "gain" else ""
    return f"ranked by {gain}{by['metric']} at {by['layer']} ({by['level']})"


def title(ranking: Record) -> str:
    """By what the candidates are ordered, or how far it is."""
    order = ordered_by(ranking)
    if order is None:
        return f"not ranked yet: {ranking['state']}"
    return order if by_prediction(ranking) else f"{order}, higher is better"


def with_digits(value: float | None, interval: Sequence[float] | None) -> str:
    """A score and half of its interval, to two digits of the latter; without one, three decimals."""
    if value is None:
        return NONE
    half = (interval[1] - interval[0]) / 2 if interval else 0.0
    if half <= 0:
        return f"{value:.3f}"
    digits = min(6, max(0, 1 - math.floor(math.log10(half))))
    return f"{value:.{digits}f} ± {half:.{digits}f}"


def cells(ranking: Record) -> tuple[list[str], list[list[str]]]:
    """The columns and rows of the table: what a choice is made by."""
    marks = {c["checkpoint_id"]: f"#{c['rank']}" if c["rank"] else c["name"] for c in ranking["candidates"]}
    found = _map_column(ranking)
    predicted = by_prediction(ranking)
    beside = "chance of best" if predicted else "as good as"
    columns = ["rank", "candidate", "score", beside, *found, "ms/image"]
    rows = []
    for candidate in ranking["candidates"]:
        value, interval = ordering(ranking, candidate)
        near = [marks[id] for id in candidate["near"] if id in marks]
        more = f" and {len(near) - SHOWN_NEAR} more" if len(near) > SHOWN_NEAR else ""
        ms = _milliseconds(candidate)
        rows.append(
            [
                str(candidate["rank"] or NONE),
                candidate["name"],
                with_digits(value, interval) if value is not None else candidate["state"],
                _chance(candidate) if predicted else ", ".join(near[:SHOWN_NEAR]) + more if near else NONE,
                *(_map(candidate) for _ in found),
                NONE if ms is None else f"{ms:.0f}" if ms >= 10 else f"{ms:.1f}",
            ]
        )
    return columns, rows


def _milliseconds(candidate: Record) -> float | None:
    """Of finding the objects of a picture; where that is not known, of reading one."""
    cost = candidate["cost"]
    found: float | None = (cost.get("inference") or cost)["ms_per_image"]
    return found


def _chance(candidate: Record) -> str:
    chance = candidate["chance_of_best"]
    return NONE if chance is None or candidate["rank"] is None else f"{chance:.0%}"


def _map_column(ranking: Record) -> list[str]:
    """The name of the column with mAP as measured, and where it was not as predicted; none where there is neither."""
    verified = any(candidate["map"] is not None for candidate in ranking["candidates"])
    told = next((one["predicted_map"] for one in ranking["candidates"] if one.get("predicted_map")), None)
    if told is None:
        return ["mAP"] if verified else []
    return [f"{'mAP, or ' if verified else ''}predicted{'' if verified else ' mAP'} ({told['level']:.0%})"]


def _map(candidate: Record) -> str:
    if candidate["map"] is not None:
        return f"{candidate['map']:.3f}"
    told = candidate.get("predicted_map")
    return f"{told['low']:.2f} to {told['high']:.2f}" if told else NONE


def notes(ranking: Record) -> list[str]:
    """What is said below the table: who is left out, who cannot be told apart, and what to beware of."""
    said = [f"left out: {one['name']}: {one['reason']}" for one in ranking["left_out"]]
    said += [ranking["summary"]] if ranking["summary"] else []
    said += [one["summary"] for one in ranking["verified"]]
    # the summary has said who cannot be told apart
    return said + [f"beware: {one['detail']}" for one in ranking["warnings"] if one["code"] != "near_tie"]


def as_text(ranking: Record) -> str:
    columns, rows = cells(ranking)
    widths = [max(map(len, column)) for column in zip(columns, *rows, strict=True)]
    right = {"rank", "score", "chance of best", "ms/image", *_map_column(ranking)}
    lines = [
        "  ".join(
            cell.rjust(width) if name in right else cell.ljust(width)
            for cell, width, name in zip(row, widths, columns, strict=True)
        ).rstrip()
        for row in (columns, *rows)
    ]
    return "\n".join([title(ranking), *lines, *notes(ranking)])


def as_html(ranking: Record, page: str) -> str:
    """page: the address of the ranking's page, to which it links."""
    columns, rows = cells(ranking)
    head = "".join(f"<th>{escape(name)}</th>" for name in columns)
    body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    said = "".join(f"<li>{escape(note)}</li>" for note in notes(ranking))
    return (
        f'<div><p>{escape(title(ranking))} · <a href="{escape(page)}">all of it</a></p>'
        f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
        f"{plot(ranking)}<ul>{said}</ul></div>"
    )


def _accuracy(ranking: Record, candidate: Record) -> tuple[float | None, Sequence[float] | None]:
    """What orders the candidates, with its limits."""
    if not by_prediction(ranking):
        return ordering(ranking, candidate)
    told = candidate["predicted_map"]
    return (told["mean"], (told["low"], told["high"])) if told else (None, None)


def plot(ranking: Record) -> str:
    """SVG: mAP where candidates were fine-tuned, else what orders them, against milliseconds; with a line through those that
    nothing faster beats. Empty where fewer than two candidates have both."""
    verified = sum(candidate["map"] is not None for candidate in ranking["candidates"]) > 1
    points = []
    for candidate in ranking["candidates"]:
        value, interval = (candidate["map"], None) if verified else _accuracy(ranking, candidate)
        ms = _milliseconds(candidate)
        if value is not None and ms is not None:
            points.append((ms, value, interval or (value, value), candidate))
    if len(points) < 2:
        return ""
    width, height, left, right, top, floor = 560, 280, 56, 16, 12, 236
    lows, highs = [low for _, _, (low, _), _ in points], [high for _, _, (_, high), _ in points]
    least, most, longest = min(lows), max(highs), 1.08 * max(ms for ms, *_ in points)
    spread = (most - least) or abs(most) or 1.0
    least, most = least - 0.06 * spread, most + 0.06 * spread

    def x(ms: float) -> float:
        return round(left + (width - left - right) * ms / (longest or 1.0), 1)

    def y(value: float) -> float:
        return round(floor - (floor - top) * (value - least) / (most - least), 1)

    drawn = [f'<path d="M{left} {top}V{floor}H{width - right}" stroke="currentColor" fill="none"/>']
    for share in (0.0, 0.5, 1.0):
        value, ms = least + share * (most - least), share * longest
        drawn.append(f'<text x="{left - 6}" y="{y(value) + 4}" text-anchor="end">{value:.3g}</text>')
        drawn.append(f'<text x="{x(ms)}" y="{floor + 16}" text-anchor="middle">{ms:.3g}</text>')
    edge, best = "", -math.inf
    for ms, value, _, _ in sorted(points, key=lambda point: (point[0], -point[1])):
        if value > best:
            edge += f"M{x(ms)} {y(value)}" if not edge else f"H{x(ms)}V{y(value)}"
            best = value
    drawn.append(f'<path d="{edge}H{width - right}" stroke="#888" stroke-dasharray="4 3" fill="none"/>')
    for ms, value, (low, high), candidate in points:
        mark = f"#{candidate['rank']}" if candidate["rank"] else candidate["name"]
        drawn.append(
            f"<g><title>{escape(candidate['name'])}: {ms:.3g} ms, {value:.3g}</title>"
            f'<path d="M{x(ms)} {y(low)}V{y(high)}" stroke="#2a78d6"/>'
            f'<circle cx="{x(ms)}" cy="{y(value)}" r="5" fill="#2a78d6"/>'
            f'<text x="{x(ms) + 8}" y="{y(value) - 6}">{escape(mark)}</text></g>'
        )
    said = "mAP" if verified else "predicted mAP" if by_prediction(ranking) else "score"
    drawn.append(
        f'<text x="{(left + width - right) / 2}" y="{floor + 36}" text-anchor="middle">ms per image</text>'
        f'<text x="14" y="{(top + floor) / 2}" text-anchor="middle" transform="rotate(-90 14 {(top + floor) / 2})">{said}</text>'
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img" '
        f'aria-label="{said} against milliseconds per image" font-size="12" fill="currentColor">{"".join(drawn)}</svg>'
    )
