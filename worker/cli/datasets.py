"""Datasets made on the spot: synthetic scenes, and parts of a dataset by classes that occur together."""

from pathlib import Path
from typing import Annotated

import typer

from worker.cli.output import err


def synth(
    target: Annotated[Path | None, typer.Argument(help="a new folder, or a new .zip; default synthetic_NAME.zip, named after the source")] = None,
    source: Annotated[str, typer.Option(help="`digits` (scikit-learn's handwritten ones), a folder with idx files as of MNIST or an HDF5 file as of USPS, or how such files begin (folder/emnist-letters)")] = "digits",
    train: Annotated[int, typer.Option(min=1, help="training images")] = 300,
    test: Annotated[int, typer.Option(min=0, help="test images")] = 100,
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

    target = target or Path(f"synthetic_{Path(source).resolve().name}.zip")
    new_target(target)
    zipped = target.suffix == ".zip"
    with tempfile.TemporaryDirectory(prefix="detrank-") as scratch:
        folder = Path(scratch) / "set" if zipped else target
        try:
            glyphs = load(source)
            draw(
                folder, glyphs.images, glyphs.labels, glyphs.names, images_train=train, images_test=test,
                image_size=image_size, min_size=min_size, max_size=max_size, max_objects=max_objects, seed=seed,
                layout=layout, style=style,
            )  # fmt: skip
        except ValueError as failure:
            raise typer.BadParameter(str(failure)) from failure
        if zipped:
            target.parent.mkdir(parents=True, exist_ok=True)
            pack(folder, target)
    err.print(f"{target}: {train} training and {test} test images", markup=False, highlight=False)


def bootstrap(
    source: Annotated[Path, typer.Argument(help="a folder with a dataset with boxes: of the service's form, or of any format that is understood")],
    target: Annotated[Path, typer.Argument(help="a new folder, for set_01.zip, set_02.zip, ... and sets.json")],
    sets: Annotated[int, typer.Option(min=1)] = 20,
    classes: Annotated[int, typer.Option(min=2, help="in each set")] = 5,
    train: Annotated[int, typer.Option(min=1, help="training images of each set")] = 1000,
    test: Annotated[int, typer.Option(min=1, help="test images of each set")] = 200,
    class_images: Annotated[int | None, typer.Option(min=0, help="a class takes part that lies in more images than this; default: a sixth of a set's")] = None,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    canonical: Annotated[bool, typer.Option("--canonical", help="write folders of the service's own form instead of zips")] = False,
) -> None:
    """Draw smaller datasets of classes that occur together, as the published benchmark draws them from Open Images."""
    import json  # noqa: PLC0415
    import tempfile  # noqa: PLC0415

    from worker.data.bootstrap import choose, write_coco  # noqa: PLC0415
    from worker.data.dataset import open_dataset  # noqa: PLC0415
    from worker.data.ingest import Unusable, ingest  # noqa: PLC0415
    from worker.data.subsets import Undrawable  # noqa: PLC0415
    from worker.data.synthetic import pack  # noqa: PLC0415

    if not source.is_dir():
        raise typer.BadParameter(f"{source}: no such folder; unpack an archive first")
    new_target(target)
    with tempfile.TemporaryDirectory(prefix="detrank-") as scratch:
        try:
            try:
                dataset = open_dataset(source)
            except (FileNotFoundError, ValueError):
                ingest(source, Path(scratch) / "source")
                dataset = open_dataset(Path(scratch) / "source")
            chosen = choose(dataset, sets=sets, classes=classes, train=train, test=test, class_images=class_images, seed=seed)
        except Unusable as refusal:
            raise typer.BadParameter(f"{source}: {refusal.reason}") from refusal
        except Undrawable as refusal:
            raise typer.BadParameter(refusal.detail) from refusal
        target.mkdir(parents=True, exist_ok=True)
        listed = []
        for number, choice in enumerate(chosen, start=1):
            name = f"set_{number:0{max(2, len(str(sets)))}d}"
            folder = write_coco(dataset, choice, Path(scratch) / name)
            if canonical:
                ingest(folder, target / name)
            else:
                pack(folder, target / f"{name}.zip")
            names = [dataset.categories[label] for label in choice.labels]
            objects = {split: dict(zip(names, counts, strict=True)) for split, counts in choice.objects.items()}
            listed.append({"name": name, "classes": names, "objects": objects})
            err.print(f"{name}: {', '.join(names)}", markup=False, highlight=False)
        document = {"source_digest": dataset.digest, "seed": seed, "train": train, "test": test, "sets": listed}
        (target / "sets.json").write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


def new_target(target: Path) -> None:
    """Raises typer.BadParameter for a file, or a folder with something in it."""
    if target.exists() and (target.is_file() or any(target.iterdir())):
        raise typer.BadParameter(f"{target}: is there already; name a new one")
