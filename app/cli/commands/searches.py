"""`detrank search` and `detrank searches ...`"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from app.cli.commands import work
from app.cli.commands.inputs import checkpoints_for, dataset_for, tell_of_unusable
from app.cli.options import DataDependentInit, Priority, Wait, split, spread
from app.cli.session import connected, fail_unless_succeeded
from app.cli.show.searches import searches, show_search
from app.cli.waiting.work import wait_for_search

Record = dict[str, Any]
group = typer.Typer(no_args_is_help=True)


@dataclass(frozen=True, kw_only=True)
class SearchOptions:
    """How the budget is spent. Fields are named as in the request."""

    budget_minutes: Annotated[
        float, typer.Option("--minutes", min=0, help="of workers' time in all, scoring included")
    ]
    recipe: Annotated[
        str | None, typer.Option(help="see `detrank verifications recipes`; `quick` where not given")
    ] = None
    epochs: Annotated[
        float | None, typer.Option(min=0, help="of a whole training; the recipe's own where not given")
    ] = None
    iterations: Annotated[
        int | None, typer.Option(min=1, help="instead of epochs: steps of the optimiser")
    ] = None
    strategy: Annotated[
        str | None,
        typer.Option(
            help="halving, or expected_improvement: by what each part is expected to bring; without either as the "
            "candidates' architectures are known to the prediction or not"
        ),
    ] = None
    eta: Annotated[
        int | None, typer.Option(min=2, max=10, help="one in so many goes on from round to round; 3")
    ] = None
    parallel: Annotated[
        int | None,
        typer.Option(min=1, help="of expected_improvement: parts at once; as many as there are workers"),
    ] = None
    min_improvement: Annotated[
        float | None,
        typer.Option(
            min=0, max=1, help="of expected_improvement: mAP below which a training is not worth it; 0.001"
        ),
    ] = None
    metrics: Annotated[str | None, typer.Option(help="comma separated; see `detrank metrics list`")] = None
    layers: Annotated[str | None, typer.Option(help="comma separated, e.g. backbone.c4,neck.roi")] = None
    rank_by: Annotated[str | None, typer.Option(help="the metric that gives the order")] = None
    zero_point: Annotated[
        bool, typer.Option(help="with what each candidate's weights bring beyond its untrained architecture")
    ] = True
    max_images: Annotated[int | None, typer.Option(min=1, help="that scores are computed on")] = None
    image_size: Annotated[int | None, typer.Option(min=32, help="of training: shorter side in pixels")] = None
    batch_size: Annotated[int | None, typer.Option(min=1)] = None
    data_dependent_init: DataDependentInit = None
    max_val_images: Annotated[
        int | None,
        typer.Option("--val-images", min=1, help="that rounds are decided on; at most 200 where not given"),
    ] = None
    seed: Annotated[int, typer.Option(min=0)] = 0
    name: Annotated[str | None, typer.Option(help="of the search")] = None
    priority: Priority = 0

    def fields(self) -> Record:
        """As the request has them."""
        return vars(self) | {"metrics": split(self.metrics), "layers": split(self.layers)}


@dataclass(frozen=True, kw_only=True)
class SearchSelection(work.Selection):
    dataset_id: Annotated[str | None, typer.Option("--dataset", help="id of what they are for")] = None
    checkpoint_id: Annotated[str | None, typer.Option("--checkpoint", help="id of a candidate")] = None


@dataclass(frozen=True, kw_only=True)
class SearchOutcome(work.OutcomeWithCsv):
    csv: Annotated[
        Path | None,
        typer.Option("--csv", help="also write what was spent where to this file", dir_okay=False),
    ] = None


SEARCHES = work.WorkGroup(
    name="search",
    path="searches",
    table=searches,
    show=show_search,
    wait=wait_for_search,
    selection=SearchSelection,
    outcome=SearchOutcome,
    help=work.HelpTexts(
        list="Searches, newest first.",
        show="One search: the best it has found, what was spent where, and how sure that is.",
        cancel="Stop a search; what was trained so far stays for a retry.",
        retry="Go on with a search that failed or was cancelled.",
        delete="Delete a search that has ended, with its ranking and verifications; fine-tuned checkpoints "
        "stay.",
    ),
)
work.add_commands(group, SEARCHES)


@spread
def search(
    ctx: typer.Context,
    dataset: Annotated[str, typer.Argument(help="id, name, archive, folder, or a source such as s3://...")],
    checkpoint: Annotated[
        list[str], typer.Argument(help="ids, names, weights files, torchvision://, timm://, hf://...")
    ],
    *,
    options: SearchOptions,
    wait: Wait = True,
    outcome: SearchOutcome,
) -> None:
    """Find the best checkpoint that a budget can find: score all, fine-tune many a little and few to the
    end, or each time what is expected to help most."""
    with connected(ctx, dataset) as client:
        target = dataset_for(client, dataset)
        candidates, unusable = checkpoints_for(client, checkpoint)
        record: Record = client.searches.create(
            target["id"], [one["id"] for one in candidates], **options.fields()
        )
        if wait:
            record = wait_for_search(client, record)
        SEARCHES.answer(client, record, outcome)
        tell_of_unusable(unusable)
        if wait:
            fail_unless_succeeded("search", record)
