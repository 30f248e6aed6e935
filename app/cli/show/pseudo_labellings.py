"""A pseudo-labelling for a terminal."""

from typing import Any

from rich.table import Table

from app.cli.session import out, say
from app.cli.show.tables import number, state, table_of

Record = dict[str, Any]


def pseudo_labellings(records: list[Record]) -> Table:
    rows = [
        [
            r["id"],
            r["name"],
            state(r["state"]),
            r["teacher"],
            r["dataset_id"],
            r["made_dataset_id"],
            r["created_at"],
        ]
        for r in records
    ]
    return table_of("", ["id", "name", "state", "teacher", "of", "made", "created"], rows)


def show_pseudo_labelling(record: Record) -> None:
    """Prints what the boxes are worth, what the teacher chose, and where the dataset is."""
    quality = record["quality"]
    if quality:
        out.print(_per_class(quality))
        shares = ", ".join(
            f"{name} {number(quality[name])}" for name in ("precision", "recall", "ap50", "corloc")
        )
        say(f"against {quality['measured_on']} ({quality['objects']} objects): {shares}")
        error = quality["calibration"]["error"]
        if error is not None:
            say(f"scores differ from the share of boxes that are right by {error:.3f} on average")
    elif record["boxes"] is not None:
        say(
            "no true box is known, so what these boxes are worth is not: detrank pseudo-labellings review says it from 30 of them"
        )
    for warning in record["warnings"]:
        say(f"beware: {warning}")
    if record["boxes"] is not None:
        say(f"{record['boxes']} boxes in {record['labelled']} of {record['looked_at']} pictures")
    if record["said"]:
        chosen = ", ".join(
            f"{name.replace('_', ' ')} {value:g}"
            for name, value in record["said"].items()
            if isinstance(value, int | float)
        )
        say(f"the teacher: {chosen}")
    if own := (record["said"] or {}).get("detector"):
        shares = ", ".join(f"{name} {number(own[name])}" for name in ("map", "ap50", "corloc"))
        say(f"the detector that learned, by itself on {own['pictures']} {own['measured_on']}: {shares}")
    if record["trained_checkpoint_id"]:
        say(f"detector that learned on the way: {record['trained_checkpoint_id']}")
    if record["cost"]:
        spent = ", ".join(f"{name.removesuffix('_s')} {value:.0f}" for name, value in record["cost"].items())
        say(f"seconds of workers: {spent}")
    if record["error"]:
        say(f"{record['error'].get('title', 'failed')}: {record['error'].get('detail', '')}")
    if record["made_dataset_id"]:
        say(f"dataset with pseudo boxes: {record['made_dataset_id']}")
    say(f"{record['id']}  {record['state']}")


def show_review(review: Record) -> None:
    """Prints the boxes to look at, and what the answers say of all boxes."""
    rows = [
        [
            each["number"],
            each["image_id"],
            each["category"],
            " ".join(f"{value:.0f}" for value in each["bbox"]),
            f"{each['score']:.2f}",
            each["decision"],
            each["image_url"],
        ]
        for each in review["items"]
    ]
    columns = ["box", "image", "category", "x y width height", "score", "decision", "picture"]
    out.print(
        table_of("the most doubtful first", columns, rows, numbers=frozenset({"box", "image", "score"}))
    )
    open_ = [str(each["image_id"]) for each in review["pictures"] if each["missed"] is None]
    if open_:
        say(f"count the objects without a box in the images {', '.join(open_)} (--missed 17=2)")
    for each in review["summary"]:
        say(each)


def _per_class(quality: Record) -> Table:
    rows = [
        [
            each["category"],
            each["objects"],
            each["boxes"],
            *(number(each[name]) for name in ("precision", "recall", "ap50", "corloc")),
        ]
        for each in quality["per_class"]
    ]
    columns = ["category", "objects", "boxes", "precision", "recall", "AP50", "CorLoc"]
    return table_of("pseudo boxes at IoU 0.5", columns, rows, numbers=frozenset(columns[1:]))
