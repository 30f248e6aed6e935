"""A ranking for a terminal."""

from typing import Any

from rich.table import Table

from app.cli.session import out, say
from app.cli.tables import bytes_of, millions, number, state, table_of

Record = dict[str, Any]

# narrower terminals get the score that orders the candidates; the others are in the JSON and the CSV
WIDE = 170


def rankings(records: list[Record]) -> Table:
    rows = [
        [r["id"], r.get("name"), state(r["state"]), r["dataset_id"], len(r["checkpoint_ids"]), r["created_at"]] for r in records
    ]
    return table_of("", ["id", "name", "state", "dataset", "candidates", "created"], rows, numbers=frozenset({"candidates"}))


def show_ranking(ranking: Record) -> None:
    """Prints the order, who is left out and why, and what to beware of."""
    out.print(ranking_table(ranking))
    for one in ranking["left_out"]:
        say(f"left out: {one['name']}: {one['reason']}")
    if ranking["summary"]:
        say(ranking["summary"])
    for warning in ranking["warnings"]:
        if warning["code"] != "near_tie":  # the summary has said so
            say(f"beware: {warning['detail']}")
    say(f"{ranking['id']}  {ranking['state']}")


def ranking_table(ranking: Record) -> Table:
    """One row for each candidate: rank, metrics at the layer that ordered them, how sure that is, cost and seconds."""
    by = ranking["ranked_by"] or {}
    place = (by.get("layer"), by.get("level"))
    metrics = _metrics(ranking, place, by.get("metric"))[: None if out.width >= WIDE else 1]
    sure = ["± 95 %", "z", "best"] if any(candidate["interval"] for candidate in ranking["candidates"]) else []
    columns = ["rank", "candidate", *metrics[:1], *sure, *metrics[1:], "parameters", "ms/image", "memory", "licence", "seconds", "state"]
    rows = [
        [
            candidate["rank"] or "–", candidate["name"], *(_value(candidate, metric, place) for metric in metrics[:1]),
            *(_sure(candidate) if sure else ()), *(_value(candidate, metric, place) for metric in metrics[1:]),
            millions(candidate["cost"]["parameters"]), number_of(candidate["cost"]["ms_per_image"]),
            bytes_of(candidate["cost"]["peak_memory_bytes"]), candidate["cost"]["licence"] or "–",
            number_of(seconds(candidate)), state(candidate["state"]),
        ]
        for candidate in ranking["candidates"]
    ]  # fmt: skip
    title = f"ranked by {by['metric']} at {by['layer']} ({by['level']})" if by.get("metric") else "not ranked yet"
    numbers = frozenset({"rank", *metrics, *sure, "parameters", "ms/image", "memory", "seconds"})
    return table_of(title, columns, rows, numbers=numbers)


def _sure(candidate: Record) -> list[str]:
    """Half the interval, z and the chance of being best."""
    limits, z, chance = candidate["interval"], candidate["z"], candidate["chance_of_best"]
    return [
        number(limits and (limits[1] - limits[0]) / 2),
        number_of(z),
        "–" if chance is None else f"{chance:.0%}",
    ]


def seconds(candidate: Record) -> float | None:
    return (candidate["timings"] or {}).get("total")


def number_of(value: float | None) -> str:
    return "–" if value is None else f"{value:.1f}"


def _metrics(ranking: Record, place: tuple[str | None, str | None], first: str | None) -> list[str]:
    found = [
        score["metric"]
        for candidate in ranking["candidates"]
        for score in candidate["scores"]
        if (score["layer"], score["level"]) == place
    ]
    return list(dict.fromkeys([first, *found] if first else found))


def _value(candidate: Record, metric: str, place: tuple[str | None, str | None]) -> str:
    for score in candidate["scores"]:
        if score["metric"] == metric and (score["layer"], score["level"]) == place:
            return number(score["value"]) if score["undefined"] is None else "undefined"
    return "–"
