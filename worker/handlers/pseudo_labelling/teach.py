"""Job `teach`: boxes for all pictures from what the teacher saw in them, what they are worth, and the dataset that they make."""

import time
from collections.abc import Callable
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

from sqlalchemy.orm import Session

from app.db import documents, tables
from app.errors import PseudoLabellingFailed
from app.ids import new_id
from app.queue.states import ResourceState
from app.storage.archives import pack
from worker.attempt import Attempt, ClaimedJob
from worker.data.dataset import Dataset, open_dataset
from worker.files import scratch
from worker.handlers.datasets import dataset_folder, every_image
from worker.handlers.inputs import ready
from worker.handlers.pseudo_labelling import detr_form
from worker.handlers.pseudo_labelling.inputs import looked_at, row_of, teacher_of, watching
from worker.handlers.pseudo_labelling.looks import gathered
from worker.handlers.pseudo_labelling.shown import attention_of, plots, proposals_of, shown
from worker.handlers.refusals import refusals
from worker.handlers.results import keep_file
from worker.pseudo_boxes.derived import SUPERVISION, Derived, derive
from worker.pseudo_boxes.image_label_detr import DetrTeacher
from worker.pseudo_boxes.pseudo_boxes import PseudoBoxes
from worker.pseudo_boxes.review import draw_review
from worker.pseudo_boxes.truth import Truth, own_truth, same_pictures
from worker.pseudo_boxes.worth import Weighed, weighed

FORMAT = "pseudo_labelling"
# of a request, what the boxes depend on
SETTINGS = (
    "splits",
    "classes",
    "proposals",
    "layers",
    "epochs",
    "least_pictures",
    "form",
    "architecture",
    "config",
    "batch_size",
    "words",
    "text_threshold",
    "overlap",
    "max_boxes",
    "all_classes",
    "image_size",
    "seed",
)


def run(attempt: Attempt, job: ClaimedJob) -> Callable[[Session], None]:
    """Stores the dataset; returns the write that makes it ready, with the result.

    Raises PseudoLabellingFailed with the reason and what to change, and NotFound.
    """
    with attempt.database.reading() as session:
        row = row_of(session, job)
    asked = row.request
    with ExitStack() as stack:
        folder = stack.enter_context(scratch(attempt.settings.scratch_dir))
        stack.enter_context(refusals(PseudoLabellingFailed))
        opened = {
            id: open_dataset(
                stack.enter_context(
                    dataset_folder(
                        attempt, ready(attempt, tables.Dataset, id, PseudoLabellingFailed), every_image
                    )
                )
            )
            for id in (asked["dataset_id"], asked["truth_dataset_id"])
            if id is not None
        }
        dataset = opened[asked["dataset_id"]]
        attempt.stage("loading")
        teacher = teacher_of(attempt, asked, folder)
        images = looked_at(dataset, asked)
        looked = gathered(attempt, dataset, images, teacher, asked["parts"], folder / "looked")
        # before hours of learning, for a truth of other pictures is refused
        truth = _truth(asked, dataset, opened.get(asked["truth_dataset_id"]))
        attempt.stage("teaching")
        began = time.perf_counter()
        learned = None
        if isinstance(teacher, DetrTeacher):
            learned = detr_form.learned(attempt, stack, row, dataset, looked, teacher, folder)
            said = learned.said
        else:
            said = teacher.say(dataset, looked, watching(attempt))
        seconds = time.perf_counter() - began
        detector = None
        if learned is not None and isinstance(teacher, DetrTeacher):
            detector = detr_form.kept(attempt, row, dataset, teacher, learned, truth, folder)
            said.about["detector"] = detector.worth
        worth = None if truth is None else weighed(said.found, truth)
        found = said.found if worth is None else worth.found
        attempt.stage("storing")
        lineage = _lineage(attempt, row, dataset, said)
        made = derive(
            dataset,
            tuple(asked["categories"]),
            found,
            asked["splits"],
            _empty(folder / "canonical"),
            description=f"pseudo boxes by {asked['teacher']} for {asked['dataset_name']}",
            lineage=cast(dict[str, Any], lineage),
            notes=_notes(said, worth),
            progress=lambda done, total: attempt.progress(done, total, "pictures"),
        )
        pack(folder / "canonical", folder / "canonical.zip")
        attempt.check()
        review = draw_review(open_dataset(folder / "canonical"), seed=asked["seed"])
        archive = keep_file(attempt, folder / "canonical.zip", "application/zip")
        previews: list[documents.Preview] = [
            {"sha256": keep_file(attempt, path, "image/jpeg"), "file_name": path.name}
            for path in made.previews
        ]
        pictures = shown(attempt, dataset, tuple(asked["categories"]), found, truth, folder)
        shown_ids = [each["about"]["image_id"] for each in pictures]
        pictures += proposals_of(attempt, dataset, looked, shown_ids, folder)
        pictures += attention_of(attempt, dataset, teacher, learned, shown_ids, folder)
        drawn = plots(attempt, worth, folder)
    result: documents.PseudoLabellingResult = {
        "teacher": _facts(said),
        "looked_at": len(images),
        "pictures": made.pictures,
        "boxes": made.boxes,
        "quality": _quality(asked, worth),
        "warnings": [*said.about.get("warnings", []), *([] if worth is None else worth.warnings)],
    }
    curves = [{"iteration": n} | point for n, point in enumerate(said.about.get("curves", []), 1)]

    def finish(session: Session) -> None:
        mine = session.get(tables.PseudoLabelling, row.id)
        if mine is None:
            return
        mine.made_dataset_id = _register(session, mine, made, lineage, archive, previews)
        if detector is not None:
            mine.trained_checkpoint_id = detr_form.registered(session, mine, detector)
            mine.state_sha256, mine.state_iteration = None, None
        mine.result, mine.seconds, mine.curves = result, round(seconds, 2), curves
        mine.pictures, mine.plots, mine.review = pictures, drawn, cast(documents.Review, review)

    return finish


def _truth(asked: dict[str, Any], dataset: Dataset, other: Dataset | None) -> Truth | None:
    """True boxes of the pictures that get pseudo boxes; None where none are known."""
    ids = [image.id for image in dataset.images if image.split in asked["splits"]]
    if other is not None:
        found = same_pictures(dataset, ids, asked["categories"], other)
        if not found.ids or not found.labels:
            raise PseudoLabellingFailed(
                f"of the {len(ids)} pictures {len(found.ids)} are in the truth dataset, with {len(found.labels)} categories "
                "of equal name: give one with the same files, or none",
                code="other_pictures",
            )
        return found
    return own_truth(dataset, ids) if dataset.supervision in ("boxes", "masks") else None


def _quality(asked: dict[str, Any], worth: Weighed | None) -> dict[str, Any] | None:
    if worth is None:
        return None
    whose = asked["truth_dataset_id"] or f"{asked['dataset_id']} itself"
    return {"measured_on": f"true boxes of {whose}, {', '.join(asked['splits'])}"} | worth.quality


def _notes(said: PseudoBoxes, worth: Weighed | None) -> tuple[str, ...]:
    notes = [f"{said.boxes} boxes were said by a teacher, not drawn by a person"]
    if worth is not None:
        precision, recall = (worth.quality[name] for name in ("precision", "recall"))
        notes.append(f"against true boxes at IoU 0.5: precision {_said(precision)}, recall {_said(recall)}")
    return tuple(notes)


def _said(share: float | None) -> str:
    return "undefined" if share is None else f"{share:.3f}"


def _lineage(
    attempt: Attempt, row: tables.PseudoLabelling, dataset: Dataset, said: PseudoBoxes
) -> documents.DatasetLineage:
    asked = row.request
    with attempt.database.reading() as session:
        checkpoint = session.get(tables.Checkpoint, asked["checkpoint_id"])
    return {
        "pseudo_labelling_id": row.id,
        "teacher": asked["teacher"],
        "dataset": {"id": asked["dataset_id"], "name": asked["dataset_name"], "digest": dataset.digest},
        "checkpoint": None
        if checkpoint is None
        else {"id": checkpoint.id, "name": checkpoint.name, "weights_sha256": checkpoint.weights_sha256},
        "settings": {name: asked[name] for name in SETTINGS if name in asked} | _facts(said),
    }


def _facts(said: PseudoBoxes) -> dict[str, Any]:
    """What the teacher chose and measured, without what has a place of its own; of lists of pictures how many they are."""
    return {
        name: len(value) if isinstance(value, list) else value
        for name, value in said.about.items()
        if name not in ("curves", "warnings")
    }


def _empty(folder: Path) -> Path:
    folder.mkdir()
    return folder


def _register(
    session: Session,
    row: tables.PseudoLabelling,
    made: Derived,
    lineage: documents.DatasetLineage,
    archive: str,
    previews: list[documents.Preview],
) -> str:
    """A dataset that is ready; its id."""
    now = datetime.now(UTC)
    name = row.request["name"] or f"{row.request['dataset_name']}, pseudo boxes by {row.request['teacher']}"
    dataset = tables.Dataset(
        id=new_id("ds"),
        workspace_id=row.workspace_id,
        name=name[:200],
        state=ResourceState.READY,
        request={"pseudo_labelling_id": row.id},
        format=FORMAT,
        supervision=SUPERVISION,
        digest=made.digest,
        archive_sha256=archive,
        # the library writes plain JSON, and knows nothing of the service's documents
        summary=cast(documents.DatasetSummary, made.summary),
        report=made.report,
        previews=previews,
        lineage=lineage,
        created_at=now,
        updated_at=now,
    )
    session.add(dataset)
    session.flush()
    return dataset.id
