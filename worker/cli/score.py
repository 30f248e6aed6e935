"""`detrank metrics score`: scores of features that somebody saved."""

import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import typer
from rich.table import Table
from rich.text import Text

from worker.cli.options import ScoreOptions
from worker.cli.output import out, words_of
from worker.metrics import METRICS, FeatureSet, InvalidFeatureSet, UnknownMetric
from worker.metrics import score as compute
from worker.metrics.base import RegionSet

OF_REGIONS = "region_"
REGION_ARRAYS = ("features", "labels", "ious", "deltas", "image_ids")


def run(asked: ScoreOptions) -> None:
    names = words_of(asked.metrics) or [name for name, metric in METRICS.items() if not metric.pool_relative]
    try:
        arrays = read_arrays(asked.file)
        regions = {
            name.removeprefix(OF_REGIONS): arrays.pop(name)
            for name in list(arrays)
            if name.startswith(OF_REGIONS)
        }
        scores = compute(FeatureSet(**arrays, regions=RegionSet(**regions) if regions else None), names)
    except UnknownMetric as failure:
        raise typer.BadParameter(str(failure)) from failure
    except InvalidFeatureSet as failure:
        raise typer.BadParameter(f"{asked.file}: {failure}") from failure
    document = {
        name: {"value": s.value, "undefined": s.undefined, "seconds": s.seconds} for name, s in scores.items()
    }
    if asked.json:
        typer.echo(json.dumps(document, indent=2, allow_nan=False))
        return
    table = Table("metric", "value", "seconds", "remarks", header_style="bold")
    for name, found in scores.items():
        value = "undefined" if found.value is None else f"{found.value:.6f}"
        table.add_row(
            name,
            value,
            f"{found.seconds:.3f}",
            Text("; ".join(filter(None, [found.undefined, *found.notes]))),
        )
    out.print(table)


def read_arrays(file: Path) -> dict[str, Any]:
    """The arrays of an npz file by name; nothing in it is ever executed. Raises typer.BadParameter."""
    known = (
        "features",
        "labels",
        "boxes",
        "source_probabilities",
        "image_ids",
        *(OF_REGIONS + name for name in REGION_ARRAYS),
    )
    if not file.is_file():
        raise typer.BadParameter(f"{file}: there is no such file")
    if not zipfile.is_zipfile(file):
        raise typer.BadParameter(
            f"{file}: not an npz file; write it with numpy.savez(file, features=..., labels=...)"
        )
    try:
        with np.load(file, allow_pickle=False) as archive:
            names = list(archive.files)
            arrays = {name: archive[name] for name in names if name in known}
    except (ValueError, OSError, EOFError, MemoryError, zipfile.BadZipFile) as failure:
        raise typer.BadParameter(
            f"{file}: cannot be read ({failure}); arrays of Python objects are not accepted"
        ) from failure
    required = (
        [OF_REGIONS + name for name in REGION_ARRAYS[:-1]]
        if any(name.startswith(OF_REGIONS) for name in arrays)
        else []
    )
    for name in ("features", "labels", *required):
        if name not in arrays:
            raise typer.BadParameter(f"{file}: has no array {name!r}; it has: {', '.join(names) or 'none'}")
    return arrays
