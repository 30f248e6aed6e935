"""A study for a terminal."""

from typing import Any

from rich.table import Table

from app.cli.session import out, say
from app.cli.show.tables import number, state, table_of

Record = dict[str, Any]
MAIN = "weighted_tau"
OTHERS = {"pearson": "Pearson", "kendall": "Kendall", "rel_at_1": "Rel@1", "regret_at_1": "Regret@1"}
SHOWN = 12


def studies(records: list[Record]) -> Table:
    rows = [
        [
            r["id"],
            r["name"],
            state(r["state"]),
            len(r["dataset_ids"]),
            len(r["checkpoint_ids"]),
            len(r["seeds"]),
            f"{r['progress']['done']}/{r['progress']['total']}",
            r["created_at"],
        ]
        for r in records
    ]
    columns = ["id", "name", "state", "datasets", "candidates", "seeds", "parts", "created"]
    return table_of("", columns, rows, numbers=frozenset({"datasets", "candidates", "seeds", "parts"}))


def show_study(record: Record) -> None:
    """Prints mAP, the best scores beside the static baselines, the verdict, and who is left out."""
    if any(one["map"] is not None for one in record["trainings"]):
        out.print(map_table(record))
    if record["correlations"]:
        out.print(correlations_table(record))
    for text in record["verdict"]:
        say(text)
    for warning in record["warnings"]:
        say(f"beware: {warning}")
    for one in record["left_out"]:
        say(f"left out: {one['candidate'] or 'every candidate'} on {one['dataset']}: {one['reason']}")
    if spent := record["spent"]:
        reused = (
            f"; {spent['reused']} trainings ({spent['reused_s']:.0f} s) were taken over from before"
            if spent["reused"]
            else ""
        )
        say(f"spent {spent['scoring_s']:.0f} s on scores and {spent['training_s']:.0f} s on training{reused}")
    if record["error"]:
        say(f"{record['error'].get('title', 'failed')}: {record['error'].get('detail', '')}")
    at = record["progress"]
    say(f"{record['id']}  {record['state']}  {at['done']}/{at['total']} parts")


def map_table(record: Record) -> Table:
    """One row for each candidate, one column for each dataset; the figures of the seeds."""
    names = record["names"]
    maps: dict[tuple[str, str], list[str]] = {}
    for one in record["trainings"]:
        if one["map"] is not None:
            maps.setdefault((one["checkpoint_id"], one["dataset_id"]), []).append(f"{one['map']:.3f}")
    rows = [
        [
            names[checkpoint],
            *(", ".join(maps.get((checkpoint, dataset), ["–"])) for dataset in record["dataset_ids"]),
        ]
        for checkpoint in record["checkpoint_ids"]
    ]
    columns = ["candidate", *(names[id] for id in record["dataset_ids"])]
    return table_of(
        "mAP after fine-tuning", columns, rows, numbers=frozenset(columns[1:]), whole=frozenset({"candidate"})
    )


def correlations_table(record: Record) -> Table:
    """The best scores by weighted tau, then the static baselines and the noise ceiling."""
    dataset = (
        "average"
        if len({row["dataset"] for row in record["correlations"]["rows"]} - {"average"}) > 1
        else None
    )
    measured: dict[tuple[str, ...], Record] = {}
    for row in record["correlations"]["rows"]:
        if dataset is None and row["dataset"] == "average":
            continue
        if dataset in (None, row["dataset"]):
            key = (row["kind"], row["metric"], row["layer"], row["level"])
            measured.setdefault(key, {})[row["measure"]] = row
    order = {"metric": 0, "baseline": 1, "noise ceiling": 2}
    ranked = sorted(measured, key=lambda key: (order[key[0]], -_value(measured[key])))
    shown = [key for key in ranked if key[0] == "metric"][:SHOWN] + [
        key for key in ranked if key[0] != "metric"
    ]
    rows = [
        [
            _name(key),
            _figures(measured[key][MAIN]),
            measured[key][MAIN]["n"],
            *(number(measured[key].get(name, {}).get("value")) for name in OTHERS),
        ]
        for key in shown
    ]
    title = "agreement with mAP, mean over datasets" if dataset else "agreement with mAP"
    columns = ["score", "weighted tau [95 %]", "n", *OTHERS.values()]
    return table_of(title, columns, rows, numbers=frozenset(columns[1:]), whole=frozenset({"score"}))


def _name(key: tuple[str, ...]) -> str:
    kind, metric, layer, level = key
    if kind == "metric" and metric != "default rule":
        return f"{metric} at {layer} ({level})"
    return {
        "baseline": f"{metric.removeprefix('static_')} (static)",
        "noise ceiling": "another seed's mAP",
    }.get(kind, metric)


def _value(measured: Record) -> float:
    value = measured[MAIN]["value"]
    return float("-inf") if value is None else value


def _figures(row: Record) -> str:
    if row["value"] is None:
        return "–"
    return f"{row['value']:.2f}" + ("" if row["low"] is None else f" [{row['low']:.2f}, {row['high']:.2f}]")
