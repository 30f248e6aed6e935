"""`detrank study local`: a study of candidates on datasets on the spot, without a service."""

import time
from pathlib import Path

import typer
from rich.text import Text

from models_store import Unusable
from worker.cli.options import LocalOptions
from worker.cli.output import err, out
from worker.cli.study_table import show_study
from worker.device import choose_device
from worker.studies.errors import StudyRefused
from worker.studies.evidence.answer import answer
from worker.studies.evidence.material import material_of
from worker.studies.evidence.report import write_evidence
from worker.studies.reports.pairs import write_pairs
from worker.studies.reports.plans_report import write_plans_report
from worker.studies.reports.report import write_report
from worker.studies.runs import plans
from worker.studies.runs.parallel import with_eta
from worker.studies.runs.real import run as run_study
from worker.studies.runs.real import study_of
from worker.studies.runs.study_file import made_ready, make_ready, read_study


def run(asked: LocalOptions) -> None:
    def say(line: str) -> None:
        err.print(Text(line))

    began, target = time.monotonic(), asked.target or Path(asked.file.stem)
    device = choose_device(asked.device)
    work = asked.work or target / "work"
    try:
        study_file = read_study(asked.file)
        if study_file.plans and asked.report_only:
            names = [candidate["name"] for candidate in study_file.candidates]
            tunings = list(
                plans.done_in(
                    list(study_file.datasets), names, work, study_file.settings.seeds, study_file.plans
                )
            )
            for path in write_plans_report(tunings, study_file.title, study_file.text, target):
                err.print(Text(str(path)))
            return
        if asked.report_only:
            for path in write_pairs(*made_ready(study_file, work), work, study_file.settings, target):
                err.print(Text(str(path)))
            return
        datasets, candidates = make_ready(
            study_file,
            asked.data or asked.file.parent,
            work,
            say,
            workers=asked.workers,
            device=device,
        )
        if study_file.plans:
            tunings = plans.run(
                datasets,
                candidates,
                work,
                study_file.settings,
                study_file.plans,
                workers=asked.workers,
                device=device,
                progress=with_eta(say),
            )
            for path in write_plans_report(tunings, study_file.title, study_file.text, target):
                err.print(Text(str(path)))
            return
        real = run_study(
            datasets,
            candidates,
            work,
            study_file.settings,
            workers=asked.workers,
            device=device,
            progress=with_eta(say),
        )
        for path in write_pairs(datasets, candidates, work, study_file.settings, target):
            err.print(Text(str(path)))
        minutes = (time.monotonic() - began) / 60
        facts = (("this run", f"{minutes:.1f} minutes, {asked.workers} at once on {device}"),)
        if study_file.question is None:
            study = study_of(real, study_file.title, study_file.text, facts)
            files = write_report(study, target)
        else:
            material = material_of(real, study_file.question)
            study, found, files = write_evidence(material, study_file.title, study_file.text, facts, target)
            for sentence in answer(found):
                out.print(Text(sentence))
    except (StudyRefused, Unusable) as refusal:
        raise typer.BadParameter(refusal.detail) from refusal
    show_study(study, files)
