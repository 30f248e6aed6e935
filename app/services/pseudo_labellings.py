"""Pseudo-labellings: making them."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy.orm import Session

from app.db.engine import database_now
from app.db.tables import Checkpoint, Dataset, Job, PseudoLabelling
from app.errors import Conflict, Fault, refuse, twice
from app.ids import new_id
from app.queue import tree
from app.queue.states import JobKind, JobState
from app.schemas.pseudo_labellings import PseudoLabellingCreate
from app.services.catalogue import catalogue
from app.services.checkpoints import unusable
from app.services.datasets import WITH_BOXES, ready, with_boxes
from app.services.listing import Listing
from app.services.pseudo_label_words import asked_words
from app.services.records import named
from app.settings import Settings

LISTING = Listing(PseudoLabelling, "pl", unread=("result", "curves", "pictures", "plots", "review"))
# pictures of one `look` job: some minutes of a core
PART = 250
MOST_PARTS = 64
SPLITS = ("train", "val", "test")
# the field that names what a teacher works with, and the settings that are its alone
CHECKPOINT_OF = {
    "detector": "detector_checkpoint",
    "image_labels": "backbone_checkpoint",
    "words": "words_checkpoint",
}
NEEDS = {
    "detector": "a detector that was fine-tuned",
    "image_labels": "a checkpoint with a body",
    "words": "an open-vocabulary detector",
}
OF_TEACHER = {
    "detector": ("confidence",),
    "image_labels": (
        "proposals",
        "layers",
        "epochs",
        "least_pictures",
        "form",
        "architecture",
        "config",
        "batch_size",
    ),
    "words": ("confidence", "text_threshold", "overlap", "max_boxes", "all_classes"),
}
# what else each may be told, which the request keeps in a form of its own
MAPPED = {"detector": ("classes",), "words": ("words",)}
OF_DETR = ("architecture", "config", "batch_size")
# what the form detr goes on with as it is
DETRS = tuple(
    f"{maker}/{name}" for maker in ("detrank", "transformers") for name in ("detr", "deformable_detr")
)
_SHOWN = 10


def create(
    session: Session, workspace_id: str, asked: PseudoLabellingCreate, settings: Settings
) -> PseudoLabelling:
    """A pseudo-labelling with its first jobs.

    Raises InvalidRequest naming each field at fault, Conflict for what cannot be used.
    """
    faults = twice("/splits", asked.splits or []) + _misplaced(asked)
    dataset = named(session, Dataset, workspace_id, asked.dataset_id, "/dataset_id", faults)
    field = CHECKPOINT_OF[asked.teacher]
    checkpoint = named(session, Checkpoint, workspace_id, getattr(asked, field), f"/{field}", faults)
    truth = named(session, Dataset, workspace_id, asked.truth_dataset_id, "/truth_dataset_id", faults)
    refuse(faults)
    ready(dataset)
    _refuse_pseudo(dataset)
    if why := unusable(checkpoint, asks_words=asked.teacher == "words"):
        raise Conflict(why, errors=[{"pointer": f"/{field}", "message": why}])
    if truth is not None:
        ready(truth)
        with_boxes(truth, "pseudo boxes are measured by true ones (truth_dataset_id)", "/truth_dataset_id")
        _refuse_pseudo(truth, "/truth_dataset_id")
    refuse(_unfit_for_detr(asked, checkpoint))
    splits = _splits(dataset, asked.splits)
    settings_of_teacher = {name: getattr(asked, name) for name in OF_TEACHER[asked.teacher]}
    if asked.teacher == "image_labels":
        settings_of_teacher["form"] = asked.form or "regions"
        settings_of_teacher["least_pictures"] = (
            asked.least_pictures or catalogue()["image_labels"]["least_pictures"]
        )
        _refuse_unlearnable(dataset, splits, settings_of_teacher["least_pictures"])
    classes: dict[str, str] = {}
    if asked.teacher == "words":
        settings_of_teacher["words"], categories = asked_words(asked, checkpoint, dataset)
    else:
        classes, categories = _classes(asked, checkpoint, dataset)
    request = settings_of_teacher | {
        "teacher": asked.teacher,
        "image_size": asked.image_size,
        "name": asked.name,
        "seed": asked.seed,
        "dataset_id": dataset.id,
        "dataset_name": dataset.name,
        "checkpoint_id": checkpoint.id,
        "checkpoint_name": checkpoint.name,
        "truth_dataset_id": truth.id if truth is not None else None,
        "splits": splits,
        "classes": classes,
        "categories": categories,
        "parts": max(1, min(MOST_PARTS, -(-_pictures(dataset, splits) // PART))),
    }
    row = PseudoLabelling(
        id=new_id("pl"),
        workspace_id=workspace_id,
        dataset_id=dataset.id,
        checkpoint_id=checkpoint.id,
        truth_dataset_id=request["truth_dataset_id"],
        state=JobState.QUEUED,
        request=request,
        created_at=database_now(session),
    )
    job = tree.begin(session, row, JobKind.PSEUDO_LABEL, max_attempts=settings.max_attempts)
    _add_looking(session, row, job)
    session.flush()
    return row


def _misplaced(asked: PseudoLabellingCreate) -> list[Fault]:
    """What the teacher lacks, and what is another teacher's."""
    faults: list[Fault] = []
    needed = CHECKPOINT_OF[asked.teacher]
    if getattr(asked, needed) is None:
        message = f"the teacher {asked.teacher} needs {NEEDS[asked.teacher]}: name its checkpoint"
        faults.append({"pointer": f"/{needed}", "message": message})
    whose: dict[str, list[str]] = {}
    for teacher, names in OF_TEACHER.items():
        for name in (CHECKPOINT_OF[teacher], *names, *MAPPED.get(teacher, ())):
            whose.setdefault(name, []).append(teacher)
    for name, teachers in whose.items():
        if asked.teacher not in teachers and getattr(asked, name) is not None:
            plural = "teachers" if len(teachers) > 1 else "teacher"
            message = f"{name} is of the {plural} {' and '.join(teachers)}: leave it out with {asked.teacher}"
            faults.append({"pointer": f"/{name}", "message": message})
    return faults + (_of_the_other_form(asked) if asked.teacher == "image_labels" else [])


def _of_the_other_form(asked: PseudoLabellingCreate) -> list[Fault]:
    form, other = (asked.form, ("layers",)) if asked.form == "detr" else ("regions", OF_DETR)
    return [
        {"pointer": f"/{name}", "message": f"{name} has no meaning in the form {form}: leave it out"}
        for name in other
        if getattr(asked, name) is not None
    ]


def _unfit_for_detr(asked: PseudoLabellingCreate, checkpoint: Checkpoint) -> list[Fault]:
    """What no DETR can be made of."""
    if asked.form != "detr":
        return []
    itself = asked.architecture is None and checkpoint.architecture in DETRS
    if itself and asked.config is not None:
        message = (
            "only a fresh detector can have another configuration: leave config out, or name an architecture"
        )
        return [{"pointer": "/config", "message": message}]
    if not itself and (checkpoint.manifest or {}).get("backbone") is None:
        message = (
            f"{checkpoint.architecture} has a body that cannot be placed in a DETR: give a backbone's checkpoint, such as a "
            f"classifier's, or one of {', '.join(DETRS)}"
        )
        return [{"pointer": "/backbone_checkpoint", "message": message}]
    return []


def _add_looking(session: Session, row: PseudoLabelling, job: Job) -> None:
    for part in range(row.request["parts"]):
        payload = {"part": part}
        tree.add(session, JobKind.LOOK, row.id, workspace_id=row.workspace_id, parent=job, payload=payload)


def _refuse_pseudo(dataset: Dataset, pointer: str = "/dataset_id") -> None:
    """Raises Conflict for boxes of a teacher, which would be taken for what people know."""
    if dataset.supervision == "pseudo_boxes":
        source = (
            dataset.lineage["dataset"]["id"] if dataset.lineage else "the dataset that they were made for"
        )
        message = f"the boxes of {dataset.id} are pseudo boxes themselves: give {source}"
        raise Conflict(message, errors=[{"pointer": pointer, "message": message}])


def _splits(dataset: Dataset, asked: Sequence[str] | None) -> list[str]:
    """Raises Conflict where no picture is in them."""
    there = (dataset.summary or {}).get("splits") or {}
    chosen = list(asked or (["train"] if dataset.supervision in WITH_BOXES else SPLITS))
    found = [split for split in SPLITS if split in chosen and split in there]
    if not found:
        message = (
            f"the dataset {dataset.id} has no pictures in {', '.join(chosen)}: {', '.join(there)} are there"
        )
        raise Conflict(message, errors=[{"pointer": "/splits", "message": message}])
    return found


def _pictures(dataset: Dataset, splits: Sequence[str]) -> int:
    there = (dataset.summary or {}).get("splits") or {}
    return sum(there[split]["images"] for split in splits)


def _classes(
    asked: PseudoLabellingCreate, checkpoint: Checkpoint, dataset: Dataset
) -> tuple[dict[str, str], list[str]]:
    """({class of the teacher: category}, categories of the new dataset).

    Raises InvalidRequest where they do not go together.
    """
    if asked.teacher == "image_labels":
        return {}, _labelled(dataset)
    names = list((checkpoint.manifest or {}).get("class_names") or [])
    if not names:
        message = (
            f"{checkpoint.name} ({checkpoint.id}) says no class of what it finds: give a detector that was fine-tuned, "
            "or its class names when it is registered"
        )
        refuse([{"pointer": "/detector_checkpoint", "message": message}])
    own = [each["name"] for each in (dataset.summary or {}).get("categories") or []]
    if asked.classes is not None and not asked.classes:
        message = f"classes is empty: leave it out, or say which of {_some(names)} is what"
        refuse([{"pointer": "/classes", "message": message}])
    if asked.classes is not None:
        refuse(_misnamed(asked.classes, names, own))
        return dict(asked.classes), own or list(dict.fromkeys(asked.classes.values()))
    if not own:
        return {name: name for name in names}, list(dict.fromkeys(names))
    by_name = {_plain(name): name for name in own}
    matched = {name: by_name[_plain(name)] for name in names if _plain(name) in by_name}
    if not matched:
        message = (
            f"the teacher finds {_some(names)} and the dataset has {_some(own)}: say which is which in classes, "
            f'such as {{"{names[0]}": "{own[0]}"}}'
        )
        refuse([{"pointer": "/classes", "message": message}])
    return matched, own


def _labelled(dataset: Dataset) -> list[str]:
    """The categories of a dataset whose pictures are known to hold them. Raises Conflict."""
    names = [each["name"] for each in (dataset.summary or {}).get("categories") or []]
    if dataset.supervision == "none" or not names:
        message = (
            f"no picture of {dataset.id} is labelled with a class: send a folder for each class, or a table of labels; or have "
            "a detector teach"
        )
        raise Conflict(message, errors=[{"pointer": "/dataset_id", "message": message}])
    return names


def _refuse_unlearnable(dataset: Dataset, splits: Sequence[str], least: int) -> None:
    """Raises Conflict, before anybody looks at a picture, where labels are known to be too few; of parts the worker knows."""
    summary = dataset.summary or {}
    categories = summary.get("categories") or []
    # its counts are of all splits, without what is set aside, which is a label all the same
    partly = set(splits) != set(summary.get("splits") or {}) or summary.get("crowd") or summary.get("ignored")
    if partly or any("images" not in each for each in categories):
        return
    counts = {each["name"]: each["images"] for each in categories}
    lonely = [f"{name} ({count})" for name, count in counts.items() if 0 < count < least]
    if counts and not any(counts.values()):
        message = f"none of the pictures of {dataset.id} has a label: there is no class to find in them"
    elif lonely:
        message = (
            f"too few pictures of {_some(lonely)}: what is common to the pictures of a class is learned, from at least {least}; "
            "send more, leave the class out, or set least_pictures to go on all the same"
        )
    else:
        return
    raise Conflict(message, errors=[{"pointer": "/dataset_id", "message": message}])


def _misnamed(classes: dict[str, str], names: Sequence[str], own: Sequence[str]) -> list[Fault]:
    faults: list[Fault] = []
    for given, category in classes.items():
        if given not in names:
            message = f"the teacher has no class {given!r}, it has {_some(names)}"
            faults.append({"pointer": "/classes", "message": message})
        if own and category not in own:
            message = f"the dataset has no category {category!r}, it has {_some(own)}"
            faults.append({"pointer": "/classes", "message": message})
    return faults


def _plain(name: str) -> str:
    return " ".join(name.casefold().replace("_", " ").replace("-", " ").split())


def _some(names: Sequence[Any]) -> str:
    more = len(names) - _SHOWN
    return ", ".join(map(str, names[:_SHOWN])) + (f" and {more} more" if more > 0 else "")
