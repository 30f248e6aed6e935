"""Job `study`: what the rankings and verifications of a study say of every metric, and its report."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from sqlalchemy.orm import Session

from app.db import tables
from app.errors import StudyFailed
from worker.files import scratch
from worker.handlers.blobs import keep_file
from worker.handlers.study_records import Found, found_of
from worker.step import JobView, Step
from worker.studies import StudyRefused
from worker.studies.default_rule import DEFAULT_RULE, with_default_rule
from worker.studies.document import Table
from worker.studies.report import Files, verdict, write_report
from worker.studies.study import Study, section

TYPES = {".html": "text/html", ".md": "text/markdown", ".csv": "text/csv", ".png": "image/png"}


def run(step: Step, job: JobView) -> Callable[[Session], None]:
    """Measures, writes and stores the report; returns the write of the result.

    Raises StudyFailed where there is nothing to stand on, or something that is not finite; and NotFound.
    """
    step.stage("concluding")
    with step.database.reading() as session:
        found = found_of(session, job.resource_id)
    with scratch(step.settings.scratch_dir) as folder:
        try:
            whole = _study(found)
            step.check()
            written = write_report(whole, folder / "report")
        except StudyRefused as refusal:
            why = "; ".join(found.reasons()[:3])
            raise StudyFailed(
                f"{refusal.detail}{f' ({why})' if why else ''}", code=refusal.code
            ) from refusal
        step.check()
        files = _kept(step, written, whole)
    (part,) = whole.sections
    result = {
        "correlations": part.correlations.to_json(),
        "verdict": verdict(part),
        "names": found.names,
        "left_out": found.left_out,
        "warnings": found.warnings,
        "spent": found.spent,
    }

    def finish(session: Session) -> None:
        row = session.get(tables.Study, job.resource_id)
        if row is not None:
            row.result, row.files = result, files

    return finish


def _study(found: Found) -> Study:
    observations = with_default_rule(found.observations)
    part = section(
        "ranking", "Ranking candidates for a dataset", [], observations, featured=(DEFAULT_RULE,), seed=found.request["score_seed"]
    )  # fmt: skip
    tables_ = [("mAP of the fine-tuned candidates", "One figure for each seed.", _map_table(found))]
    if found.left_out:
        rows = tuple((each["dataset"], each["candidate"] or "all", each["reason"]) for each in found.left_out)
        tables_.append(("Left out", "", Table(("dataset", "candidate", "why"), rows)))
    return Study(_title(found), tuple(found.warnings), _facts(found), (part,), tuple(tables_))


def _title(found: Found) -> str:
    return found.request["name"] or f"{len(found.candidates)} candidates on {len(found.datasets)} datasets"


def _facts(found: Found) -> tuple[tuple[str, str], ...]:
    asked = found.request
    length = next(
        (f"{asked[name]:g} {name.replace('_', ' ')}" for name in ("epochs", "iterations", "budget_minutes") if asked[name]),
        "the recipe's own",
    )
    spent = found.spent
    reused = f", {spent['reused']} of them taken over from earlier verifications" if spent["reused"] else ""
    return (
        ("candidates", str(len(found.candidates))),
        ("datasets", str(len(found.datasets))),
        ("recipe", asked["recipe"]),
        ("length of each training", length),
        ("seeds", ", ".join(map(str, asked["seeds"]))),
        ("trainings", f"{found.trainings}{reused}"),
        ("truth", f"mAP@[.5:.95] of the best weights by validation, on {found.truth}; mean over seeds"),
        ("seconds of scoring", f"{spent['scoring_s']:.0f}"),
        ("seconds of training", f"{spent['training_s']:.0f}"),
    )


def _map_table(found: Found) -> Table:
    maps = {(each.dataset, each.candidate): each.map_by_seed for each in found.observations}
    rows = []
    for candidate in found.candidates:
        cells = (
            ", ".join(f"{value:.3f}" for value in maps.get((dataset, candidate), {}).values()) or "–"
            for dataset in found.datasets
        )
        rows.append((candidate, *cells))
    return Table(("candidate", *found.datasets), tuple(rows))


def _kept(step: Step, written: Files, whole: Study) -> list[dict[str, Any]]:
    titles = {
        written.html: "the report as one page", written.markdown: "the report as Markdown",
        written.correlations: "every measure of every score", written.observations: "every score and every mAP",
    }  # fmt: skip
    titles |= {path: path.stem.replace("-", " ").replace("_", " ") for path in written.plots}
    return [_file(step, path, title) for path, title in titles.items()]


def _file(step: Step, path: Path, title: str) -> dict[str, Any]:
    media_type = TYPES[path.suffix]
    about = {"kind": "plot" if media_type == "image/png" else "report" if path.stem == "report" else "table"}
    sha256 = keep_file(step, path, media_type)
    return {"sha256": sha256, "file_name": path.name, "media_type": media_type, "title": title, "about": about}
