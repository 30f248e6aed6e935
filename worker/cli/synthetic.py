"""`detrank study synthetic`: the synthetic benchmark on the spot, without a service."""

import time
from pathlib import Path

import typer
from rich.text import Text

from models_store import Unusable
from worker.cli.options import SyntheticOptions
from worker.cli.output import err
from worker.cli.study_table import show_study
from worker.device import choose_device
from worker.studies.errors import StudyRefused
from worker.studies.reports.report import write_report
from worker.studies.reports.synthetic_report import study_of
from worker.studies.runs.parallel import with_eta
from worker.studies.runs.scale import scale_named
from worker.studies.runs.synthetic import AT_HAND, sources_in
from worker.studies.runs.synthetic import run as run_benchmark


def run(asked: SyntheticOptions) -> None:
    began, target = time.monotonic(), asked.target or Path(f"synthetic-{asked.scale}")
    device = choose_device(asked.device)
    try:
        found = sources_in(asked.sources or AT_HAND)
        benchmark = run_benchmark(
            found,
            scale_named(asked.scale),
            target / "work",
            seed=asked.seed,
            workers=asked.workers,
            device=device,
            body=asked.body,
            progress=with_eta(lambda line: err.print(Text(line))),
        )
        minutes = (time.monotonic() - began) / 60
        study = study_of(
            benchmark, (("this run", f"{minutes:.1f} minutes, {asked.workers} at once on {device}"),)
        )
        files = write_report(study, target)
    except (StudyRefused, Unusable) as refusal:
        raise typer.BadParameter(refusal.detail) from refusal
    show_study(study, files)
