"""A verification for a terminal."""

from typing import Any

from rich.table import Table

from app.cli.session import out, say
from app.cli.show.tables import number, state, table_of

Record = dict[str, Any]
FIGURES = {
    "AP": "map",
    "AP50": "ap50",
    "AP75": "ap75",
    "AP small": "ap_small",
    "AP medium": "ap_medium",
    "AP large": "ap_large",
    "AR1": "ar1",
    "AR10": "ar10",
    "AR100": "ar100",
}


def verifications(records: list[Record]) -> Table:
    rows = [
        [
            r["id"],
            r["name"],
            state(r["state"]),
            r["recipe"],
            r["seed"],
            number(r["map"]),
            r["checkpoint_id"],
            r["created_at"],
        ]
        for r in records
    ]
    columns = ["id", "name", "state", "recipe", "seed", "mAP", "checkpoint", "created"]
    return table_of("", columns, rows, numbers=frozenset({"seed", "mAP"}))


def show_verification(record: Record) -> None:
    """Prints mAP by part and class, what was learned from, and where the weights are."""
    parts = [(name, record[name]) for name in ("test", "val") if record.get(name)]
    if parts:
        out.print(figures(parts))
        out.print(classes(parts[0][1]))
    for warning in record["warnings"]:
        say(f"beware: {warning}")
    subset = record["subset"]
    if subset["images"] is not None:
        of = (
            "all"
            if subset["kind"] == "all"
            else f"{subset['kind']} {subset['value']:g}, seed {subset['seed']}"
        )
        say(f"learned from {subset['images']} images with {subset['objects']} objects ({of})")
        if subset["missing"]:
            say(f"beware: no object of {', '.join(subset['missing'])} among them")
    if record["finished"]:
        best = record["best"] or {}
        say(
            f"{record['recipe']}: {record['finished']} after {record['iterations']} iterations, "
            f"{record['seconds']:.0f} s; "
            f"best at iteration {best.get('iteration', '–')}"
        )
    progress = record["progress"] or {}
    if record["state"] == "running" and progress.get("total"):
        say(f"{progress['done']}/{progress['total']} {progress['unit']}, {progress['message'] or ''}")
    if record["error"]:
        say(f"{record['error'].get('title', 'failed')}: {record['error'].get('detail', '')}")
    if record["trained_checkpoint_id"]:
        say(f"fine-tuned weights: {record['trained_checkpoint_id']}")
    say(f"{record['id']}  {record['state']}")


def figures(parts: list[tuple[str, Record]]) -> Table:
    """One row for test and validation each, boxes and masks; one column for each of COCO's figures."""
    rows = [
        [
            name + suffix,
            evaluation["images"],
            evaluation["objects"],
            *(number(values.get(key)) for key in FIGURES.values()),
        ]
        for name, evaluation in parts
        for suffix, values in (("", evaluation["box"]), (" masks", evaluation["mask"]))
        if values
    ]
    columns = ["", "images", "objects", *FIGURES]
    return table_of(
        "mAP after fine-tuning", columns, rows, numbers=frozenset(columns[1:]), whole=frozenset({""})
    )


def classes(evaluation: Record) -> Table:
    """One row for each category."""
    rows = [
        [one["category"], one["objects"], number(one["ap"]), number(one["ap50"])]
        for one in evaluation["per_class"]
    ]
    return table_of(
        "by category",
        ["category", "objects", "AP", "AP50"],
        rows,
        numbers=frozenset({"objects", "AP", "AP50"}),
    )
