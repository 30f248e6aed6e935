"""`detrank pretrain` and `detrank pretrainings ...`"""

import json as json_of
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from app.cli.commands import work
from app.cli.commands.inputs import checkpoints_for, dataset_for
from app.cli.options import Json, Priority, Wait, split, spread
from app.cli.session import BadOptions, as_json, connected, fail_unless_succeeded, say
from app.cli.show.pretrainings import pretrainings, show_pretraining
from app.cli.waiting.work import wait_for_pretraining
from detrank import Client

Record = dict[str, Any]
group = typer.Typer(no_args_is_help=True)


@dataclass(frozen=True, kw_only=True)
class Start:
    """What is pretrained."""

    method: Annotated[
        str, typer.Option(help="detreg, or self_training: a verified detector teaches a student")
    ] = "detreg"
    from_checkpoint: Annotated[
        str | None,
        typer.Option(
            "--from",
            help="a DETR to go on with: id, name, weights file, hf://...; of a self-training what the student begins with",
        ),
    ] = None
    architecture: Annotated[
        str | None, typer.Option(help="instead: a fresh detr or deformable_detr around the encoder's body")
    ] = None
    encoder: Annotated[
        str | None, typer.Option(help="the frozen network that says what is in a region: id, name, file, ...")
    ] = None
    labelled: Annotated[
        str | None, typer.Option(help="self_training: the dataset with boxes: id, name, archive or folder")
    ] = None
    teacher: Annotated[
        str | None,
        typer.Option(
            help="self_training: a detector that was fine-tuned on it; the best verified one where not given"
        ),
    ] = None
    rounds: Annotated[
        int | None, typer.Option(min=1, max=10, help="self_training: each round's student teaches the next")
    ] = None
    mean_teacher: Annotated[
        bool,
        typer.Option(
            "--mean-teacher",
            help="self_training: after a third of the steps the mean of the student's weights says the pseudo boxes of each batch",
        ),
    ] = False
    config: Annotated[
        str | None,
        typer.Option(help='of a fresh detector, as JSON: {"num_queries": 100, "encoder_layers": 3}'),
    ] = None

    def request(self, client: Client) -> Record:
        """As the service has it. Raises BadOptions."""
        fields: Record = {"method": self.method, "architecture": self.architecture, "rounds": self.rounds}
        fields["mean_teacher"] = self.mean_teacher or None
        words = {
            "from_checkpoint": self.from_checkpoint,
            "encoder_checkpoint": self.encoder,
            "teacher_checkpoint": self.teacher,
        }
        if self.labelled is not None:
            fields["labelled_dataset_id"] = dataset_for(client, self.labelled)["id"]
        for name, word in words.items():
            if word is not None:
                (found,), _ = checkpoints_for(client, [word])
                fields[name] = found["id"]
        if self.config is not None:
            try:
                fields["config"] = json_of.loads(self.config)
            except ValueError as wrong:
                raise BadOptions(
                    f'--config {self.config}: write JSON, such as {{"num_queries": 100}}'
                ) from wrong
        return fields


@dataclass(frozen=True, kw_only=True)
class PretrainingOptions:
    """How a detector is pretrained. Fields are named as in the request."""

    recipe: Annotated[
        str | None,
        typer.Option(
            help="see `detrank pretrainings recipes`; the quick one where not given; of a self-training one of fine-tuning, "
            "the teacher's own where not given"
        ),
    ] = None
    proposals: Annotated[str | None, typer.Option(help="selective_search, objectness or random")] = None
    max_proposals: Annotated[int | None, typer.Option(min=1, help="regions of a picture")] = None
    embedding_layer: Annotated[
        str | None, typer.Option(help="map of the encoder that a region's vector is the mean of")
    ] = None
    epochs: Annotated[float | None, typer.Option(min=0, help="the recipe's own where not given")] = None
    iterations: Annotated[
        int | None, typer.Option(min=1, help="instead of epochs: steps of the optimiser")
    ] = None
    budget_minutes: Annotated[
        float | None, typer.Option("--minutes", min=0, help="instead of epochs: minutes of training")
    ] = None
    image_size: Annotated[int | None, typer.Option(min=32, help="shorter side in pixels")] = None
    batch_size: Annotated[int | None, typer.Option(min=1)] = None
    lr_factor: Annotated[float | None, typer.Option(min=0, help="of every learning rate")] = None
    evaluations: Annotated[int | None, typer.Option(min=1, help="looks at recall")] = None
    ema: Annotated[
        float | None, typer.Option(min=0, max=1, help="decay of averaged weights, which are kept; 0: none")
    ] = None
    precision: Annotated[str | None, typer.Option(help="auto, float32, bfloat16 or float16")] = None
    seed: Annotated[int, typer.Option(min=0)] = 0
    name: Annotated[str | None, typer.Option(help="of the pretraining")] = None
    priority: Priority = 0


@dataclass(frozen=True, kw_only=True)
class Compare:
    """Was it worth it? Asked for with `--compare`."""

    compare: Annotated[
        str | None,
        typer.Option(
            help="label fractions, comma separated, e.g. 0.05,0.1: fine-tune with these from the pretrained "
            "weights and from what they started from; of a self-training, e.g. 1, with it and with the labels alone"
        ),
    ] = None
    compare_seeds: Annotated[int, typer.Option(min=1, help="subsets and fine-tunings of each")] = 3
    compare_with: Annotated[
        list[str] | None,
        typer.Option(help="another checkpoint to fine-tune as it is; again for more"),
    ] = None
    compare_self_training: Annotated[
        bool, typer.Option(help="another arm: the start as a student of what it becomes with the labels")
    ] = False
    compare_dataset: Annotated[
        str | None, typer.Option(help="with boxes, where the pretrained one has none")
    ] = None
    compare_recipe: Annotated[
        str | None, typer.Option(help="of every fine-tuning; quick where not given")
    ] = None
    compare_iterations: Annotated[int | None, typer.Option(min=1, help="of every fine-tuning")] = None
    compare_image_size: Annotated[int | None, typer.Option(min=32, help="of every fine-tuning")] = None

    def request(self, client: Client) -> Record | None:
        """As the service has it. Raises BadOptions."""
        if self.compare is None:
            return None
        try:
            fractions = [float(word) for word in split(self.compare) or []]
        except ValueError as wrong:
            raise BadOptions(f"--compare {self.compare}: write shares such as 0.05,0.1") from wrong
        others, _ = checkpoints_for(client, self.compare_with) if self.compare_with else ([], [])
        target = dataset_for(client, self.compare_dataset) if self.compare_dataset else None
        asked = {
            "label_fractions": fractions,
            "seeds": self.compare_seeds,
            "checkpoint_ids": [each["id"] for each in others],
            "self_training": self.compare_self_training,
            "dataset_id": target["id"] if target else None,
            "recipe": self.compare_recipe,
            "iterations": self.compare_iterations,
            "image_size": self.compare_image_size,
        }
        return {name: value for name, value in asked.items() if value is not None}


@dataclass(frozen=True, kw_only=True)
class PretrainingSelection(work.Selection):
    dataset_id: Annotated[str | None, typer.Option("--dataset", help="id of what was learned from")] = None


@dataclass(frozen=True, kw_only=True)
class PretrainingOutcome(work.OutcomeWithCsv):
    csv: Annotated[
        Path | None, typer.Option("--csv", help="also write losses and recall to this file", dir_okay=False)
    ] = None


PRETRAININGS = work.WorkGroup(
    name="pretraining",
    path="pretrainings",
    table=pretrainings,
    show=show_pretraining,
    wait=wait_for_pretraining,
    selection=PretrainingSelection,
    outcome=PretrainingOutcome,
    help=work.HelpTexts(
        list="Pretrainings, newest first.",
        show="One pretraining: how far it is, its recall, and whether it was worth it.",
        cancel="Stop a pretraining; what it has learned so far stays for a retry.",
        retry="Try a failed or cancelled pretraining again, from where it stopped.",
        delete="Delete a pretraining that has ended, with its verifications; its checkpoints stay.",
    ),
)
work.add_commands(group, PRETRAININGS)


@spread
def pretrain(
    ctx: typer.Context,
    dataset: Annotated[str, typer.Argument(help="id, name, archive or folder; labels are not read")],
    *,
    start: Start,
    pretraining: PretrainingOptions,
    compare: Compare,
    wait: Wait = True,
    outcome: PretrainingOutcome,
) -> None:
    """Have a detector learn from pictures without labels, and see whether it was worth it."""
    with connected(ctx, dataset) as client:
        target = dataset_for(client, dataset)
        record: Record = client.pretrainings.create(
            target["id"],
            compare=compare.request(client),
            **start.request(client),
            **vars(pretraining),
        )
        if wait:
            record = wait_for_pretraining(client, record)
        PRETRAININGS.answer(client, record, outcome)
        if wait:
            fail_unless_succeeded("pretraining", record)


@group.command()
def recipes(ctx: typer.Context, json: Json = False) -> None:
    """The ways to pretrain: for which detectors, how long, and where they were published."""
    with connected(ctx) as client:
        found = client.get("/v1/pretraining-recipes")
        if json:
            as_json(found)
            return
        for one in found["items"]:
            say(
                f"{one['name']}: {one['title']} ({one['epochs']:g} epochs, {one['max_proposals']} regions by "
                f"{one['proposals']}; {', '.join(one['architectures'])})"
            )
            say(f"    {one['help']} [{one['source']}]")
