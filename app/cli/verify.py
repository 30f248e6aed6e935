"""`detrank verify` and `detrank verifications ...`"""

from pathlib import Path
from typing import Annotated, Any

import typer

from app.cli.progress import wait_for_verification
from app.cli.rank import checkpoints_for, dataset_for
from app.cli.session import as_json, connected, fail_unless_succeeded, out, say
from app.cli.verification_table import show_verification
from app.cli.verification_table import verifications as verification_list
from app.client import Client

Record = dict[str, Any]
commands = typer.Typer(help="Fine-tuned candidates: what their mAP is.", no_args_is_help=True)

Json = Annotated[bool, typer.Option("--json", help="print the service's own document")]
Id = Annotated[str, typer.Argument(metavar="VERIFICATION", help="its id")]
Csv = Annotated[Path | None, typer.Option("--csv", help="also write the learning curves to this file", dir_okay=False)]
Recipe = Annotated[str | None, typer.Option(help="see `detrank verifications recipes`; the architecture's published one where not given")]
Epochs = Annotated[float | None, typer.Option(min=0, help="the recipe's own where no budget is given")]
Iterations = Annotated[int | None, typer.Option(min=1, help="instead of epochs: steps of the optimiser")]
Minutes = Annotated[float | None, typer.Option(min=0, help="instead of epochs: minutes of training")]


def verify(
    ctx: typer.Context,
    dataset: Annotated[str, typer.Argument(help="id, name, archive or folder")],
    checkpoint: Annotated[str, typer.Argument(help="id, name, weights file, torchvision://, timm://, hf://...")],
    recipe: Recipe = None,
    epochs: Epochs = None,
    iterations: Iterations = None,
    minutes: Minutes = None,
    fraction: Annotated[float | None, typer.Option(min=0, max=1, help="share of the training images")] = None,
    shots: Annotated[int | None, typer.Option(min=1, help="objects of each category")] = None,
    freeze: Annotated[str | None, typer.Option(help="none, stem, backbone or all_but_head")] = None,
    image_size: Annotated[int | None, typer.Option(min=32, help="shorter side in pixels")] = None,
    batch_size: Annotated[int | None, typer.Option(min=1)] = None,
    precision: Annotated[str | None, typer.Option(help="auto, float32, bfloat16 or float16")] = None,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    name: Annotated[str | None, typer.Option(help="of the verification")] = None,
    wait: Annotated[bool, typer.Option(help="until it is done")] = True,
    json: Json = False,
    csv: Csv = None,
) -> None:
    """Fine-tune a checkpoint on a dataset, to know its mAP and to have its weights."""
    with connected(ctx) as client:
        target = dataset_for(client, dataset)
        (candidate,), _ = checkpoints_for(client, [checkpoint])
        record = client.verifications.create(
            target["id"], candidate["id"], name=name, recipe=recipe, epochs=epochs, iterations=iterations,
            budget_minutes=minutes, label_fraction=fraction, shots=shots, freeze=freeze, image_size=image_size,
            batch_size=batch_size, precision=precision, seed=seed,
        )  # fmt: skip
        if wait:
            record = wait_for_verification(client, record)
        _answer(client, record, json, csv)
        if wait:
            fail_unless_succeeded("verification", record)


@commands.command("list")
def list_(
    ctx: typer.Context,
    state: Annotated[str | None, typer.Option(help="queued, running, cancelling, succeeded, failed or cancelled")] = None,
    ranking: Annotated[str | None, typer.Option(help="those of this ranking")] = None,
    limit: Annotated[int, typer.Option(min=1, max=100)] = 20,
    json: Json = False,
) -> None:
    """Verifications, newest first."""
    with connected(ctx) as client:
        page = client.verifications.page(state=state, ranking_id=ranking, limit=limit)
        if json:
            as_json(page)
        else:
            out.print(verification_list(page["items"]))


@commands.command()
def show(
    ctx: typer.Context,
    verification: Id,
    wait: Annotated[bool, typer.Option(help="until it is done")] = False,
    json: Json = False,
    csv: Csv = None,
) -> None:
    """One verification: how far it is, its mAP, and where its weights are."""
    with connected(ctx) as client:
        record = client.verifications.get(verification)
        if wait:
            record = wait_for_verification(client, record)
        _answer(client, record, json, csv)


@commands.command()
def cancel(ctx: typer.Context, verification: Id, json: Json = False) -> None:
    """Stop a verification; what it has learned so far stays for a retry."""
    with connected(ctx) as client:
        _answer(client, client.verifications.cancel(verification), json, None)


@commands.command()
def retry(ctx: typer.Context, verification: Id, json: Json = False) -> None:
    """Try a failed or cancelled verification again, from where it stopped."""
    with connected(ctx) as client:
        _answer(client, client.verifications.retry(verification), json, None)


@commands.command()
def recipes(ctx: typer.Context, json: Json = False) -> None:
    """The ways to fine-tune: for which detectors, how long, and where they were published."""
    with connected(ctx) as client:
        found = client.get("/v1/recipes")
        if json:
            as_json(found)
            return
        for one in found["items"]:
            length = f"{one['epochs']:g} epochs" if one["iterations"] is None else f"{one['iterations']} iterations"
            say(f"{one['name']}: {one['title']} ({length}; {', '.join(one['architectures'] or one['families'])})")
            say(f"    {one['help']} [{one['source']}]")


def _answer(client: Client, record: Record, json: bool, csv: Path | None) -> None:
    if csv is not None:
        csv.write_text(client.verifications.csv(record["id"]), encoding="utf-8")
    if json:
        as_json(record)
    else:
        show_verification(record)
