"""`detrank study run` and `detrank studies ...`"""

import json as json_of
from pathlib import Path
from typing import Annotated, Any

import typer

from app.cli import checkpoints as known_checkpoints
from app.cli.progress_parts import wait_for_study
from app.cli.rank import checkpoints_for, dataset_for
from app.cli.session import Failed, as_json, connected, fail_unless_succeeded, note, out, say
from app.cli.study_table import show_study
from app.cli.study_table import studies as study_list
from app.cli.words import numbers, split
from app.client import Client

Record = dict[str, Any]
HELP = "Which metric deserves trust: candidates on datasets, ranked and fine-tuned, with the correlations."
group = typer.Typer(help=HELP, no_args_is_help=True)
commands = typer.Typer(help="Studies of the service: which metric deserved trust.", no_args_is_help=True)

Json = Annotated[bool, typer.Option("--json", help="print the service's own document")]
Id = Annotated[str, typer.Argument(metavar="STUDY", help="its id")]
Out = Annotated[Path | None, typer.Option("--out", help="folder for the report, its tables and plots", file_okay=False)]


@group.command()
def run(
    ctx: typer.Context,
    dataset: Annotated[list[str], typer.Option("--dataset", "-d", help="id, name, archive or folder; again for more")],
    checkpoint: Annotated[
        list[str], typer.Option("--checkpoint", "-c", help="id, name, weights file, torchvision://, timm://...; again for more")
    ],
    recipe: Annotated[str | None, typer.Option(help="of every training; `quick` where not given")] = None,
    epochs: Annotated[float | None, typer.Option(min=0, help="of every training; the recipe's own where no budget is given")] = None,
    iterations: Annotated[int | None, typer.Option(min=1, help="instead of epochs: steps of the optimiser")] = None,
    minutes: Annotated[float | None, typer.Option(min=0, help="instead of epochs: minutes of each training")] = None,
    seeds: Annotated[str, typer.Option(help="comma separated; two or more show how well mAP agrees with itself")] = "0",
    metrics: Annotated[str | None, typer.Option(help="comma separated; see `detrank metrics list`")] = None,
    layers: Annotated[str | None, typer.Option(help="comma separated, e.g. backbone.c4,neck.roi; `all`")] = None,
    level: Annotated[str | None, typer.Option(help="local, global or both")] = None,
    zero_point: Annotated[bool, typer.Option(help="with what each candidate's weights bring beyond its untrained architecture")] = True,
    max_images: Annotated[int | None, typer.Option(min=1, help="that scores are computed on")] = None,
    image_size: Annotated[int | None, typer.Option(min=32, help="of training: shorter side in pixels")] = None,
    batch_size: Annotated[int | None, typer.Option(min=1)] = None,
    reuse: Annotated[bool, typer.Option(help="take over equal trainings that were done before")] = True,
    keep_weights: Annotated[bool, typer.Option(help="keep every fine-tuned candidate as a checkpoint")] = False,
    name: Annotated[str | None, typer.Option(help="of the study")] = None,
    wait: Annotated[bool, typer.Option(help="until it is done")] = True,
    json: Json = False,
    target: Out = None,
) -> None:
    """Score and fine-tune every candidate on every dataset by the service, and compare."""
    with connected(ctx) as client:
        targets = [dataset_for(client, word) for word in dataset]
        candidates, unusable = checkpoints_for(client, checkpoint)
        record = client.studies.create(
            [one["id"] for one in targets], [one["id"] for one in candidates], name=name, recipe=recipe, epochs=epochs,
            iterations=iterations, budget_minutes=minutes, seeds=numbers(seeds), metrics=split(metrics), layers=split(layers),
            level=level, zero_point=zero_point, max_images=max_images, image_size=image_size, batch_size=batch_size, reuse=reuse,
            keep_weights=keep_weights,
        )  # fmt: skip
        if wait:
            record = wait_for_study(client, record)
        _answer(client, record, json, target)
        for one in unusable:
            note(f"left out: {known_checkpoints.refusal(one)}")
        if wait:
            fail_unless_succeeded("study", record)


@commands.command("list")
def list_(
    ctx: typer.Context,
    state: Annotated[str | None, typer.Option(help="queued, running, cancelling, succeeded, failed or cancelled")] = None,
    limit: Annotated[int, typer.Option(min=1, max=100)] = 20,
    json: Json = False,
) -> None:
    """Studies, newest first."""
    with connected(ctx) as client:
        page = client.studies.page(state=state, limit=limit)
        if json:
            as_json(page)
        else:
            out.print(study_list(page["items"]))


@commands.command()
def show(
    ctx: typer.Context,
    study: Id,
    wait: Annotated[bool, typer.Option(help="until it is done")] = False,
    json: Json = False,
) -> None:
    """One study: how far it is, and what it says of each metric."""
    with connected(ctx) as client:
        record = client.studies.get(study)
        if wait:
            record = wait_for_study(client, record)
        _answer(client, record, json, None)


@commands.command()
def report(
    ctx: typer.Context, study: Id, target: Annotated[Path, typer.Option("--out", help="folder to write to", file_okay=False)]
) -> None:
    """Write the report of a study: one HTML page, Markdown, tables and plots."""
    with connected(ctx) as client:
        record = client.studies.get(study)
        if not record["files"]:
            raise Failed(f"the study is {record['state']} and has no report yet")
        _write(client, record, target)


@commands.command()
def cancel(ctx: typer.Context, study: Id, json: Json = False) -> None:
    """Stop a study; what was scored and trained so far stays for a retry."""
    with connected(ctx) as client:
        _answer(client, client.studies.cancel(study), json, None)


@commands.command()
def retry(ctx: typer.Context, study: Id, json: Json = False) -> None:
    """Try again what failed or was cancelled in a study, and write its report anew."""
    with connected(ctx) as client:
        _answer(client, client.studies.retry(study), json, None)


def _answer(client: Client, record: Record, json: bool, target: Path | None) -> None:
    if target is not None and record["files"]:
        _write(client, record, target)
    if json:
        as_json(record)
    else:
        show_study(record)


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
