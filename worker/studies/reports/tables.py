"""A study as CSV: what was observed, and what it says."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from worker.studies.measures.correlation import STATIC
from worker.studies.measures.observations import Observation
from worker.studies.study import Section

OBSERVATION_FIELDS = ("dataset", "candidate", "kind", "name", "layer", "level", "seed", "value", "undefined")
CORRELATION_FIELDS = (
    "section",
    "dataset",
    "kind",
    "metric",
    "layer",
    "level",
    "measure",
    "value",
    "low",
    "high",
    "n",
    "undefined",
    "excluded",
)
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def write_observations(observations: Sequence[Observation], path: Path) -> Path:
    """Every score, figure and mAP, one per row."""
    return write_rows(path, OBSERVATION_FIELDS, (row for each in observations for row in _observed(each)))


def write_correlations(sections: Sequence[Section], path: Path) -> Path:
    """Every measure of every score per dataset and averaged, one per row."""
    rows = ({**row, "section": part.slug} for part in sections for row in part.correlations.rows())
    return write_rows(path, CORRELATION_FIELDS, rows)


def _observed(each: Observation) -> Iterator[dict[str, Any]]:
    about = {"dataset": each.dataset, "candidate": each.candidate}
    for seed, value in each.map_by_seed.items():
        yield {**about, "kind": "map", "name": "map", "seed": seed, "value": value}
    for name, figure in each.static.items():
        reason = each.undefined.get((name, STATIC, STATIC))
        yield {**about, "kind": "baseline", "name": name, "value": figure, "undefined": reason}
    for (metric, layer, level), value in each.scores.items():
        yield {**about, "kind": "metric", "name": metric, "layer": layer, "level": level, "value": value}
    for (metric, layer, level), reason in each.undefined.items():
        if layer == STATIC:
            continue
        yield {**about, "kind": "metric", "name": metric, "layer": layer, "level": level, "undefined": reason}


def write_rows(path: Path, fields: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> Path:
    """CSV of the `fields` of every row; text that a spreadsheet would run is inert."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=fields, lineterminator="\r\n")
        writer.writeheader()
        for row in rows:
            writer.writerow({field: _inert(row.get(field)) for field in fields})
    return path


def _inert(value: Any) -> Any:
    """Text that a spreadsheet would run as a formula gets an apostrophe before it."""
    if isinstance(value, Mapping):
        value = "; ".join(f"{key}: {reason}" for key, reason in value.items())
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value
