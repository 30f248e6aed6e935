"""`detrank datasets synth`: synthetic scenes of small glyphs."""

import tempfile
from pathlib import Path

import typer

from worker.cli.options import SynthOptions
from worker.cli.output import err, new_target
from worker.data.glyphs import load
from worker.data.synthetic import Scenes, pack, synth


def run(asked: SynthOptions) -> None:
    target = asked.target or Path(f"synthetic_{Path(asked.source).resolve().name}.zip")
    new_target(target)
    zipped = target.suffix == ".zip"
    with tempfile.TemporaryDirectory(prefix="detrank-") as scratch:
        folder = Path(scratch) / "set" if zipped else target
        try:
            synth(
                folder,
                load(asked.source),
                Scenes(asked.image_size, asked.min_size, asked.max_size, asked.max_objects, asked.style),
                images_train=asked.train,
                images_test=asked.test,
                seed=asked.seed,
                layout=asked.layout,
            )
        except ValueError as failure:
            raise typer.BadParameter(str(failure)) from failure
        if zipped:
            target.parent.mkdir(parents=True, exist_ok=True)
            pack(folder, target)
    err.print(f"{target}: {asked.train} training and {asked.test} test images", markup=False, highlight=False)
