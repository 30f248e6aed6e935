"""`detrank verify` and `detrank verifications ...`"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from app.cli.commands import work
from app.cli.commands.inputs import checkpoints_for, dataset_for
from app.cli.options import DataDependentInit, Json, Priority, Wait, spread
from app.cli.session import as_json, connected, fail_unless_succeeded, say
from app.cli.show.verifications import show_verification, verifications
from app.cli.waiting.work import wait_for_verification

Record = dict[str, Any]

group = typer.Typer(no_args_is_help=True)


@dataclass(frozen=True, kw_only=True)
class TrainingOptions:
    """How a checkpoint is fine-tuned. Fields are named as in the request."""

    recipe: Annotated[
        str | None,
        typer.Option(
            help="see `detrank verifications recipes`; the architecture's published one where not given"
        ),
    ] = None
    epochs: Annotated[float | None, typer.Option(min=0, help="the recipe's own where no budget is given")] = (
        None
    )
    iterations: Annotated[
        int | None, typer.Option(min=1, help="instead of epochs: steps of the optimiser")
    ] = None
    budget_minutes: Annotated[
        float | None, typer.Option("--minutes", min=0, help="instead of epochs: minutes of training")
    ] = None
    label_fraction: Annotated[
        float | None, typer.Option("--fraction", min=0, max=1, help="share of the training images")
    ] = None
    shots: Annotated[int | None, typer.Option(min=1, help="objects of each category")] = None
    freeze: Annotated[str | None, typer.Option(help="none, stem, backbone or all_but_head")] = None
    image_size: Annotated[int | None, typer.Option(min=32, help="shorter side in pixels")] = None
    batch_size: Annotated[int | None, typer.Option(min=1)] = None
    data_dependent_init: DataDependentInit = None
    precision: Annotated[str | None, typer.Option(help="auto, float32, bfloat16 or float16")] = None
    seed: Annotated[int, typer.Option(min=0)] = 0
    name: Annotated[str | None, typer.Option(help="of the verification")] = None
    priority: Priority = 0


@dataclass(frozen=True, kw_only=True)
class VerificationSelection(work.Selection):
    ranking_id: Annotated[str | None, typer.Option("--ranking", help="those of this ranking")] = None
    search_id: Annotated[str | None, typer.Option("--search", help="those of this search")] = None
    study_id: Annotated[str | None, typer.Option("--study", help="those of this study")] = None
    dataset_id: Annotated[str | None, typer.Option("--dataset", help="id of what they are for")] = None
    checkpoint_id: Annotated[str | None, typer.Option("--checkpoint", help="id of what was fine-tuned")] = (
        None
    )


@dataclass(frozen=True, kw_only=True)
class VerificationOutcome(work.OutcomeWithCsv):
    csv: Annotated[
        Path | None,
        typer.Option("--csv", help="also write the learning curves to this file", dir_okay=False),
    ] = None


VERIFICATIONS = work.WorkGroup(
    name="verification",
    path="verifications",
    table=verifications,
    show=show_verification,
    wait=wait_for_verification,
    selection=VerificationSelection,
    outcome=VerificationOutcome,
    help=work.HelpTexts(
        list="Verifications, newest first.",
        show="One verification: how far it is, its mAP, and where its weights are.",
        cancel="Stop a verification; what it has learned so far stays for a retry.",
        retry="Try a failed or cancelled verification again, from where it stopped.",
        delete="Delete a verification that has ended; its fine-tuned checkpoint stays.",
    ),
)
work.add_commands(group, VERIFICATIONS)


@spread
def verify(
    ctx: typer.Context,
    dataset: Annotated[str, typer.Argument(help="id, name, archive, folder, or a source such as s3://...")],
    checkpoint: Annotated[
        str, typer.Argument(help="id, name, weights file, torchvision://, timm://, hf://...")
    ],
    *,
    test: Annotated[
        str | None,
        typer.Option(help="dataset with true boxes to measure on, where it learns from pseudo boxes"),
    ] = None,
    teacher: Annotated[
        str | None,
        typer.Option(
            help="self-training: a detector that was fine-tuned on the same subset, by id or name, labels the other images"
        ),
    ] = None,
    training: TrainingOptions,
    wait: Wait = True,
    outcome: VerificationOutcome,
) -> None:
    """Fine-tune a checkpoint on a dataset, to know its mAP and to have its weights."""
    with connected(ctx, dataset) as client:
        target = dataset_for(client, dataset)
        (candidate,), _ = checkpoints_for(client, [checkpoint])
        fields = vars(training) | {"test_dataset_id": dataset_for(client, test)["id"] if test else None}
        if teacher is not None:
            (found,), _ = checkpoints_for(client, [teacher])
            fields["teacher_checkpoint_id"] = found["id"]
        record: Record = client.verifications.create(target["id"], candidate["id"], **fields)
        if wait:
            record = wait_for_verification(client, record)
        VERIFICATIONS.answer(client, record, outcome)
        if wait:
            fail_unless_succeeded("verification", record)


@group.command()
def recipes(ctx: typer.Context, json: Json = False) -> None:
    """The ways to fine-tune: for which detectors, how long, and where they were published."""
    with connected(ctx) as client:
        found = client.get("/v1/recipes")
        if json:
            as_json(found)
            return
        for one in found["items"]:
            length = (
                f"{one['epochs']:g} epochs"
                if one["iterations"] is None
                else f"{one['iterations']} iterations"
            )
            say(
                f"{one['name']}: {one['title']} ({length}; "
                f"{', '.join(one['architectures'] or one['families'])})"
            )
            say(f"    {one['help']} [{one['source']}]")
