"""A pretraining for a terminal."""

from typing import Any

from rich.table import Table

from app.cli.session import out, say
from app.cli.show.tables import number, state, table_of

Record = dict[str, Any]


def pretrainings(records: list[Record]) -> Table:
    rows = [
        [
            r["id"],
            r["name"],
            state(r["state"]),
            r["recipe"],
            r["proposals"] or r["method"],
            r["trained_checkpoint_id"],
            r["created_at"],
        ]
        for r in records
    ]
    return table_of("", ["id", "name", "state", "recipe", "proposals", "checkpoint", "created"], rows)


def show_pretraining(record: Record) -> None:
    """Prints recall before and after, or rounds, the comparison with its verdict, and where the weights are."""
    if record["recall"]:
        out.print(recall(record["recall"]))
    if record["self_training"]:
        out.print(rounds(record["self_training"]))
    comparison = record["comparison"]
    if comparison:
        out.print(arms(comparison))
        out.print(gains(comparison))
        for each in comparison["verdict"]:
            say(each)
        for each in comparison["left_out"]:
            say(f"left out: {each['verification_id']}: {each['reason']}")
    for warning in record["warnings"]:
        say(f"beware: {warning}")
    held_out = record["held_out"]
    if record["self_training"]:
        say(
            f"learned from {record['trained_on']} pictures; kept out: {held_out['equal_content']} that have labels or are "
            "measured on"
        )
    elif held_out:
        say(
            f"learned from {record['trained_on']} pictures; kept out: {held_out['split']} that were watched and "
            f"{held_out['equal_content']} whose content is in validation or test"
        )
    if record["finished"]:
        say(
            f"{record['recipe']}: {record['finished']} after {record['iterations']} iterations, "
            f"{record['seconds']:.0f} s"
        )
    if record["cost"]:
        spent = ", ".join(f"{name.removesuffix('_s')} {value:.0f}" for name, value in record["cost"].items())
        say(f"seconds of workers: {spent}")
    progress = record["progress"] or {}
    if record["state"] == "running" and progress.get("total"):
        say(f"{progress['done']}/{progress['total']} {progress['unit']}, {progress['message'] or ''}")
    if record["error"]:
        say(f"{record['error'].get('title', 'failed')}: {record['error'].get('detail', '')}")
    if record["trained_checkpoint_id"]:
        what = "the last student" if record["method"] == "self_training" else "pretrained weights"
        say(f"{what}: {record['trained_checkpoint_id']}")
    say(f"{record['id']}  {record['state']}")


def recall(told: Record) -> Table:
    """A row for each kind of truth before the first step and at the end, a column for each number of boxes."""
    rows = []
    end = {name: one["at"] for name, one in told["end"].items() if one}
    for when, recalls in (("before", told["start"]), ("after", end)):
        for kind in ("objects", "proposals"):
            if kind in recalls:
                rows.append([kind, when, *(number(recalls[kind][k]) for k in ("10", "30", "100"))])
    columns = ["of", "pretraining", "10 boxes", "30 boxes", "100 boxes"]
    return table_of("class-agnostic recall at IoU 0.5", columns, rows, numbers=frozenset(columns[2:]))


def arms(comparison: Record) -> Table:
    """A row for each share of labels and what was fine-tuned."""
    rows = [
        [f"{one['label_fraction']:g}", one["arm"], one["name"], number(one["map"]), number(one["ap50"])]
        for one in comparison["arms"]
    ]
    columns = ["labels", "from", "checkpoint", "mAP", "AP50"]
    return table_of("after fine-tuning", columns, rows, numbers=frozenset({"labels", "mAP", "AP50"}))


def gains(comparison: Record) -> Table:
    """What the first arm gains over each other one, in AP50 and mAP, with 95 % intervals over seeds."""
    rows = [
        [
            f"{one['label_fraction']:g}",
            one["against"],
            one["name"],
            interval(one["map"]),
            interval(one["ap50"]),
        ]
        for one in comparison["gains"]
    ]
    return table_of(
        "gain", ["labels", "over", "checkpoint", "mAP", "AP50"], rows, numbers=frozenset({"labels"})
    )


def interval(gain: Record) -> str:
    if gain["mean"] is None:
        return "unknown"
    if gain["low"] is None:
        return f"{gain['mean']:+.3f}, no interval"
    return f"{gain['mean']:+.3f} ({gain['low']:+.3f} to {gain['high']:+.3f})"


def rounds(told: Record) -> Table:
    """The teacher and each round's student on the labelled dataset, and what was learned from."""
    teacher = told["teacher"]
    figures = [number(teacher.get("map")), number(teacher.get("ap50"))]
    rows = [["teacher", None, None, None, None, *figures, teacher["checkpoint_id"]]]
    for place, one in enumerate(told["rounds"], 1):
        pictures = f"{one['pictures']} of {one['unlabelled_pictures']}"
        chosen = [f"{one['confidence']:g}", number(one["f1"]), str(one["boxes"]), pictures]
        rows.append(
            [
                f"student {place}",
                *chosen,
                number(one["map"]),
                number(one["ap50"]),
                one["trained_checkpoint_id"],
            ]
        )
    columns = ["", "confidence", "F1", "pseudo boxes", "pictures", "mAP", "AP50", "checkpoint"]
    return table_of("self-training", columns, rows, numbers=frozenset(columns[1:4] + columns[5:7]))
