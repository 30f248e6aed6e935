"""`detrank pseudo-label` and `detrank pseudo-labellings ...`"""

import json as json_of
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from app.cli.commands import work
from app.cli.commands.inputs import checkpoints_for, dataset_for
from app.cli.options import Json, Priority, Wait, numbers, split, spread
from app.cli.session import BadOptions, as_json, connected, fail_unless_succeeded, out
from app.cli.show.pseudo_labellings import pseudo_labellings, show_pseudo_labelling, show_review
from app.cli.waiting.work import wait_for_pseudo_labelling
from detrank import Client

Record = dict[str, Any]
# options that the request has under the same name
PLAIN = (
    "form",
    "architecture",
    "batch_size",
    "epochs",
    "least_pictures",
    "text_threshold",
    "overlap",
    "max_boxes",
    "confidence",
    "image_size",
    "seed",
    "name",
    "priority",
)
group = typer.Typer(no_args_is_help=True)


@dataclass(frozen=True, kw_only=True)
class TeacherOptions:
    """Who says where objects are."""

    teacher: Annotated[
        str,
        typer.Option(
            help="detector: one that was fine-tuned; image_labels: which classes a picture holds; words: a detector that finds what "
            "words name"
        ),
    ] = "detector"
    detector: Annotated[
        str | None, typer.Option(help="of the teacher detector: id, name, weights file, hf://...")
    ] = None
    backbone: Annotated[
        str | None, typer.Option(help="of the teacher image_labels: id, name, weights file, timm://...")
    ] = None
    proposals: Annotated[
        str | None,
        typer.Option(help="of image_labels, comma separated: selective_search, objectness, cuts"),
    ] = None
    layers: Annotated[str | None, typer.Option(help="of image_labels: maps of the body, comma separated")] = (
        None
    )
    epochs: Annotated[int | None, typer.Option(min=1, help="of image_labels")] = None
    least_pictures: Annotated[
        int | None,
        typer.Option(min=1, help="of image_labels: a class in fewer pictures is refused; 2 where not given"),
    ] = None
    form: Annotated[
        str | None,
        typer.Option(help="of image_labels: regions; or detr, which leaves a detector that needs no regions"),
    ] = None
    architecture: Annotated[
        str | None, typer.Option(help="of the form detr, for a fresh one: detr, deformable_detr")
    ] = None
    config: Annotated[
        str | None,
        typer.Option(help='of a fresh one: JSON of transformers\' configuration, e.g. {"num_queries": 100}'),
    ] = None
    batch_size: Annotated[int | None, typer.Option(min=1, help="of the form detr")] = None
    open_vocabulary: Annotated[
        str | None,
        typer.Option(help="of the teacher words: id, name, folder or archive of transformers, hf://..."),
    ] = None
    prompts: Annotated[
        list[str] | None,
        typer.Option(
            "--prompt",
            help='of words: a class and what is asked for it, "cat=a cat;a kitten"; a class alone asks for its name; again for '
            "more. All classes of the dataset where not given",
        ),
    ] = None
    text_threshold: Annotated[
        float | None, typer.Option(min=0, max=1, help="of words: what a prompt's own best token needs")
    ] = None
    overlap: Annotated[
        float | None, typer.Option(min=0, max=1, help="of words: IoU from which two boxes are one object")
    ] = None
    max_boxes: Annotated[int | None, typer.Option(min=1, max=300, help="of words: of a picture")] = None
    all_classes: Annotated[
        bool, typer.Option("--all-classes", help="of words: also those that a picture is not labelled with")
    ] = False
    classes: Annotated[
        list[str] | None,
        typer.Option("--class", help="class of the teacher = category of the dataset; again for more"),
    ] = None
    splits: Annotated[
        str | None,
        typer.Option(
            help="whose pictures get pseudo boxes, e.g. train,val; all where the dataset has no boxes"
        ),
    ] = None
    confidence: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="what a box needs; chosen on validation where not given"),
    ] = None
    image_size: Annotated[int | None, typer.Option(min=32, help="shorter side in pixels")] = None
    truth: Annotated[
        str | None, typer.Option(help="dataset with true boxes of some of the pictures, to measure by")
    ] = None
    seed: Annotated[int, typer.Option(min=0)] = 0
    name: Annotated[str | None, typer.Option(help="of the pseudo-labelling and of its dataset")] = None
    priority: Priority = 0

    def request(self, client: Client) -> Record:
        """As the service has it. Raises BadOptions."""
        fields: Record = {
            "teacher": self.teacher,
            "classes": self._classes(),
            "words": self._words(),
            "all_classes": self.all_classes or None,
            **{name: split(getattr(self, name)) for name in ("splits", "proposals", "layers")},
            "config": self._config(),
            **{name: getattr(self, name) for name in PLAIN},
        }
        teachers = {
            "detector_checkpoint": self.detector,
            "backbone_checkpoint": self.backbone,
            "words_checkpoint": self.open_vocabulary,
        }
        for name, word in teachers.items():
            if word is not None:
                (found,), _ = checkpoints_for(client, [word])
                fields[name] = found["id"]
        if self.truth is not None:
            fields["truth_dataset_id"] = dataset_for(client, self.truth)["id"]
        return fields

    def _config(self) -> Record | None:
        if self.config is None:
            return None
        try:
            return dict(json_of.loads(self.config))
        except (ValueError, TypeError):
            raise BadOptions(f'--config {self.config}: write JSON, such as {{"num_queries": 100}}') from None

    def _words(self) -> dict[str, list[str]] | None:
        if not self.prompts:
            return None
        found: dict[str, list[str]] = {}
        for word in self.prompts:
            name, sign, asked = word.partition("=")
            given = [prompt.strip() for prompt in asked.split(";") if prompt.strip()]
            if not name.strip() or (sign and not given):
                raise BadOptions(
                    f'--prompt {word}: write --prompt "cat=a cat;a kitten", or --prompt cat for its name'
                )
            found.setdefault(name.strip(), []).extend(given)
        return found

    def _classes(self) -> dict[str, str] | None:
        if not self.classes:
            return None
        pairs = [word.partition("=") for word in self.classes]
        for name, sign, category in pairs:
            if not (name.strip() and sign and category.strip()):
                raise BadOptions(f"--class {name}{sign}{category}: write --class person=pedestrian")
        return {name.strip(): category.strip() for name, _, category in pairs}


@dataclass(frozen=True, kw_only=True)
class PseudoLabellingSelection(work.Selection):
    dataset_id: Annotated[str | None, typer.Option("--dataset", help="id of whose pictures")] = None


PSEUDO_LABELLINGS = work.WorkGroup(
    name="pseudo-labelling",
    path="pseudo_labellings",
    table=pseudo_labellings,
    show=show_pseudo_labelling,
    wait=wait_for_pseudo_labelling,
    selection=PseudoLabellingSelection,
    help=work.HelpTexts(
        list="Pseudo-labellings, newest first.",
        show="One pseudo-labelling: the dataset that it made, and what its boxes are worth.",
        cancel="Stop a pseudo-labelling; what was seen in the pictures stays for a retry.",
        retry="Try a failed or cancelled pseudo-labelling again.",
        delete="Delete a pseudo-labelling that has ended; the dataset that it made stays.",
    ),
)
work.add_commands(group, PSEUDO_LABELLINGS)


@group.command()
def review(
    ctx: typer.Context,
    id: Annotated[str, typer.Argument(metavar="PSEUDO-LABELLING", help="its id")],
    accept: Annotated[
        str | None, typer.Option(help="numbers of boxes that are right, comma separated")
    ] = None,
    reject: Annotated[str | None, typer.Option(help="numbers of boxes that are not")] = None,
    missed: Annotated[
        list[str] | None, typer.Option(help="image id = objects without a box; again for more pictures")
    ] = None,
    export: Annotated[
        Path | None, typer.Option(help="write what is to be looked at to this COCO file", dir_okay=False)
    ] = None,
    read: Annotated[
        Path | None,
        typer.Option("--import", help="decide by that file, as a labelling tool has changed it", exists=True),
    ] = None,
    dataset: Annotated[
        str | None, typer.Option(help="name of a dataset to make of what was decided; its id is printed")
    ] = None,
    json: Json = False,
) -> None:
    """Look at 30 boxes, the most doubtful first, to know how many of all are right."""
    with connected(ctx) as client:
        resource = client.pseudo_labellings
        if export is not None:
            export.write_text(json_of.dumps(resource.review_coco(id)), encoding="utf-8")
        if read is not None:
            found = resource.decide_by_coco(id, _document(read))
        elif accept or reject or missed:
            items = [
                {"number": number, "decision": decision}
                for decision, words in (("accept", accept), ("reject", reject))
                for number in numbers(words or "")
            ]
            found = resource.decide(id, items=items, pictures=[_count(word) for word in missed or []])
        else:
            found = resource.review(id)
        if json:
            as_json(found)
        else:
            show_review(found)
        if dataset is not None:
            made = resource.reviewed_dataset(id, dataset)
            out.print(f"{made['id']}  {made['state']}")


def _document(path: Path) -> Record:
    try:
        found = json_of.loads(path.read_text(encoding="utf-8"))
    except ValueError as wrong:
        raise BadOptions(f"--import {path}: it is no JSON ({wrong})") from wrong
    return dict(found)


def _count(word: str) -> Record:
    image_id, sign, count = word.partition("=")
    if not (sign and image_id.strip().isdecimal() and count.strip().isdecimal()):
        raise BadOptions(f"--missed {word}: write an image id and how many, such as 17=2")
    return {"image_id": int(image_id), "missed": int(count)}


@spread
def pseudo_label(
    ctx: typer.Context,
    dataset: Annotated[str, typer.Argument(help="id, name, archive or folder")],
    *,
    teacher: TeacherOptions,
    wait: Wait = True,
    outcome: work.Outcome,
) -> None:
    """Have a teacher say where objects are: a dataset with pseudo boxes, to rank and train on."""
    with connected(ctx, dataset) as client:
        target = dataset_for(client, dataset)
        record: Record = client.pseudo_labellings.create(target["id"], **teacher.request(client))
        if wait:
            record = wait_for_pseudo_labelling(client, record)
        PSEUDO_LABELLINGS.answer(client, record, outcome)
        if wait:
            fail_unless_succeeded("pseudo-labelling", record)
