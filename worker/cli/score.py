"""Scores of features that somebody saved."""

import json as json_module
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from worker.cli.output import Json, out, words_of

OF_REGIONS = "region_"
REGION_ARRAYS = ("features", "labels", "ious", "deltas", "image_ids")


def score(
    file: Annotated[
        Path,
        typer.Argument(
            help="npz with features (N, D), labels (N,), optional boxes (N, 4), image_ids (N,) and source_probabilities; for metrics "
            "of regions region_features (R, D), region_labels, region_ious (R,), region_deltas (R, 4) and region_image_ids"
        ),
    ],
    metrics: Annotated[str | None, typer.Option(help="comma separated; default: all that are not relative to a pool")] = None,
    json: Json = False,
) -> None:
    """Score one candidate's features, saved by yourself, without a service."""
    from worker.metrics import METRICS, FeatureSet, InvalidFeatureSet, UnknownMetric  # noqa: PLC0415
    from worker.metrics import score as compute  # noqa: PLC0415
    from worker.metrics.base import RegionSet  # noqa: PLC0415

    names = words_of(metrics) or [name for name, metric in METRICS.items() if not metric.pool_relative]
    try:
        arrays = read_arrays(file)
        regions = {name.removeprefix(OF_REGIONS): arrays.pop(name) for name in list(arrays) if name.startswith(OF_REGIONS)}
        scores = compute(FeatureSet(**arrays, regions=RegionSet(**regions) if regions else None), names)
    except UnknownMetric as failure:
        raise typer.BadParameter(str(failure)) from failure
    except InvalidFeatureSet as failure:
        raise typer.BadParameter(f"{file}: {failure}") from failure
    document = {name: {"value": s.value, "undefined": s.undefined, "seconds": s.seconds} for name, s in scores.items()}
    if json:
        typer.echo(json_module.dumps(document, indent=2, allow_nan=False))
        return
    table = Table("metric", "value", "seconds", "remarks", header_style="bold")
    for name, found in scores.items():
        value = "undefined" if found.value is None else f"{found.value:.6f}"
        table.add_row(name, value, f"{found.seconds:.3f}", Text("; ".join(filter(None, [found.undefined, *found.notes]))))
    out.print(table)


def read_arrays(file: Path) -> dict[str, Any]:
    """The arrays of an npz file by name; nothing in it is ever executed. Raises typer.BadParameter."""
    import zipfile  # noqa: PLC0415

    import numpy as np  # noqa: PLC0415

    known = ("features", "labels", "boxes", "source_probabilities", "image_ids", *(OF_REGIONS + name for name in REGION_ARRAYS))
    if not file.is_file():
        raise typer.BadParameter(f"{file}: there is no such file")
    if not zipfile.is_zipfile(file):
        raise typer.BadParameter(f"{file}: not an npz file; write it with numpy.savez(file, features=..., labels=...)")
    try:
        with np.load(file, allow_pickle=False) as archive:
            names = list(archive.files)
            arrays = {name: archive[name] for name in names if name in known}
    except (ValueError, OSError, EOFError, MemoryError, zipfile.BadZipFile) as failure:
        raise typer.BadParameter(f"{file}: cannot be read ({failure}); arrays of Python objects are not accepted") from failure
    required = [OF_REGIONS + name for name in REGION_ARRAYS[:-1]] if any(name.startswith(OF_REGIONS) for name in arrays) else []
    for name in ("features", "labels", *required):
        if name not in arrays:
            raise typer.BadParameter(f"{file}: has no array {name!r}; it has: {', '.join(names) or 'none'}")
    return arrays
