"""A dataset for a terminal: what was read as what, its splits and where they come from, and what was dropped or repaired."""

from typing import Any

from app.cli.show.tables import table_of

Record = dict[str, Any]
_SHOWN_REASON = 150


def headline(record: Record) -> list[str]:
    """What was read as what, and the splits with the reason for them, a sentence a line."""
    summary = record.get("summary") or {}
    if not summary:
        return []
    supervision = _SUPERVISION.get(record.get("supervision") or "", record.get("supervision"))
    what = "labels" if record.get("supervision") == "image_labels" else "objects"
    without = summary.get("images_without_boxes", 0)
    aside = [f"{summary[kind]} {what}" for kind, what in _ASIDE.items() if summary.get(kind)]
    counted = [f"{summary['images']} images", f"{summary['annotations']} {what}", *aside]
    if without and record.get("supervision") != "none":
        counted.append(f"{without} images without an object (background)")
    splits = ", ".join(
        f"{name} {split['images']} images {split['annotations']} {what}"
        for name, split in summary.get("splits", {}).items()
    )
    lines = [f"read as {record.get('format')}, {supervision}: {', '.join(counted)}"]
    lines.append(f"splits {summary.get('splits_from', 'from the archive')}: {splits}")
    return lines + [f"note: {each}" for each in summary.get("notes", [])]


_SUPERVISION = {
    "none": "no labels",
    "image_labels": "labels of whole pictures",
    "pseudo_boxes": "boxes that a teacher said",
}
_ASIDE = {"crowd": "groups", "ignored": "objects to ignore"}


def categories(record: Record) -> Any:
    """The classes with their objects and images."""
    rows = [[c["name"], c["annotations"], c["images"]] for c in record["summary"].get("categories", [])]
    return table_of("", ["category", "objects", "images"], rows, numbers=frozenset({"objects", "images"}))


def found(report: Record) -> Any | None:
    """Every kind of fault: how often, what was done, and the first; None where nothing was found."""
    kinds = report.get("kinds") or [
        {"code": code, "count": count} for code, count in report.get("counts", {}).items()
    ]
    if not kinds:
        return None
    rows = [[kind["code"], kind["count"], kind.get("action", ""), _first(kind)] for kind in kinds]
    return table_of(
        "found while checking", ["what", "count", "", "first"], rows, numbers=frozenset({"count"})
    )


def _first(kind: Record) -> str:
    if "file" not in kind:
        return ""
    place = f", {kind['annotation']}" if kind.get("annotation") else ""
    text = f"{kind['file']}{place}: {kind['reason']}"
    return text if len(text) <= _SHOWN_REASON else text[: _SHOWN_REASON - 1] + "…"


def lost(report: Record) -> str:
    """How much left the dataset, in one sentence."""
    return (
        f"left out: {report.get('images_dropped', 0)} images and {report.get('annotations_dropped', 0)} annotations; "
        f"{report.get('repaired', 0)} times something was repaired or set aside"
    )
