"""`detrank rank` and `detrank rankings ...`"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from app.cli.commands import work
from app.cli.commands.inputs import checkpoints_for, dataset_for, tell_of_unusable
from app.cli.commands.shelf import FromShelf, taken_from_shelf
from app.cli.options import DataDependentInit, Priority, Wait, given, numbers, split, spread
from app.cli.session import Failed, connected, fail_unless_succeeded
from app.cli.show.rankings import rankings, show_ranking, show_whole_ranking
from app.cli.waiting.work import wait_for_ranking

Record = dict[str, Any]
group = typer.Typer(no_args_is_help=True)


@dataclass(frozen=True, kw_only=True)
class Scoring:
    """How candidates are scored and put in order."""

    metrics: Annotated[str | None, typer.Option(help="comma separated; see `detrank metrics list`")] = None
    layers: Annotated[
        str | None,
        typer.Option(help="comma separated, e.g. backbone.c4,neck.roi; `all` for every trained one"),
    ] = None
    level: Annotated[str | None, typer.Option(help="local, global or both")] = None
    rank_by: Annotated[str | None, typer.Option(help="the metric that orders the candidates")] = None
    layer: Annotated[
        str | None,
        typer.Option(
            help="the layer that orders the candidates; size_matched: the map that fits the size of the "
            "objects"
        ),
    ] = None
    quantity: Annotated[
        str | None,
        typer.Option(
            help="gain: order by what the weights bring; value: by the score as it is; default: by the gain "
            "where known"
        ),
    ] = None
    max_images: Annotated[int | None, typer.Option(min=1, help="a seeded sample of the training images")] = (
        None
    )
    image_size: Annotated[
        int | None, typer.Option(min=32, help="shorter side in pixels; each checkpoint's own where not given")
    ] = None
    seed: Annotated[int | None, typer.Option(min=0)] = None
    calibrate: Annotated[
        bool | None,
        typer.Option(
            help="every score, or none, with interval and z; without either that which orders the candidates"
        ),
    ] = None
    zero_point: Annotated[
        bool, typer.Option(help="with what each candidate's weights bring beyond its untrained architecture")
    ] = True
    regions_per_object: Annotated[
        int | None,
        typer.Option(
            min=1, max=64, help="of metrics with regions: so many moved boxes and as many of background"
        ),
    ] = None
    hard_background: Annotated[
        float | None,
        typer.Option(
            min=0, max=1, help="of metrics with regions: share of the background that lies beside objects"
        ),
    ] = None
    keep_features: Annotated[
        bool | None,
        typer.Option(
            "--keep-features/--statistics", help="default: statistics alone where features would be too large"
        ),
    ] = None
    shards: Annotated[
        int | None,
        typer.Option(
            min=1, max=256, help="read each candidate's images in so many parts, by all gpu workers"
        ),
    ] = None
    measure_training: Annotated[
        bool | None,
        typer.Option(
            help="try a step of fine-tuning of each architecture, for its seconds and memory; default: where that is quick"
        ),
    ] = None
    compare_with: Annotated[
        str | None,
        typer.Option(help="id of another ranking of these checkpoints: how far both orders agree"),
    ] = None

    def fields(self) -> Record:
        """As the request has them."""
        per_object = self.regions_per_object
        return {
            "metrics": split(self.metrics),
            "layers": split(self.layers),
            "level": self.level,
            "rank_by": given({"metric": self.rank_by, "layer": self.layer, "quantity": self.quantity}),
            "max_images": self.max_images,
            "image_size": self.image_size,
            "seed": self.seed,
            "calibrate": self.calibrate,
            "zero_point": self.zero_point,
            "regions": given(
                {"jittered": per_object, "background": per_object, "hard": self.hard_background}
            ),
            "keep_features": self.keep_features,
            "shards": self.shards,
            "measure_training": self.measure_training,
            "compare_with": self.compare_with,
        }


@dataclass(frozen=True, kw_only=True)
class Verifying:
    """How many of the best are fine-tuned, and how. Fields are named as in the request."""

    top_k: Annotated[
        str | None,
        typer.Option(
            "--verify", help="fine-tune the best so many, or `all`, and compare mAP with the scores"
        ),
    ] = None
    recipe: Annotated[str | None, typer.Option(help="of --verify; see `detrank verifications recipes`")] = (
        None
    )
    epochs: Annotated[float | None, typer.Option(min=0, help="of --verify")] = None
    iterations: Annotated[int | None, typer.Option(min=1, help="of --verify")] = None
    budget_minutes: Annotated[
        float | None, typer.Option("--minutes", min=0, help="of --verify, for each training")
    ] = None
    label_fraction: Annotated[
        float | None,
        typer.Option("--fraction", min=0, max=1, help="of --verify: share of the training images"),
    ] = None
    shots: Annotated[int | None, typer.Option(min=1, help="of --verify: objects of each category")] = None
    train_size: Annotated[
        int | None,
        typer.Option(min=32, help="of --verify: shorter side in pixels; the recipe's own where not given"),
    ] = None
    train_batch: Annotated[int | None, typer.Option(min=1, help="of --verify: images of a step")] = None
    data_dependent_init: DataDependentInit = None
    train_seeds: Annotated[
        str | None,
        typer.Option(help="of --verify: comma separated, one training for each; 0 where not given"),
    ] = None

    def fields(self) -> Record | None:
        """As the request has them; None where nothing is to be verified. Raises Failed."""
        own = ("top_k", "train_size", "train_batch", "train_seeds")
        terms = {name: value for name, value in vars(self).items() if name not in own} | {
            "image_size": self.train_size,
            "batch_size": self.train_batch,
            "seeds": numbers(self.train_seeds) if self.train_seeds else None,
        }
        asked, top = given(terms), self.top_k
        if top is None:
            if asked:
                raise Failed(
                    "what a training is to be is for --verify; say how many candidates to fine-tune, e.g. "
                    "--verify 3"
                )
            return None
        if top != "all" and not top.isdecimal():
            raise Failed(f"--verify {top}: a number of candidates, or all")
        return (asked or {}) | {"top_k": "all" if top == "all" else int(top)}


@dataclass(frozen=True, kw_only=True)
class Placed:
    """What it is called, and where it stands in the queue."""

    name: Annotated[str | None, typer.Option(help="of the ranking")] = None
    priority: Priority = 0


@dataclass(frozen=True, kw_only=True)
class RankingSelection(work.Selection):
    dataset_id: Annotated[str | None, typer.Option("--dataset", help="id of what they are for")] = None
    checkpoint_id: Annotated[str | None, typer.Option("--checkpoint", help="id of a candidate")] = None


@dataclass(frozen=True, kw_only=True)
class RankingOutcome(work.WideOutcome):
    csv: Annotated[
        Path | None, typer.Option("--csv", help="also write every score to this file", dir_okay=False)
    ] = None


RANKINGS = work.WorkGroup(
    name="ranking",
    path="rankings",
    table=rankings,
    show=show_ranking,
    show_whole=show_whole_ranking,
    wait=wait_for_ranking,
    selection=RankingSelection,
    outcome=RankingOutcome,
    help=work.HelpTexts(
        list="Rankings, newest first.",
        show="One ranking: the order, the scores, what each candidate costs, and what to beware of.",
        cancel="Stop a ranking; scores that are there stay.",
        retry="Try again what failed or was cancelled in a ranking; what was scored is kept.",
        delete="Delete a ranking that has ended, with its scores; fine-tuned checkpoints stay.",
    ),
)
work.add_commands(group, RANKINGS)


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a candidate may cost, by the names of the request's fields."""

    max_parameters: Annotated[int | None, typer.Option(min=0)] = None
    max_inference_ms: Annotated[
        float | None, typer.Option("--max-ms", min=0, help="of finding the objects of a picture")
    ] = None
    max_inference_memory_bytes: Annotated[
        int | None, typer.Option("--max-memory", min=0, help="bytes, of the same")
    ] = None
    max_training_s: Annotated[
        float | None, typer.Option("--max-training-seconds", min=0, help="of fine-tuning")
    ] = None
    max_training_memory_bytes: Annotated[
        int | None, typer.Option("--max-training-memory", min=0, help="bytes, of fine-tuning")
    ] = None
    fits: Annotated[
        bool | None, typer.Option("--fits/--no-fit", help="into the device's memory, when fine-tuned")
    ] = None


@group.command()
@spread
def predicted(
    ctx: typer.Context,
    id: Annotated[str, typer.Argument(metavar="ID", help="of a ranking")],
    *,
    limits: Limits,
    outcome: RankingOutcome,
) -> None:
    """One ranking by the mAP that fine-tuning is predicted to reach; your own verifications sharpen it."""
    _answer(ctx, id, outcome, **vars(limits), order_by="predicted_map")


@group.command()
@spread
def scored(
    ctx: typer.Context,
    id: Annotated[str, typer.Argument(metavar="ID", help="of a ranking")],
    *,
    limits: Limits,
    outcome: RankingOutcome,
) -> None:
    """One ranking by the score that it asks for, or by the default one."""
    _answer(ctx, id, outcome, **vars(limits), order_by="score")


@group.command()
@spread
def affordable(
    ctx: typer.Context,
    id: Annotated[str, typer.Argument(metavar="ID", help="of a ranking")],
    *,
    limits: Limits,
    frontier: Annotated[
        bool | None, typer.Option("--frontier/--not-frontier", help="those that nothing faster beats")
    ] = None,
    outcome: RankingOutcome,
) -> None:
    """One ranking without the candidates that cost too much; the ranks of the others close up."""
    _answer(ctx, id, outcome, **vars(limits), frontier=frontier)


def _answer(ctx: typer.Context, id: str, outcome: RankingOutcome, **asked: Any) -> None:
    """The ranking as `asked` shows it; what is None was not asked."""
    with connected(ctx) as client:
        RANKINGS.answer(client, client.rankings.get(id, **(given(asked) or {})), outcome)


@spread
def rank(
    ctx: typer.Context,
    dataset: Annotated[str, typer.Argument(help="id, name, archive, folder, or a source such as s3://...")],
    checkpoint: Annotated[
        list[str] | None, typer.Argument(help="ids, names, weights files, torchvision://, timm://, hf://...")
    ] = None,
    *,
    public: FromShelf,
    scoring: Scoring,
    verifying: Verifying,
    placed: Placed,
    wait: Wait = True,
    outcome: RankingOutcome,
) -> None:
    """Order candidates by how well they should fine-tune on a dataset."""
    with connected(ctx, dataset) as client:
        if not checkpoint and not public.shelf:
            raise Failed("which candidates? Name checkpoints, or give --shelf for public ones")
        target = dataset_for(client, dataset)
        ids = taken_from_shelf(client, public)
        candidates, unusable = checkpoints_for(client, checkpoint) if checkpoint else ([], [])
        ids += [record["id"] for record in candidates if record["id"] not in ids]
        ranking: Record = client.rankings.create(
            target["id"],
            ids,
            **vars(placed),
            verify=verifying.fields(),
            **scoring.fields(),
        )
        if wait:
            ranking = wait_for_ranking(client, ranking)
        RANKINGS.answer(client, ranking, outcome)
        tell_of_unusable(unusable)
        if wait:
            fail_unless_succeeded(
                "ranking", ranking, otherwise="; ".join(one["reason"] for one in ranking["left_out"])
            )
