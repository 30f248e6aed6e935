"""What a study of plans found: every fine-tuning as a row, and the differences between plans by candidate."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from worker.studies.document import Block, Heading, Paragraph, Table, as_markdown
from worker.studies.reports.tables import write_rows
from worker.studies.runs.plans import Difference, Tuning, differences

TUNING_FIELDS = (
    "dataset",
    "candidate",
    "seed",
    "plan",
    "map",
    "ap50",
    "val_map",
    "val_curve",
    "loss",
    "iterations",
    "seconds",
    "init_seconds",
    "error",
)
DIFFERENCE_FIELDS = ("candidate", "plan", "datasets", "base", "other", "mean", "low", "high", "better")
ALL = "all of these"


def write_plans_report(
    tunings: Sequence[Tuning], title: str, text: Sequence[str], folder: Path
) -> list[Path]:
    """`tunings.csv`, `differences.csv` and `report.md`, which says the same, in `folder`; their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = list(_differences(tunings))
    report = folder / "report.md"
    report.write_text(as_markdown(title, list(_blocks(tunings, text, rows))), encoding="utf-8")
    return [
        write_rows(folder / "tunings.csv", TUNING_FIELDS, map(_row, tunings)),
        write_rows(
            folder / "differences.csv",
            DIFFERENCE_FIELDS,
            ({"candidate": candidate, "plan": plan, **asdict(found)} for candidate, plan, found in rows),
        ),
        report,
    ]


def _row(tuning: Tuning) -> dict[str, Any]:
    result = tuning.result
    about = {name: getattr(tuning, name) for name in ("dataset", "candidate", "seed", "plan")}
    known = {name: result.get(name) for name in ("map", "ap50", "loss", "iterations", "seconds", "error")}
    curve = [(point["iteration"], point["map"]) for point in result.get("val_curve", ())]
    return {
        **about,
        **known,
        "val_map": result.get("map_published"),
        "val_curve": " ".join(f"{iteration}:{value:.4f}" for iteration, value in curve if value is not None),
        "init_seconds": (result.get("start") or {}).get("seconds"),
    }


def _differences(tunings: Sequence[Tuning]) -> Iterator[tuple[str, str, Difference]]:
    """Each candidate's, and that of all which have the same datasets, by each plan but the first."""
    plans = list(dict.fromkeys(t.plan for t in tunings))
    candidates = list(dict.fromkeys(t.candidate for t in tunings))
    for plan in plans[1:]:
        alone = {c: found for c in candidates if (found := differences(tunings, plans[0], plan, [c]))}
        yield from ((c, plan, found) for c, found in alone.items())
        most = max((found.datasets for found in alone.values()), default=0)
        whole = [c for c, found in alone.items() if found.datasets == most]
        if len(whole) > 1 and (found := differences(tunings, plans[0], plan, whole)):
            yield f"{ALL} {len(whole)} with {most} datasets", plan, found


def _blocks(
    tunings: Sequence[Tuning], text: Sequence[str], rows: Sequence[tuple[str, str, Difference]]
) -> Iterator[Block]:
    yield from map(Paragraph, text)
    plans = list(dict.fromkeys(t.plan for t in tunings))
    counts = ", ".join(f"{sum(t.plan == plan for t in tunings)} {plan}" for plan in plans)
    seconds = sum(t.result.get("seconds", 0.0) for t in tunings)
    yield Paragraph(f"Fine-tunings that are there: {counts}; {seconds:.0f} seconds of training.")
    yield Heading(f"What a plan gives more than {plans[0]}")
    yield Paragraph(
        "Mean mAP over datasets, seeds averaged before; in brackets the 95 % t interval of the paired difference over "
        "datasets."
    )
    yield Table(
        ("candidate", "plan", "datasets", f"mAP {plans[0]}", "mAP", "difference", "better on"),
        tuple(
            (
                candidate,
                plan,
                str(found.datasets),
                f"{found.base:.3f}",
                f"{found.other:.3f}",
                _interval(found),
                f"{found.better} of {found.datasets}",
            )
            for candidate, plan, found in rows
        ),
    )
    yield Heading("mAP on test")
    datasets = list(dict.fromkeys(t.dataset for t in tunings))
    cells: dict[tuple[str, str, str], list[str]] = {}
    for t in tunings:
        value = t.result.get("map")
        cells.setdefault((t.candidate, t.plan, t.dataset), []).append(
            "error" if value is None else f"{value:.3f}"
        )
    yield Table(
        ("candidate", "plan", *datasets),
        tuple(
            (c, p, *(", ".join(cells.get((c, p, d), ["–"])) for d in datasets))
            for c in dict.fromkeys(t.candidate for t in tunings)
            for p in plans
        ),
    )


def _interval(found: Difference) -> str:
    if found.low is None or found.high is None:
        return f"{found.mean:+.3f}"
    return f"{found.mean:+.3f} [{found.low:+.3f}, {found.high:+.3f}]"
