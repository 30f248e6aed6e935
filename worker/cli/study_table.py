"""A study on the terminal."""

from rich.table import Table
from rich.text import Text

from worker.cli.output import err, out
from worker.studies.reports.report import MAIN, Files, best_first, figures, overall, place_name
from worker.studies.study import Section, StudyResults


def show_study(study: StudyResults, files: Files) -> None:
    """The best scores of each section, and on the error channel which files were written."""
    for part in study.sections:
        out.print(_table(part))
    written = (files.html, files.markdown, files.correlations, files.observations, *files.others)
    err.print(Text("\n".join(map(str, written))))


def _table(part: Section) -> Table:
    """The best scores of a section by average weighted tau, its baselines after them."""
    average = overall(part.correlations)
    table = Table("score", "weighted tau [95 %]", "Pearson", "Rel@1", title=part.title, header_style="bold")
    for place in [*best_first(part.correlations)[:10], *part.correlations.baselines]:
        measured = average[place]
        values = (
            "–" if measured[name].value is None else f"{measured[name].value:.2f}"
            for name in ("pearson", "rel_at_1")
        )
        table.add_row(Text(place_name(place)), figures(measured[MAIN]), *values)
    return table
