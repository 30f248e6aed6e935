"""`detrank checkpoints convert`: a foreign file becomes safetensors and a manifest."""

import json
import tempfile
from pathlib import Path
from typing import Any

import typer

import models_store
from models_store.export_detreg import to_detreg_file
from worker.cli.options import ConvertOptions
from worker.cli.output import out, refuse


def run(asked: ConvertOptions) -> None:
    if asked.to not in (None, "detectron2", "detreg"):
        raise typer.BadParameter(
            f"--to {asked.to}: detectron2 and detreg are the other formats that are written"
        )
    if asked.to and asked.target.exists():
        raise typer.BadParameter(f"{asked.target}: is there already; name a new file")
    if not asked.to and asked.target.exists() and (asked.target.is_file() or any(asked.target.iterdir())):
        raise typer.BadParameter(f"{asked.target}: the folder is not empty; name a new one")
    written = 0
    try:
        with tempfile.TemporaryDirectory(prefix="detrank-") as scratch:
            path, named, known = Path(asked.source), None, {}
            if "://" in asked.source:
                found = models_store.fetch(asked.source, Path(scratch), sha256=asked.sha256)
                path, named, known = found.path, found.architecture, found.overrides
            ours = asked.to is not None and (path / "manifest.json").is_file()
            if not ours and not path.is_file() and not (path / "config.json").is_file():
                raise typer.BadParameter(f"{path}: there is no such file")
            folder = Path(scratch) / "converted" if asked.to else asked.target
            if ours:
                folder, manifest = path, models_store.Manifest.read(path)
            else:
                folder.mkdir(parents=True, exist_ok=True)
                manifest = models_store.convert(
                    path,
                    folder,
                    architecture=asked.architecture or named,
                    uri=asked.source,
                    sha256=asked.sha256,
                    overrides={**known, **overrides(asked.given or [])},
                )
            if asked.to == "detectron2":
                written = models_store.to_detectron2_file(folder, asked.target)
            elif asked.to == "detreg":
                written = to_detreg_file(folder, asked.target)
    except models_store.Unusable as refusal:
        refuse(refusal)
    if asked.json:
        typer.echo(json.dumps(manifest.to_json(), indent=2))
        return
    out.print(
        f"{manifest.kind} {manifest.architecture}, {manifest.parameters / 1e6:.1f} M parameters, read as {manifest.format}",
        markup=False,
        soft_wrap=True,
    )
    if asked.to == "detreg":
        out.print(
            f"{asked.target}: {written} tensors by the names of DETReg's code", markup=False, soft_wrap=True
        )
        return
    if asked.to:
        out.print(
            f"{asked.target}: {written} tensors of {manifest.backbone} under detectron2's names; set STRIDE_IN_1X1 {str(manifest.backbone).endswith('_caffe')} and FORMAT RGB",
            markup=False,
            soft_wrap=True,
        )
        return
    for warning in manifest.warnings:
        out.print(f"beware: {warning}", markup=False, soft_wrap=True)
    out.print(
        f"{asked.target}/weights.safetensors  sha256 {manifest.weights_sha256}", markup=False, soft_wrap=True
    )


def overrides(words: list[str]) -> dict[str, Any]:
    """`name=JSON` words; what is no JSON is taken as text."""
    found: dict[str, Any] = {}
    for word in words:
        name, separator, value = word.partition("=")
        if not separator:
            raise typer.BadParameter(f"--set {word}: write name=value, e.g. min_size=640")
        try:
            found[name] = json.loads(value)
        except ValueError:
            found[name] = value
    return found
