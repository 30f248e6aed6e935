"""`detrank search` and `detrank searches ...`"""

from pathlib import Path
from typing import Annotated, Any

import typer

from app.cli import checkpoints as known_checkpoints
from app.cli.progress_parts import wait_for_search
from app.cli.rank import checkpoints_for, dataset_for
from app.cli.search_table import searches as search_list
from app.cli.search_table import show_search
from app.cli.session import as_json, connected, fail_unless_succeeded, note, out
from app.cli.words import split
from app.client import Client

Record = dict[str, Any]
commands = typer.Typer(help="Budgets spent on finding the best checkpoint.", no_args_is_help=True)

Json = Annotated[bool, typer.Option("--json", help="print the service's own document")]
Id = Annotated[str, typer.Argument(metavar="SEARCH", help="its id")]
Csv = Annotated[Path | None, typer.Option("--csv", help="also write what was spent where to this file", dir_okay=False)]


def search(
    ctx: typer.Context,
    dataset: Annotated[str, typer.Argument(help="id, name, archive or folder")],
    checkpoint: Annotated[list[str], typer.Argument(help="ids, names, weights files, torchvision://, timm://, hf://...")],
    minutes: Annotated[float, typer.Option(min=0, help="of workers' time in all, scoring included")],
    recipe: Annotated[str | None, typer.Option(help="see `detrank verifications recipes`; `quick` where not given")] = None,
    epochs: Annotated[float | None, typer.Option(min=0, help="of a whole training; the recipe's own where not given")] = None,
    iterations: Annotated[int | None, typer.Option(min=1, help="instead of epochs: steps of the optimiser")] = None,
    eta: Annotated[int | None, typer.Option(min=2, max=10, help="one in so many goes on from round to round; 3")] = None,
    metrics: Annotated[str | None, typer.Option(help="comma separated; see `detrank metrics list`")] = None,
    layers: Annotated[str | None, typer.Option(help="comma separated, e.g. backbone.c4,neck.roi")] = None,
    rank_by: Annotated[str | None, typer.Option(help="the metric that gives the order")] = None,
    zero_point: Annotated[bool, typer.Option(help="with what each candidate's weights bring beyond its untrained architecture")] = True,
    max_images: Annotated[int | None, typer.Option(min=1, help="that scores are computed on")] = None,
    image_size: Annotated[int | None, typer.Option(min=32, help="of training: shorter side in pixels")] = None,
    batch_size: Annotated[int | None, typer.Option(min=1)] = None,
    val_images: Annotated[int | None, typer.Option(min=1, help="that rounds are decided on; at most 200 where not given")] = None,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    name: Annotated[str | None, typer.Option(help="of the search")] = None,
    wait: Annotated[bool, typer.Option(help="until it is done")] = True,
    json: Json = False,
    csv: Csv = None,
) -> None:
    """Find the best checkpoint that a budget can find: score all, fine-tune many a little and few to the end."""
    with connected(ctx) as client:
        target = dataset_for(client, dataset)
        candidates, unusable = checkpoints_for(client, checkpoint)
        record = client.searches.create(
            target["id"], [one["id"] for one in candidates], minutes, name=name, recipe=recipe, epochs=epochs,
            iterations=iterations, eta=eta, metrics=split(metrics), layers=split(layers), rank_by=rank_by,
            zero_point=zero_point, max_images=max_images, image_size=image_size, batch_size=batch_size,
            max_val_images=val_images, seed=seed,
        )  # fmt: skip
        if wait:
            record = wait_for_search(client, record)
        _answer(client, record, json, csv)
        for one in unusable:
            note(f"left out: {known_checkpoints.refusal(one)}")
        if wait:
            fail_unless_succeeded("search", record)


@commands.command("list")
def list_(
    ctx: typer.Context,
    state: Annotated[str | None, typer.Option(help="queued, running, cancelling, succeeded, failed or cancelled")] = None,
    limit: Annotated[int, typer.Option(min=1, max=100)] = 20,
    json: Json = False,
) -> None:
    """Searches, newest first."""
    with connected(ctx) as client:
        page = client.searches.page(state=state, limit=limit)
        if json:
            as_json(page)
        else:
            out.print(search_list(page["items"]))


@commands.command()
def show(
    ctx: typer.Context,
    search: Id,
    wait: Annotated[bool, typer.Option(help="until it is done")] = False,
    json: Json = False,
    csv: Csv = None,
) -> None:
    """One search: the best it has found, what was spent where, and how sure that is."""
    with connected(ctx) as client:
        record = client.searches.get(search)
        if wait:
            record = wait_for_search(client, record)
        _answer(client, record, json, csv)


@commands.command()
def cancel(ctx: typer.Context, search: Id, json: Json = False) -> None:
    """Stop a search; what was trained so far stays for a retry."""
    with connected(ctx) as client:
        _answer(client, client.searches.cancel(search), json, None)


@commands.command()
def retry(ctx: typer.Context, search: Id, json: Json = False) -> None:
    """Go on with a search that failed or was cancelled."""
    with connected(ctx) as client:
        _answer(client, client.searches.retry(search), json, None)


def _answer(client: Client, record: Record, json: bool, csv: Path | None) -> None:
    if csv is not None:
        csv.write_text(client.searches.csv(record["id"]), encoding="utf-8")
    if json:
        as_json(record)
    else:
        show_search(record)
