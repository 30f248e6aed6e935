"""A ranking for a terminal."""

from typing import Any

from rich.table import Table

from app.cli.session import out, say
from app.cli.tables import bytes_of, millions, number, state, table_of

Record = dict[str, Any]

def rankings(records: list[Record]) -> Table:
    rows = [
        [r["id"], r.get("name"), state(r["state"]), r["dataset_id"], len(r["checkpoint_ids"]), r["created_at"]] for r in records
    ]
    return table_of("", ["id", "name", "state", "dataset", "candidates", "created"], rows, numbers=frozenset({"candidates"}))


def show_ranking(ranking: Record) -> None:
    """Prints the order, who is left out and why, and what to beware of."""
    out.print(ranking_table(ranking))
    if any(candidate["scores"] for candidate in ranking["candidates"]):
        out.print(scores_table(ranking))
    for one in ranking["left_out"]:
        say(f"left out: {one['name']}: {one['reason']}")
    if ranking["summary"]:
        say(ranking["summary"])
    for verified in ranking.get("verified") or []:
        out.print(agreement_table(ranking, verified))
        say(verified["summary"])
    for warning in ranking["warnings"]:
        if warning["code"] != "near_tie":  # the summary has said so
            say(f"beware: {warning['detail']}")
    say(f"{ranking['id']}  {ranking['state']}")


def ranking_table(ranking: Record) -> Table:
    """One row for each candidate: rank, the score that ordered them, how sure that is, cost and seconds."""
    by = ranking["ranked_by"] or {}
    place = _place(ranking)
    metrics = [by["metric"]] if by.get("metric") else []
    sure = ["± 95 %", "z", "best"] if any(_limits(ranking, candidate) for candidate in ranking["candidates"]) else []
    unfinished = ["state"] if any(candidate["state"] != "succeeded" for candidate in ranking["candidates"]) else []
    gains = ["gain"] if any(candidate.get("gain") is not None for candidate in ranking["candidates"]) else []
    verified = ["mAP"] if any(candidate.get("verifications") for candidate in ranking["candidates"]) else []
    columns = ["rank", "candidate", *metrics, *gains, *sure, *verified, "parameters", "ms/image", "memory", "licence", "seconds", *unfinished]
    rows = [
        [
            candidate["rank"] or "–", candidate["name"], *(_value(candidate, metric, place) for metric in metrics),
            *(number(candidate["gain"]) for _ in gains), *(_sure(ranking, candidate) if sure else ()), *(number(candidate["map"]) for _ in verified),
            millions(candidate["cost"]["parameters"]), number_of(candidate["cost"]["ms_per_image"]),
            bytes_of(candidate["cost"]["peak_memory_bytes"]), candidate["cost"]["licence"] or "–",
            number_of(seconds(candidate)), *(state(candidate["state"]) for _ in unfinished),
        ]
        for candidate in ranking["candidates"]
    ]  # fmt: skip
    of = "gain of " if by.get("quantity") == "gain" else ""
    title = f"ranked by {of}{by['metric']} at {by['layer']} ({by['level']})" if by.get("metric") else "not ranked yet"
    numbers = frozenset({"rank", *metrics, *gains, *sure, "mAP", "parameters", "ms/image", "memory", "seconds"})
    return table_of(title, columns, rows, numbers=numbers, whole=frozenset({"candidate"}))


def scores_table(ranking: Record) -> Table:
    """One row for each metric at the layer that ordered the candidates, one column for each candidate's rank."""
    place = _place(ranking)
    candidates = [candidate for candidate in ranking["candidates"] if candidate["scores"]]
    names = [f"#{candidate['rank']}" if candidate["rank"] else candidate["name"] for candidate in candidates]
    rows = [
        [metric, *(_value(candidate, metric, place) for candidate in candidates)] for metric in _metrics(ranking, place)
    ]
    title = f"every score at {place[0]} ({place[1]}), by rank" if place[0] else "scores so far"
    return table_of(title, ["metric", *names], rows, numbers=frozenset(names), whole=frozenset({"metric"}))


def agreement_table(ranking: Record, verified: Record) -> Table:
    """How scores at the layer that ordered the candidates, and the baselines, agree with mAP."""
    place = _place(ranking)
    shown = [row for row in verified["correlations"] if row["kind"] == "baseline" or (row["layer"], row["level"]) == place]
    rows = [
        [row["metric"], row["n"], *(_agreement(row["measures"][name]) for name in AGREEMENT.values()), _interval(row)] for row in shown
    ]
    columns = ["score", "n", *AGREEMENT, "τ_w 95 %"]
    title = f"agreement with mAP on {verified['split']} ({', '.join(verified['recipes'])})"
    return table_of(title, columns, rows, numbers=frozenset(columns[1:]), whole=frozenset({"score"}))


AGREEMENT = {"Pearson": "pearson", "Spearman": "spearman", "Kendall": "kendall", "τ_w": "weighted_tau"}


def _agreement(measure: Record) -> str:
    return "undefined" if measure["value"] is None else f"{measure['value']:.2f}"


def _interval(row: Record) -> str:
    tau = row["measures"]["weighted_tau"]
    return "–" if tau["low"] is None else f"{tau['low']:.2f} to {tau['high']:.2f}"


def _limits(ranking: Record, candidate: Record) -> list[float] | None:
    """The interval of what orders the candidates."""
    quantity = (ranking["ranked_by"] or {}).get("quantity")
    return candidate["gain_interval" if quantity == "gain" else "interval"]


def _sure(ranking: Record, candidate: Record) -> list[str]:
    """Half the interval, z and the chance of being best."""
    limits, z, chance = _limits(ranking, candidate), candidate["z"], candidate["chance_of_best"]
    return [
        number(limits and (limits[1] - limits[0]) / 2),
        number_of(z),
        "–" if chance is None else f"{chance:.0%}",
    ]


def seconds(candidate: Record) -> float | None:
    return (candidate["timings"] or {}).get("total")


def number_of(value: float | None) -> str:
    return "–" if value is None else f"{value:.1f}"


def _place(ranking: Record) -> tuple[str | None, str | None]:
    by = ranking["ranked_by"] or {}
    return by.get("layer"), by.get("level")


def _metrics(ranking: Record, place: tuple[str | None, str | None]) -> list[str]:
    first = (ranking["ranked_by"] or {}).get("metric")
    found = [
        score["metric"]
        for candidate in ranking["candidates"]
        for score in candidate["scores"]
        if place[0] is None or (score["layer"], score["level"]) == place
    ]
    return list(dict.fromkeys([first, *found] if first else found))


def _value(candidate: Record, metric: str, place: tuple[str | None, str | None]) -> str:
    for score in candidate["scores"]:
        if score["metric"] == metric and (place[0] is None or (score["layer"], score["level"]) == place):
            return number(score["value"]) if score["undefined"] is None else "undefined"
    return "–"
