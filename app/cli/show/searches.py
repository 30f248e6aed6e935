"""A search for a terminal."""

from typing import Any

from rich.table import Table

from app.cli.session import out, say
from app.cli.show.tables import number, state, table_of

Record = dict[str, Any]


def searches(records: list[Record]) -> Table:
    rows = [
        [
            r["id"],
            r["name"],
            state(r["state"]),
            r["dataset_id"],
            len(r["checkpoint_ids"]),
            f"{r['budget_minutes']:g}",
            number(r["map"]),
            r["created_at"],
        ]
        for r in records
    ]
    columns = ["id", "name", "state", "dataset", "candidates", "minutes", "mAP", "created"]
    return table_of("", columns, rows, numbers=frozenset({"candidates", "minutes", "mAP"}))


def show_search(record: Record) -> None:
    """Prints what was spent where, the best, how sure that is, and who is left out."""
    if record["rounds"]:
        out.print(rounds_table(record))
    for one in record["left_out"]:
        say(f"left out: {one['name']}: {one['reason']}")
    for warning in record["warnings"]:
        say(f"beware: {warning}")
    spent = record["spent"]
    say(
        f"spent {_minutes(spent['total_s'])} of {_minutes(spent['budget_s'])} minutes: "
        f"{_minutes(spent['ranking_s'])} on scores, "
        f"{_minutes(spent['training_s'])} on training"
        + (f", by {strategy.replace('_', ' ')}" if (strategy := record["strategy"]) else "")
    )
    if record["summary"]:
        say(record["summary"])
    if record["sure"]:
        say(f"how sure: {record['sure']['text']}")
    if record["brute_force"]:
        brute = record["brute_force"]
        say(f"brute force: about {brute['minutes']:.1f} minutes ({brute['text']})")
    if record["error"]:
        say(f"{record['error'].get('title', 'failed')}: {record['error'].get('detail', '')}")
    best = record["best"] or {}
    if best.get("trained_checkpoint_id"):
        say(f"fine-tuned weights: {best['trained_checkpoint_id']}")
    say(f"{record['id']}  {record['state']}")


def rounds_table(record: Record) -> Table:
    """One row for each part of each round."""
    rows = []
    for place, one in enumerate(record["rounds"], 1):
        for part in one["parts"]:
            label = str(place) if one["kind"] == "round" else one["kind"]
            rows.append(
                [
                    label,
                    part["name"],
                    f"{part['begin']}–{part['iterations'] or part['stop']}",
                    number(part["map"]),
                    number(part["ap50"]),
                    _improvement(part["expected_improvement"]),
                    _seconds(part["predicted_s"]),
                    _seconds(part["seconds"]),
                    _outcome(part),
                ]
            )
    numbers = frozenset({"iterations", "mAP on val", "AP50", "expected", "predicted s", "s"})
    columns = ["round", "candidate", "iterations", "mAP on val", "AP50", "expected", "predicted s", "s", ""]
    return table_of("what was spent where", columns, rows, numbers=numbers, whole=frozenset({"candidate"}))


def _outcome(part: Record) -> object:
    if part["state"] != "succeeded":
        return state(part["state"])
    return "goes on" if part["goes_on"] else ""


def _seconds(value: float | None) -> str:
    return "–" if value is None else f"{value:.1f}"


def _improvement(value: float | None) -> str:
    """Of the best mAP, for which the part was chosen."""
    return "–" if value is None else f"{value:+.4f}"


def _minutes(seconds: float) -> str:
    return f"{seconds / 60:.1f}"
