"""`detrank study synthetic` and `detrank study local`: studies on the spot, without a service."""

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from worker.cli.output import err, out

HELP = "Which metric deserves trust: candidates on datasets, ranked and fine-tuned, with the correlations."


def synthetic(
    target: Annotated[Path | None, typer.Option("--out", file_okay=False, help="where report and work go; the same folder again goes on. Default: synthetic-SCALE")] = None,
    sources: Annotated[
        list[str] | None,
        typer.Option(
            "--sources", "--source", envvar="DETRANK_GLYPHS",
            help="a folder of glyphs (idx as of MNIST, HDF5 as of USPS), one folder of such folders, or one at hand (digits, printed_digits, printed_letters, printed_greek, printed_signs); again for more. Default: all at hand",
        ),
    ] = None,
    scale: Annotated[str, typer.Option(help="small (two CPU cores, under an hour), paper (the published setting, a GPU) or tiny")] = "small",
    body: Annotated[str | None, typer.Option(help="weights of the body: a file, a name to fetch, or `random`; default: the scale's")] = None,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    workers: Annotated[int, typer.Option(min=1, help="trainings at once, one thread each")] = 2,
    device: Annotated[str, typer.Option(help="cpu, cuda, or auto")] = "auto",
) -> None:  # fmt: skip
    """Train a detector on each source of glyphs, score it on every other, transfer it there, and compare."""
    import time  # noqa: PLC0415

    from models_store import Unusable  # noqa: PLC0415
    from worker.device import choose_device  # noqa: PLC0415
    from worker.studies.errors import StudyRefused  # noqa: PLC0415
    from worker.studies.parallel import with_eta  # noqa: PLC0415
    from worker.studies.report import write_report  # noqa: PLC0415
    from worker.studies.scale import scale_named  # noqa: PLC0415
    from worker.studies.synthetic import AT_HAND, run, sources_in  # noqa: PLC0415
    from worker.studies.synthetic_report import study_of  # noqa: PLC0415

    began, target = time.monotonic(), target or Path(f"synthetic-{scale}")
    try:
        found = sources_in(sources or AT_HAND)
        benchmark = run(
            found, scale_named(scale), target / "work", seed=seed, workers=workers, device=choose_device(device), body=body,
            progress=with_eta(lambda line: err.print(Text(line))),
        )  # fmt: skip
        minutes = (time.monotonic() - began) / 60
        study = study_of(benchmark, (("this run", f"{minutes:.1f} minutes, {workers} at once on {choose_device(device)}"),))
        files = write_report(study, target)
    except (StudyRefused, Unusable) as refusal:
        raise typer.BadParameter(refusal.detail) from refusal
    _show(study, files)


def local(
    file: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="TOML: datasets, candidates and the budget, as docs/studies/real.toml")],
    target: Annotated[Path | None, typer.Option("--out", file_okay=False, help="where report and work go; the same folder again goes on. Default: the file's name")] = None,
    data: Annotated[Path | None, typer.Option(exists=True, file_okay=False, help="what the file's paths are below; default: its own folder")] = None,
    work: Annotated[Path | None, typer.Option(file_okay=False, help="where what is done is kept, for several reports of the same fine-tunings; default: work below --out")] = None,
    workers: Annotated[int, typer.Option(min=1, help="trainings at once, one thread each")] = 2,
    device: Annotated[str, typer.Option(help="cpu, cuda, or auto")] = "auto",
) -> None:
    """Score and fine-tune candidates on datasets, and compare; on this machine, without a service."""
    import time  # noqa: PLC0415

    from models_store import Unusable  # noqa: PLC0415
    from worker.device import choose_device  # noqa: PLC0415
    from worker.studies.errors import StudyRefused  # noqa: PLC0415
    from worker.studies.evidence_answer import answer  # noqa: PLC0415
    from worker.studies.evidence_report import write_evidence  # noqa: PLC0415
    from worker.studies.material import material_of  # noqa: PLC0415
    from worker.studies.parallel import with_eta  # noqa: PLC0415
    from worker.studies.real import run, study_of  # noqa: PLC0415
    from worker.studies.report import write_report  # noqa: PLC0415
    from worker.studies.study_file import make_ready, read_study  # noqa: PLC0415

    def say(line: str) -> None:
        err.print(Text(line))

    began, target = time.monotonic(), target or Path(file.stem)
    work = work or target / "work"
    try:
        asked = read_study(file)
        datasets, candidates = make_ready(asked, data or file.parent, work, say)
        real = run(
            datasets, candidates, work, asked.settings, workers=workers, device=choose_device(device),
            progress=with_eta(say),
        )  # fmt: skip
        minutes = (time.monotonic() - began) / 60
        facts = (("this run", f"{minutes:.1f} minutes, {workers} at once on {choose_device(device)}"),)
        if asked.question is None:
            study = study_of(real, asked.title, asked.text, facts)
            files = write_report(study, target)
        else:
            material = material_of(real, asked.question)
            study, found, files = write_evidence(material, asked.title, asked.text, facts, target)
            for sentence in answer(found):
                out.print(Text(sentence))
    except (StudyRefused, Unusable) as refusal:
        raise typer.BadParameter(refusal.detail) from refusal
    _show(study, files)


def _show(study: Any, files: Any) -> None:
    for part in study.sections:
        out.print(_table(part))
    written = (files.html, files.markdown, files.correlations, files.observations, *files.others)
    err.print(Text("\n".join(map(str, written))))


def _table(part: Any) -> Table:
    """The best scores of a section by average weighted tau, its baselines after them."""
    from worker.studies.report import MAIN, best_first, figures, overall, place_name  # noqa: PLC0415

    average = overall(part.correlations)
    table = Table("score", "weighted tau [95 %]", "Pearson", "Rel@1", title=part.title, header_style="bold")
    for place in [*best_first(part.correlations)[:10], *part.correlations.baselines]:
        measured = average[place]
        values = ("–" if measured[name].value is None else f"{measured[name].value:.2f}" for name in ("pearson", "rel_at_1"))
        table.add_row(Text(place_name(place)), figures(measured[MAIN]), *values)
    return table
