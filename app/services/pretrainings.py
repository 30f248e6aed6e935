"""Pretrainings: making them, and the recipes that there are.

`app/catalogue.json` has {"pretraining": {"recipes": [...], "proposals": [...], "searched": [...], "least_pictures": n,
"mean_decay": x, "families": {architecture: model type}}}.
"""

from fnmatch import fnmatchcase
from typing import Any

from sqlalchemy.orm import Session

from app.db.engine import database_now
from app.db.tables import Checkpoint, Dataset, Job, Pretraining
from app.errors import Conflict, Fault, refuse
from app.ids import new_id
from app.queue import tree
from app.queue.states import JobKind, JobState
from app.schemas.pretrainings import PretrainingCreate
from app.services import pretraining_comparisons, self_trainings
from app.services.catalogue import catalogue, unknown
from app.services.checkpoints import unusable
from app.services.datasets import ready
from app.services.listing import Listing
from app.services.records import named
from app.settings import Settings

LISTING = Listing(Pretraining, "pt", unread=("result", "curves", "plan", "pictures", "plots"))
BUDGETS = ("epochs", "iterations", "budget_minutes")
# pictures of one `propose` job: some minutes of a core
PART = 1000
MOST_PARTS = 64
OF_REQUEST = (
    "iterations",
    "budget_minutes",
    "lr_factor",
    "seed",
    "name",
    "config",
    "architecture",
    "image_size",
)


def known() -> dict[str, Any]:
    return catalogue()["pretraining"]


def create(session: Session, workspace_id: str, asked: PretrainingCreate, settings: Settings) -> Pretraining:
    """A pretraining with its first jobs.

    Raises InvalidRequest naming each field at fault, Conflict for what cannot be used.
    """
    if asked.method == self_trainings.SELF_TRAINING:
        return self_trainings.create(session, workspace_id, asked, settings)
    faults = _faults(asked, settings)
    dataset = named(session, Dataset, workspace_id, asked.dataset_id, "/dataset_id", faults)
    start = named(session, Checkpoint, workspace_id, asked.from_checkpoint, "/from_checkpoint", faults)
    encoder = named(
        session, Checkpoint, workspace_id, asked.encoder_checkpoint, "/encoder_checkpoint", faults
    )
    refuse(faults)
    ready(dataset)
    for checkpoint, field in ((start, "from_checkpoint"), (encoder, "encoder_checkpoint")):
        if checkpoint is not None and (why := unusable(checkpoint)):
            raise Conflict(why, errors=[{"pointer": f"/{field}", "message": why}])
    pictures = _pictures(dataset)
    architecture = start.architecture if start is not None else f"detrank/{asked.architecture}"
    recipe = _recipe(asked.recipe, architecture)
    faults = _unfit(asked, start, encoder, architecture, recipe)
    refuse(faults)
    request = _request(asked, recipe) | {
        "method": asked.method,
        "dataset_id": dataset.id,
        "dataset_name": dataset.name,
        "from_checkpoint_id": start.id if start is not None else None,
        "encoder_checkpoint_id": encoder.id if encoder is not None else None,
        "start_name": start.name if start is not None else f"{encoder.name} in a fresh {asked.architecture}",
        "parts": max(1, min(MOST_PARTS, -(-pictures // PART))),
        "compare": pretraining_comparisons.of(
            session,
            workspace_id,
            asked.compare,
            dataset,
            [("/compare/recipe", architecture, "what is pretrained")],
            settings,
        ),
    }
    row = Pretraining(
        id=new_id("pt"),
        workspace_id=workspace_id,
        dataset_id=dataset.id,
        start_checkpoint_id=request["from_checkpoint_id"],
        encoder_checkpoint_id=request["encoder_checkpoint_id"],
        state=JobState.QUEUED,
        request=request,
        created_at=database_now(session),
    )
    job = tree.begin(session, row, JobKind.PRETRAIN, max_attempts=settings.max_attempts)
    _add_proposing(session, row, job)
    session.flush()
    return row


def _add_proposing(session: Session, row: Pretraining, job: Job) -> None:
    if row.request["proposals"] not in known()["searched"]:
        return
    for part in range(row.request["parts"]):
        tree.add(
            session,
            JobKind.PROPOSE,
            row.id,
            workspace_id=row.workspace_id,
            parent=job,
            payload={"part": part},
        )


def _faults(asked: PretrainingCreate, settings: Settings) -> list[Fault]:
    """What is wrong whatever the dataset and the checkpoints are."""
    faults = self_trainings.misplaced(asked, self_trainings.ONLY_SELF_TRAINING)
    names = [one["name"] for one in known()["recipes"]]
    for field, value, choices, what in (
        ("recipe", asked.recipe, names, "pretraining recipe"),
        ("proposals", asked.proposals, known()["proposals"], "kind of proposals"),
        ("precision", asked.precision, catalogue()["training"]["precisions"], "precision"),
    ):
        if value is not None and value not in choices:
            faults.append({"pointer": f"/{field}", "message": unknown(what, value, choices)})
    budgets = [name for name in BUDGETS if getattr(asked, name) is not None]
    if len(budgets) > 1:
        message = f"give one budget, not {' and '.join(budgets)}"
        faults += [{"pointer": f"/{name}", "message": message} for name in budgets[1:]]
    if asked.budget_minutes is not None and asked.budget_minutes > settings.verify_time_limit_s / 60:
        message = (
            f"a training may take {settings.verify_time_limit_s / 60:g} minutes in all "
            "(DETRANK_VERIFY_TIME_LIMIT_S); ask for less"
        )
        faults.append({"pointer": "/budget_minutes", "message": message})
    if (asked.from_checkpoint is None) == (asked.architecture is None):
        faults.append(
            {
                "pointer": "/from_checkpoint",
                "message": "give a detector to go on with (from_checkpoint) or an architecture for a fresh one, not both",
            }
        )
    elif asked.architecture is not None and asked.encoder_checkpoint is None:
        message = "a fresh detector needs a body: give the backbone's checkpoint as encoder_checkpoint"
        faults.append({"pointer": "/encoder_checkpoint", "message": message})
    if asked.config is not None and asked.architecture is None:
        message = "only a fresh detector can have another configuration: leave it out with from_checkpoint"
        faults.append({"pointer": "/config", "message": message})
    return faults


def _pictures(dataset: Dataset) -> int:
    """Raises Conflict where the training split is too small to learn from."""
    splits = (dataset.summary or {}).get("splits") or {}
    train, least = (splits["train"]["images"] if "train" in splits else 0), known()["least_pictures"]
    if train < least:
        message = (
            f"the dataset {dataset.id} has {train} training pictures, at least {least} are needed: "
            "send more, without labels"
        )
        raise Conflict(message, errors=[{"pointer": "/dataset_id", "message": message}])
    return sum(each["images"] for each in splits.values())


def _recipe(asked: str | None, architecture: str) -> str:
    fitting = [one["name"] for one in known()["recipes"] if _fits(one, architecture)]
    return asked or next((name for name in known()["defaults"] if name in fitting), known()["defaults"][0])


def _fits(recipe: dict[str, Any], architecture: str) -> bool:
    return any(fnmatchcase(architecture, pattern) for pattern in recipe["architectures"])


def _unfit(
    asked: PretrainingCreate,
    start: Checkpoint | None,
    encoder: Checkpoint | None,
    architecture: str,
    recipe: str,
) -> list[Fault]:
    """What does not go together."""
    faults: list[Fault] = []
    able = known()["architectures"]
    if architecture not in able:
        message = f"{architecture} has no queries that an embedding head could read: pretrain one of {', '.join(able)}"
        return [{"pointer": "/from_checkpoint", "message": message}]
    entry = next(one for one in known()["recipes"] if one["name"] == recipe)
    if not _fits(entry, architecture):
        fitting = [one["name"] for one in known()["recipes"] if _fits(one, architecture)]
        message = f"the recipe {recipe} does not fit {architecture}; those that do: {', '.join(fitting)}"
        faults.append({"pointer": "/recipe", "message": message})
    layer = asked.embedding_layer or entry["embedding_layer"]
    source = encoder or start
    if source is None:
        raise AssertionError("something to start from is asked for before")
    maps = [one["name"] for one in (source.manifest or {}).get("layers", []) if one.get("kind") == "map"]
    if layer not in maps:
        message = f"{source.architecture} gives no map {layer!r} for a region's vector: {', '.join(maps)}"
        faults.append({"pointer": "/embedding_layer", "message": message})
    if asked.architecture is not None and encoder is not None:
        backbone = (encoder.manifest or {}).get("backbone")
        if backbone is None:
            message = (
                f"{encoder.architecture} has a body that cannot be placed in another detector: give a backbone's "
                "checkpoint, or pretrain the detector itself (from_checkpoint)"
            )
            faults.append({"pointer": "/encoder_checkpoint", "message": message})
    return faults


def _request(asked: PretrainingCreate, recipe: str) -> dict[str, Any]:
    entry = next(one for one in known()["recipes"] if one["name"] == recipe)
    given = {name: getattr(asked, name) for name in OF_REQUEST}
    own = ("proposals", "max_proposals", "embedding_layer", "batch_size", "evaluations", "ema")
    filled = {name: entry[name] if (value := getattr(asked, name)) is None else value for name in own}
    epochs = asked.epochs
    if all(getattr(asked, name) is None for name in BUDGETS):
        epochs = entry["epochs"]
    if asked.image_size is None:
        given["image_size"] = entry["image_size"]
    # as often as the recipe has it only over its whole length
    if asked.evaluations is None and epochs != entry["epochs"]:
        filled["evaluations"] = None
    return given | filled | {"recipe": recipe, "epochs": epochs, "precision": asked.precision or "auto"}
