"""`detrank rank` and `detrank rankings ...`"""

from pathlib import Path
from typing import Annotated, Any

import typer

from app.cli import checkpoints as known_checkpoints
from app.cli import datasets as known_datasets
from app.cli.progress import wait_for, wait_for_ranking
from app.cli.ranking_table import rankings as ranking_list
from app.cli.ranking_table import show_ranking
from app.cli.session import Failed, as_json, connected, fail_unless_succeeded, note, out
from app.cli.words import numbers, split
from app.client import Client

Record = dict[str, Any]
commands = typer.Typer(help="Orders of candidates for a dataset.", no_args_is_help=True)

Json = Annotated[bool, typer.Option("--json", help="print the service's own document")]
Csv = Annotated[Path | None, typer.Option("--csv", help="also write every score to this file", dir_okay=False)]


def rank(
    ctx: typer.Context,
    dataset: Annotated[str, typer.Argument(help="id, name, archive or folder")],
    checkpoint: Annotated[list[str], typer.Argument(help="ids, names, weights files, torchvision://, timm://, hf://...")],
    metrics: Annotated[str | None, typer.Option(help="comma separated; see `detrank metrics list`")] = None,
    layers: Annotated[str | None, typer.Option(help="comma separated, e.g. backbone.c4,neck.roi; `all` for every trained one")] = None,
    level: Annotated[str | None, typer.Option(help="local, global or both")] = None,
    rank_by: Annotated[str | None, typer.Option(help="the metric that orders the candidates")] = None,
    layer: Annotated[
        str | None, typer.Option(help="the layer that orders the candidates; size_matched: the map that fits the size of the objects")
    ] = None,
    quantity: Annotated[
        str | None, typer.Option(help="gain: order by what the weights bring; value: by the score as it is; default: by the gain where known")
    ] = None,
    max_images: Annotated[int | None, typer.Option(min=1, help="a seeded sample of the training images")] = None,
    image_size: Annotated[int | None, typer.Option(min=32, help="shorter side in pixels; each checkpoint's own where not given")] = None,
    seed: Annotated[int | None, typer.Option(min=0)] = None,
    calibrate: Annotated[bool, typer.Option(help="with intervals, z and the chance of being best")] = True,
    zero_point: Annotated[bool, typer.Option(help="with what each candidate's weights bring beyond its untrained architecture")] = True,
    regions_per_object: Annotated[
        int | None, typer.Option(min=1, max=64, help="of metrics with regions: so many moved boxes and as many of background")
    ] = None,
    hard_background: Annotated[
        float | None, typer.Option(min=0, max=1, help="of metrics with regions: share of the background that lies beside objects")
    ] = None,
    keep_features: Annotated[
        bool | None, typer.Option("--keep-features/--statistics", help="default: statistics alone where features would be too large")
    ] = None,
    shards: Annotated[int | None, typer.Option(min=1, max=256, help="read each candidate's images in so many parts, by all gpu workers")] = None,
    verify: Annotated[str | None, typer.Option(help="fine-tune the best so many, or `all`, and compare mAP with the scores")] = None,
    recipe: Annotated[str | None, typer.Option(help="of --verify; see `detrank verifications recipes`")] = None,
    epochs: Annotated[float | None, typer.Option(min=0, help="of --verify")] = None,
    iterations: Annotated[int | None, typer.Option(min=1, help="of --verify")] = None,
    minutes: Annotated[float | None, typer.Option(min=0, help="of --verify, for each training")] = None,
    fraction: Annotated[float | None, typer.Option(min=0, max=1, help="of --verify: share of the training images")] = None,
    shots: Annotated[int | None, typer.Option(min=1, help="of --verify: objects of each category")] = None,
    train_size: Annotated[int | None, typer.Option(min=32, help="of --verify: shorter side in pixels; the recipe's own where not given")] = None,
    train_batch: Annotated[int | None, typer.Option(min=1, help="of --verify: images of a step")] = None,
    train_seeds: Annotated[str | None, typer.Option(help="of --verify: comma separated, one training for each; 0 where not given")] = None,
    name: Annotated[str | None, typer.Option(help="of the ranking")] = None,
    wait: Annotated[bool, typer.Option(help="until it is done")] = True,
    json: Json = False,
    csv: Csv = None,
) -> None:
    """Order candidates by how well they should fine-tune on a dataset."""
    with connected(ctx) as client:
        target = dataset_for(client, dataset)
        candidates, unusable = checkpoints_for(client, checkpoint)
        ranking = client.rankings.create(
            target["id"], [record["id"] for record in candidates], name=name, metrics=split(metrics), layers=split(layers),
            level=level, rank_by=_rank_by(rank_by, layer, quantity), max_images=max_images, image_size=image_size, seed=seed,
            calibrate=calibrate, zero_point=zero_point, regions=_regions(regions_per_object, hard_background),
            keep_features=keep_features, shards=shards,
            verify=_verify(
                verify, recipe=recipe, epochs=epochs, iterations=iterations, budget_minutes=minutes, label_fraction=fraction,
                shots=shots, image_size=train_size, batch_size=train_batch, seeds=train_seeds and numbers(train_seeds),
            ),
        )  # fmt: skip
        if wait:
            ranking = wait_for_ranking(client, ranking)
        _answer(client, ranking, json, csv)
        for record in unusable:
            note(f"left out: {known_checkpoints.refusal(record)}")
        if wait:
            fail_unless_succeeded("ranking", ranking, otherwise="; ".join(one["reason"] for one in ranking["left_out"]))


@commands.command("list")
def list_(
    ctx: typer.Context,
    state: Annotated[str | None, typer.Option(help="queued, running, succeeded, failed or cancelled")] = None,
    limit: Annotated[int, typer.Option(min=1, max=100)] = 20,
    json: Json = False,
) -> None:
    """Rankings, newest first."""
    with connected(ctx) as client:
        page = client.rankings.page(state=state, limit=limit)
        if json:
            as_json(page)
        else:
            out.print(ranking_list(page["items"]))


@commands.command()
def show(
    ctx: typer.Context,
    ranking: Annotated[str, typer.Argument(help="id of the ranking")],
    wait: Annotated[bool, typer.Option(help="until it is done")] = False,
    json: Json = False,
    csv: Csv = None,
) -> None:
    """One ranking: the order, the scores, what each candidate costs, and what to beware of."""
    with connected(ctx) as client:
        record = client.rankings.get(ranking)
        if wait:
            record = wait_for_ranking(client, record)
        _answer(client, record, json, csv)


@commands.command()
def cancel(ctx: typer.Context, ranking: Annotated[str, typer.Argument(help="id of the ranking")], json: Json = False) -> None:
    """Stop a ranking; scores that are there stay."""
    with connected(ctx) as client:
        _answer(client, client.rankings.cancel(ranking), json, None)


def dataset_for(client: Client, word: str) -> Record:
    """The ready dataset that an id, a name or a path stands for. Raises Failed where it is not usable."""
    if Path(word).exists() and not word.startswith("ds_"):
        record = known_datasets.send(client, Path(word))
    else:
        record = known_datasets.find(client, word)
    if record["state"] == "processing":
        record = wait_for(client, "datasets", record)
    known_datasets.fail_if_invalid(record)
    return record


def checkpoints_for(client: Client, words: list[str]) -> tuple[list[Record], list[Record]]:
    """The ready checkpoints, and those that cannot be used. Raises Failed where none is left."""
    records = []
    for word in words:
        if "://" in word or (Path(word).exists() and not word.startswith("ckpt_")):
            records.append(known_checkpoints.send(client, word))
        else:
            records.append(known_checkpoints.find(client, word))
    records = [wait_for(client, "checkpoints", r) if r["state"] == "processing" else r for r in records]
    unusable = [record for record in records if record["state"] != "ready"]
    if len(unusable) == len(records):
        raise Failed("\n".join(known_checkpoints.refusal(record) for record in unusable))
    return [record for record in records if record["state"] == "ready"], unusable


def _answer(client: Client, ranking: Record, json: bool, csv: Path | None) -> None:
    if csv is not None:
        csv.write_text(client.rankings.csv(ranking["id"]), encoding="utf-8")
    if json:
        as_json(ranking)
    else:
        show_ranking(ranking)


def _rank_by(metric: str | None, layer: str | None, quantity: str | None) -> Record | None:
    given = {"metric": metric, "layer": layer, "quantity": quantity}
    return {name: value for name, value in given.items() if value is not None} or None


def _regions(per_object: int | None, hard: float | None) -> Record | None:
    wanted = {"jittered": per_object, "background": per_object, "hard": hard}
    return {name: value for name, value in wanted.items() if value is not None} or None


def _verify(top: str | None, **terms: Any) -> Record | None:
    given = {name: value for name, value in terms.items() if value is not None}
    if top is None:
        if given:
            raise Failed("what a training is to be is for --verify; say how many candidates to fine-tune, e.g. --verify 3")
        return None
    if top != "all" and not top.isdecimal():
        raise Failed(f"--verify {top}: a number of candidates, or all")
    return given | {"top_k": "all" if top == "all" else int(top)}
