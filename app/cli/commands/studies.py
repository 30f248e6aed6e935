"""`detrank study run` and `detrank studies ...`"""

import json as json_of
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from app.cli.commands import work
from app.cli.commands.inputs import checkpoints_for, dataset_for, tell_of_unusable
from app.cli.options import DataDependentInit, Priority, Wait, numbers, split, spread
from app.cli.session import Failed, connected, fail_unless_succeeded, say
from app.cli.show.studies import show_study, studies
from app.cli.waiting.work import wait_for_study
from detrank import Client

Record = dict[str, Any]
study = typer.Typer(no_args_is_help=True)
group = typer.Typer(no_args_is_help=True)


@dataclass(frozen=True, kw_only=True)
class StudyOptions:
    """How candidates are scored and fine-tuned. Fields are named as in the request."""

    recipe: Annotated[str | None, typer.Option(help="of every training; `quick` where not given")] = None
    epochs: Annotated[
        float | None, typer.Option(min=0, help="of every training; the recipe's own where no budget is given")
    ] = None
    iterations: Annotated[
        int | None, typer.Option(min=1, help="instead of epochs: steps of the optimiser")
    ] = None
    budget_minutes: Annotated[
        float | None, typer.Option("--minutes", min=0, help="instead of epochs: minutes of each training")
    ] = None
    seeds: Annotated[
        str, typer.Option(help="comma separated; two or more show how well mAP agrees with itself")
    ] = "0"
    metrics: Annotated[str | None, typer.Option(help="comma separated; see `detrank metrics list`")] = None
    layers: Annotated[str | None, typer.Option(help="comma separated, e.g. backbone.c4,neck.roi; `all`")] = (
        None
    )
    level: Annotated[str | None, typer.Option(help="local, global or both")] = None
    zero_point: Annotated[
        bool, typer.Option(help="with what each candidate's weights bring beyond its untrained architecture")
    ] = True
    max_images: Annotated[int | None, typer.Option(min=1, help="that scores are computed on")] = None
    image_size: Annotated[int | None, typer.Option(min=32, help="of training: shorter side in pixels")] = None
    batch_size: Annotated[int | None, typer.Option(min=1)] = None
    data_dependent_init: DataDependentInit = None
    reuse: Annotated[bool, typer.Option(help="take over equal trainings that were done before")] = True
    keep_weights: Annotated[bool, typer.Option(help="keep every fine-tuned candidate as a checkpoint")] = (
        False
    )
    name: Annotated[str | None, typer.Option(help="of the study")] = None
    priority: Priority = 0

    def fields(self) -> Record:
        """As the request has them."""
        lists = {"metrics": split(self.metrics), "layers": split(self.layers), "seeds": numbers(self.seeds)}
        return vars(self) | lists


@dataclass(frozen=True, kw_only=True)
class StudySelection(work.Selection):
    dataset_id: Annotated[str | None, typer.Option("--dataset", help="id of one of theirs")] = None


@dataclass(frozen=True, kw_only=True)
class StudyOutcome(work.OutcomeWithCsv):
    csv: Annotated[
        Path | None,
        typer.Option("--csv", help="also write every measure of every score to this file", dir_okay=False),
    ] = None


STUDIES = work.WorkGroup(
    name="study",
    path="studies",
    table=studies,
    show=show_study,
    wait=wait_for_study,
    selection=StudySelection,
    outcome=StudyOutcome,
    help=work.HelpTexts(
        list="Studies, newest first.",
        show="One study: how far it is, and what it says of each metric.",
        cancel="Stop a study; what was scored and trained so far stays for a retry.",
        retry="Try again what failed or was cancelled in a study, and write its report anew.",
        delete="Delete a study that has ended, with its rankings and verifications; "
        "fine-tuned checkpoints stay.",
    ),
)
work.add_commands(group, STUDIES)


@study.command()
@spread
def run(
    ctx: typer.Context,
    dataset: Annotated[
        list[str], typer.Option("--dataset", "-d", help="id, name, archive or folder; again for more")
    ],
    checkpoint: Annotated[
        list[str],
        typer.Option(
            "--checkpoint", "-c", help="id, name, weights file, torchvision://, timm://...; again for more"
        ),
    ],
    *,
    options: StudyOptions,
    wait: Wait = True,
    outcome: work.Outcome,
    target: Annotated[
        Path | None,
        typer.Option("--out", help="folder for the report, its tables and plots", file_okay=False),
    ] = None,
) -> None:
    """Score and fine-tune every candidate on every dataset by the service, and compare."""
    with connected(ctx) as client:
        targets = [dataset_for(client, word) for word in dataset]
        candidates, unusable = checkpoints_for(client, checkpoint)
        record: Record = client.studies.create(
            [one["id"] for one in targets], [one["id"] for one in candidates], **options.fields()
        )
        if wait:
            record = wait_for_study(client, record)
        if target is not None and record["files"]:
            _write(client, record, target)
        STUDIES.answer(client, record, outcome)
        tell_of_unusable(unusable)
        if wait:
            fail_unless_succeeded("study", record)


@group.command()
def report(
    ctx: typer.Context,
    study: Annotated[str, typer.Argument(metavar="STUDY", help="its id")],
    target: Annotated[Path, typer.Option("--out", help="folder to write to", file_okay=False)],
) -> None:
    """Write the report of a study: one HTML page, Markdown, tables and plots."""
    with connected(ctx) as client:
        record = client.studies.get(study)
        if not record["files"]:
            raise Failed(f"the study is {record['state']} and has no report yet")
        _write(client, record, target)


def _write(client: Client, record: Record, target: Path) -> None:
    """report.html, report.md, correlations.csv, observations.csv, plots/*.png and study.json."""
    target.mkdir(parents=True, exist_ok=True)
    (target / "study.json").write_text(json_of.dumps(record, indent=2, ensure_ascii=False), encoding="utf-8")
    for file in record["files"]:
        name = file["url"].rsplit("/", 1)[-1]
        path = target / "plots" / name if file["about"]["kind"] == "plot" else target / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(client.studies.file(file["url"]))
    say(f"wrote {target / 'report.html'}")
