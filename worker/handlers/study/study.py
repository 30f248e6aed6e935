"""Job `study`: what the rankings and verifications of a study say of every metric, and its report."""

from collections.abc import Callable
from pathlib import Path

from sqlalchemy.orm import Session

from app.db import tables
from app.db.documents import StoredFile, StudyResult
from app.errors import StudyFailed
from worker.attempt import Attempt, ClaimedJob
from worker.files import scratch
from worker.handlers.results import keep_file
from worker.handlers.study.records import Found, found_of
from worker.ranking.belief import shipped
from worker.studies import StudyRefused
from worker.studies.document import Table
from worker.studies.measures.default_rule import DEFAULT_RULE, with_default_rule
from worker.studies.measures.foreknown import with_foreknown
from worker.studies.reports.report import Files, verdict, write_report
from worker.studies.study import StudyResults, section

TYPES = {".html": "text/html", ".md": "text/markdown", ".csv": "text/csv", ".png": "image/png"}


def run(attempt: Attempt, job: ClaimedJob) -> Callable[[Session], None]:
    """Measures, writes and stores the report; returns the write of the result.

    Raises StudyFailed where there is nothing to stand on, or something that is not finite; and NotFound.
    """
    attempt.stage("concluding")
    with attempt.database.reading() as session:
        found = found_of(session, job.resource_id)
    with scratch(attempt.settings.scratch_dir) as folder:
        try:
            whole = _study(found)
            attempt.check()
            written = write_report(whole, folder / "report")
        except StudyRefused as refusal:
            why = "; ".join(found.reasons()[:3])
            raise StudyFailed(f"{refusal.detail}{f' ({why})' if why else ''}", code=refusal.code) from refusal
        attempt.check()
        files = _kept(attempt, written, whole)
    (part,) = whole.sections
    result: StudyResult = {
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


def _study(found: Found) -> StudyResults:
    observations = with_foreknown(with_default_rule(found.observations), found.known, shipped())
    part = section(
        "ranking",
        "Ranking candidates for a dataset",
        [],
        observations,
        featured=(DEFAULT_RULE,),
        seed=found.request["score_seed"],
    )
    tables_ = [("mAP of the fine-tuned candidates", "One figure for each seed.", _map_table(found))]
    if found.left_out:
        rows = tuple((each["dataset"], each["candidate"] or "all", each["reason"]) for each in found.left_out)
        tables_.append(("Left out", "", Table(("dataset", "candidate", "why"), rows)))
    return StudyResults(_title(found), tuple(found.warnings), _facts(found), (part,), tuple(tables_))


def _title(found: Found) -> str:
    return found.request["name"] or f"{len(found.candidates)} candidates on {len(found.datasets)} datasets"


def _facts(found: Found) -> tuple[tuple[str, str], ...]:
    asked = found.request
    length = next(
        (
            f"{asked[name]:g} {name.replace('_', ' ')}"
            for name in ("epochs", "iterations", "budget_minutes")
            if asked[name]
        ),
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


def _kept(attempt: Attempt, written: Files, whole: StudyResults) -> list[StoredFile]:
    titles = {
        written.html: "the report as one page",
        written.markdown: "the report as Markdown",
        written.correlations: "every measure of every score",
        written.observations: "every score and every mAP",
    }
    titles |= {path: path.stem.replace("-", " ").replace("_", " ") for path in written.plots}
    return [_file(attempt, path, title) for path, title in titles.items()]


def _file(attempt: Attempt, path: Path, title: str) -> StoredFile:
    media_type = TYPES[path.suffix]
    about = {"kind": "plot" if media_type == "image/png" else "report" if path.stem == "report" else "table"}
    sha256 = keep_file(attempt, path, media_type)
    return {
        "sha256": sha256,
        "file_name": path.name,
        "media_type": media_type,
        "title": title,
        "about": about,
    }
