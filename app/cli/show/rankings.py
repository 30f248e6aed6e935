"""A ranking for a terminal."""

from typing import Any

from rich.table import Table
from rich.text import Text

from app.cli.session import out, say
from app.cli.show.tables import bytes_of, millions, number, state, table_of
from app.page.ranking_table import SHOWN_NEAR
from app.page.words import duration, fits, half_width, milliseconds, score, share
from detrank.show import by_prediction, ordered_by

Record = dict[str, Any]


def rankings(records: list[Record]) -> Table:
    rows = [
        [
            r["id"],
            r.get("name"),
            state(r["state"]),
            r["dataset_id"],
            len(r["checkpoint_ids"]),
            r["created_at"],
        ]
        for r in records
    ]
    return table_of(
        "",
        ["id", "name", "state", "dataset", "candidates", "created"],
        rows,
        numbers=frozenset({"candidates"}),
    )


def show_ranking(ranking: Record) -> None:
    """Prints the order, who is left out and why, and what to beware of."""
    out.print(ranking_table(ranking))
    _show_rest(ranking)


def show_whole_ranking(ranking: Record) -> None:
    """The same with every figure of every candidate, and every score at the layer that ordered them."""
    out.print(ranking_table(ranking))
    out.print(figures_table(ranking))
    out.print(costs_table(ranking))
    if any(candidate["scores"] for candidate in ranking["candidates"]):
        out.print(scores_table(ranking))
    _show_rest(ranking)


def _show_rest(ranking: Record) -> None:
    for one in ranking["left_out"]:
        say(f"left out: {one['name']}: {one['reason']}")
    if ranking["summary"]:
        say(ranking["summary"])
    for verified in ranking.get("verified") or []:
        out.print(agreement_table(ranking, verified))
        say(verified["summary"])
    if agree := ranking.get("agreement"):
        say(_orders_agree(agree))
    reasons = {
        training["unknown"]
        for one in ranking["candidates"]
        if (training := one["cost"].get("training")) and training["unknown"]
    }
    for reason in sorted(reasons):
        say(f"of what fine-tuning costs: {reason}")
    for warning in (ranking.get("belief") or {}).get("warnings", []):
        say(f"of the predicted mAP: {warning}")
    for warning in ranking["warnings"]:
        if warning["code"] != "near_tie":  # the summary has said so
            say(f"beware: {warning['detail']}")
    say(f"{ranking['id']}  {ranking['state']}")


def _orders_agree(agree: Record) -> str:
    told = []
    for name, one in agree["measures"].items():
        if one["value"] is None:
            return f"agreement with {agree['ranking_id']} is not defined: {one['undefined']}"
        limits = "" if one["low"] is None else f" ({one['low']:+.2f} to {one['high']:+.2f})"
        told.append(f"{name} {one['value']:+.2f}{limits}")
    return f"agrees with {agree['ranking_id']} over {agree['n']} candidates: {', '.join(told)}"


def ranking_table(ranking: Record) -> Table:
    """One row for each candidate: rank, its score with its interval, its chance of being best or who is as good by the score,
    mAP, and what it costs.

    At most seven columns, those that a choice is made by; `--wide` has the others, the JSON and the CSV all that is known.
    Milliseconds and memory are of finding the objects of a picture; where that is not known, of reading one.
    """
    by = ranking["ranked_by"] or {}
    ordering = "gain" if by.get("quantity") == "gain" else by.get("metric") or "score"
    marks = {c["checkpoint_id"]: f"#{c['rank']}" if c["rank"] else c["name"] for c in ranking["candidates"]}
    predicted, maps = by_prediction(ranking), _map_column(ranking)
    known = predicted or any(_limits(ranking, candidate) for candidate in ranking["candidates"])
    beside = ["chance of best" if predicted else "as good as"] if known else []
    columns = ["rank", "candidate", ordering, *beside, *maps, "ms/image", "memory"]
    rows = [
        [
            candidate["rank"] or "–",
            candidate["name"],
            _ordering(ranking, candidate),
            *(_chance(candidate) if predicted else _near(candidate, marks) for _ in beside),
            *(_map(candidate) for _ in maps),
            milliseconds(_running(candidate)["ms_per_image"]),
            bytes_of(_running(candidate)["peak_memory_bytes"]),
        ]
        for candidate in ranking["candidates"]
    ]
    numbers = frozenset({"rank", ordering, "chance of best", *maps, "ms/image", "memory"})
    return table_of(
        ordered_by(ranking) or "not ranked yet",
        columns,
        rows,
        numbers=numbers,
        whole=frozenset({"candidate"}),
    )


def figures_table(ranking: Record) -> Table:
    """What else is known of each candidate: the parts of its score, how sure its place is, and the orders that need no score."""
    static = list(dict.fromkeys(name for one in ranking["candidates"] for name in one.get("baselines") or {}))
    orders = [f"place by {name.replace('_', ' ')}" for name in static]
    named = ["rank", "candidate", "value", "zero point", "gain", "z", "chance of best", "parameters"]
    columns = [*named, *orders, "licence"]
    rows = [
        [
            one["rank"] or "–",
            one["name"],
            score(one["value"], one["interval"]),
            score(one["zero_point"]),
            score(one["gain"], one["gain_interval"]),
            "–" if one["z"] is None else f"{one['z']:.0f}",
            share(one["chance_of_best"]),
            millions(one["cost"]["parameters"]),
            *(_static_rank(one, name) for name in static),
            one["cost"]["licence"] or "–",
        ]
        for one in ranking["candidates"]
    ]
    numbers = frozenset(columns) - {"candidate", "licence"}
    return table_of("every figure", columns, rows, numbers=numbers, whole=frozenset({"candidate"}))


def costs_table(ranking: Record) -> Table:
    """What each candidate costs to run and to fine-tune; a mark at those that nothing faster is predicted to beat."""
    columns = ["rank", "candidate", "frontier", "ms", "memory", "training", "by", "its memory", "fits"]
    rows = []
    for one in ranking["candidates"]:
        inference, training = one["cost"].get("inference") or {}, one["cost"].get("training") or {}
        rows.append(
            [
                one["rank"] or "–",
                one["name"],
                "*" if one.get("frontier") else "",
                milliseconds(inference.get("ms_per_image")),
                bytes_of(inference.get("peak_memory_bytes")),
                duration(training.get("seconds")),
                training.get("recipe") or "–",
                bytes_of(training.get("peak_memory_bytes")),
                fits(one["cost"].get("training")),
            ]
        )
    numbers = frozenset({"rank", "ms", "memory", "training", "its memory"})
    title = "what it costs: finding the objects of a picture, and fine-tuning"
    return table_of(title, columns, rows, numbers=numbers, whole=frozenset({"candidate"}))


def _static_rank(candidate: Record, name: str) -> str:
    known = candidate["baselines"].get(name)
    return str(known["rank"]) if isinstance(known, dict) and known.get("rank") else "–"


def _ordering(ranking: Record, candidate: Record) -> str | Text:
    """What orders the candidates, with the digits that its interval deserves; where there is none, the state."""
    by_gain = (ranking["ranked_by"] or {}).get("quantity") == "gain"
    value, limits = candidate["gain" if by_gain else "value"], _limits(ranking, candidate)
    if value is None:
        return state(candidate["state"])
    half = half_width(value, limits)
    return f"{score(value, limits)} ± {half}" if half else score(value, limits)


def _map_column(ranking: Record) -> list[str]:
    """The name of the column with mAP as measured, and where it was not as predicted; none where there is neither."""
    verified = any(candidate.get("verifications") for candidate in ranking["candidates"])
    told = [
        candidate["predicted_map"] for candidate in ranking["candidates"] if candidate.get("predicted_map")
    ]
    if not told:
        return ["mAP"] if verified else []
    level = f"{told[0]['level']:.0%}"
    return [f"mAP, or predicted ({level})" if verified else f"predicted mAP ({level})"]


def _map(candidate: Record) -> str:
    if candidate["map"] is not None:
        return f"{candidate['map']:.3f}"
    told = candidate.get("predicted_map")
    return f"{told['low']:.2f} to {told['high']:.2f}" if told else "–"


def _running(candidate: Record) -> Record:
    found: Record = candidate["cost"].get("inference") or candidate["cost"]
    return found


def _chance(candidate: Record) -> str:
    return share(candidate["chance_of_best"]) if candidate["rank"] else "–"


def _near(candidate: Record, marks: dict[str, str]) -> str:
    """Who cannot be told apart from it (95 %)."""
    near = [marks[id] for id in candidate["near"] if id in marks]
    more = f" and {len(near) - SHOWN_NEAR} more" if len(near) > SHOWN_NEAR else ""
    return ", ".join(near[:SHOWN_NEAR]) + more if near else "–"


def scores_table(ranking: Record) -> Table:
    """A row for each metric at the layer that ordered the candidates, a column for each candidate's rank."""
    place = _place(ranking)
    candidates = [candidate for candidate in ranking["candidates"] if candidate["scores"]]
    names = [f"#{candidate['rank']}" if candidate["rank"] else candidate["name"] for candidate in candidates]
    rows = [
        [metric, *(_value(candidate, metric, place) for candidate in candidates)]
        for metric in _metrics(ranking, place)
    ]
    title = f"every score at {place[0]} ({place[1]}), by rank" if place[0] else "scores so far"
    return table_of(title, ["metric", *names], rows, numbers=frozenset(names), whole=frozenset({"metric"}))


def agreement_table(ranking: Record, verified: Record) -> Table:
    """How scores at the layer that ordered the candidates, and the baselines, agree with mAP."""
    place = _place(ranking)
    shown = [
        row
        for row in verified["correlations"]
        if row["kind"] == "baseline" or (row["layer"], row["level"]) == place
    ]
    rows = [
        [
            row["metric"],
            row["n"],
            *(_agreement(row["measures"][name]) for name in AGREEMENT.values()),
            _interval(row),
        ]
        for row in shown
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


def _place(ranking: Record) -> tuple[str | None, str | None]:
    by = ranking["ranked_by"] or {}
    return by.get("layer"), by.get("level")


def _metrics(ranking: Record, place: tuple[str | None, str | None]) -> list[str]:
    first = (ranking["ranked_by"] or {}).get("metric")
    found = [
        one["metric"]
        for candidate in ranking["candidates"]
        for one in candidate["scores"]
        if place[0] is None or (one["layer"], one["level"]) == place
    ]
    return list(dict.fromkeys([first, *found] if first else found))


def _value(candidate: Record, metric: str, place: tuple[str | None, str | None]) -> str:
    for one in candidate["scores"]:
        if one["metric"] == metric and (place[0] is None or (one["layer"], one["level"]) == place):
            return number(one["value"]) if one["undefined"] is None else "undefined"
    return "–"
