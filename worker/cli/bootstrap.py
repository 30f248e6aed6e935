"""`detrank datasets bootstrap`: smaller datasets of classes that occur together."""

import json
import tempfile
from pathlib import Path

import typer

from worker.cli.options import BootstrapOptions
from worker.cli.output import err, new_target
from worker.data.bootstrap import choose, write_coco
from worker.data.dataset import open_dataset
from worker.data.ingest import Unusable, ingest
from worker.data.subsets import Undrawable
from worker.data.synthetic import pack


def run(asked: BootstrapOptions) -> None:
    if not asked.source.is_dir():
        raise typer.BadParameter(f"{asked.source}: no such folder; unpack an archive first")
    new_target(asked.target)
    with tempfile.TemporaryDirectory(prefix="detrank-") as scratch:
        try:
            try:
                dataset = open_dataset(asked.source)
            except (FileNotFoundError, ValueError):
                ingest(asked.source, Path(scratch) / "source")
                dataset = open_dataset(Path(scratch) / "source")
            chosen = choose(
                dataset,
                sets=asked.sets,
                classes=asked.classes,
                train=asked.train,
                test=asked.test,
                class_images=asked.class_images,
                seed=asked.seed,
            )
        except Unusable as refusal:
            raise typer.BadParameter(f"{asked.source}: {refusal.reason}") from refusal
        except Undrawable as refusal:
            raise typer.BadParameter(refusal.detail) from refusal
        asked.target.mkdir(parents=True, exist_ok=True)
        listed = []
        for number, choice in enumerate(chosen, start=1):
            name = f"set_{number:0{max(2, len(str(asked.sets)))}d}"
            folder = write_coco(dataset, choice, Path(scratch) / name)
            if asked.canonical:
                ingest(folder, asked.target / name)
            else:
                pack(folder, asked.target / f"{name}.zip")
            names = [dataset.categories[label] for label in choice.labels]
            objects = {
                split: dict(zip(names, counts, strict=True)) for split, counts in choice.objects.items()
            }
            listed.append({"name": name, "classes": names, "objects": objects})
            err.print(f"{name}: {', '.join(names)}", markup=False, highlight=False)
        document = {
            "source_digest": dataset.digest,
            "seed": asked.seed,
            "train": asked.train,
            "test": asked.test,
            "sets": listed,
        }
        (asked.target / "sets.json").write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
