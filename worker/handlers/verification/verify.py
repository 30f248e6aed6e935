"""Job `verify`: fine-tune one checkpoint on a dataset by a recipe, and register what came of it."""

import dataclasses
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from sqlalchemy.orm import Session

import models_store
from app.db import tables
from app.db.documents import Evaluation, VerificationResult
from app.errors import VerificationFailed
from app.ids import new_id
from app.queue.states import ResourceState
from worker.attempt import Attempt, ClaimedJob
from worker.data.dataset import Dataset, open_dataset
from worker.data.pictures import BadPicture
from worker.data.subsets import Undrawable
from worker.device import choose_device
from worker.evaluation.errors import Unevaluable
from worker.evaluation.evaluate import Evaluation as Evaluated
from worker.files import scratch
from worker.handlers.datasets import dataset_folder, left_out
from worker.handlers.inputs import checkpoint_folder, manifest_document, manifest_of
from worker.handlers.origin import origin_of
from worker.handlers.plans import plan_by
from worker.handlers.training_costs import keep_trained
from worker.handlers.verification import fine_tuned, reuse, several_processes
from worker.handlers.verification.fine_tuned import Registered
from worker.handlers.verification.inputs import Records, records_of
from worker.handlers.verification.other_test import measured, other_test
from worker.handlers.verification.subset import drawn
from worker.handlers.verification.taught import Lesson, taught, teacher_id_of
from worker.handlers.verification.training_part import Clock, concluded, concludes, only_times, splits_of
from worker.handlers.verification.training_report import TrainingReport
from worker.handlers.verification.training_state import StateKeeper, restore
from worker.models import models
from worker.pseudo_boxes.self_training import student_plan
from worker.training.errors import TrainingDiverged, Untrainable
from worker.training.fine_tune import train
from worker.training.inputs import Host, Ids, Watch
from worker.training.plan import Plan
from worker.training.trained import Trained

MOST_BETWEEN_STATES_S = 60.0


def run(attempt: Attempt, job: ClaimedJob) -> Callable[[Session], None]:
    """Trains from where the last attempt's state stands, evaluates, and stores weights and pictures.

    Returns the write of the result, with the new checkpoint. Raises VerificationFailed with the reason and what to
    change (`training_diverged`, `out_of_memory`, and the codes of the libraries), and NotFound.
    """
    records = records_of(attempt, job)
    row = records.verification
    clock = Clock(row)
    report = TrainingReport(attempt, row.id)
    with ExitStack() as stack:
        folder = stack.enter_context(scratch(attempt.settings.scratch_dir))
        stack.enter_context(_refusals())
        root = stack.enter_context(dataset_folder(attempt, records.dataset, partial(_wanted, attempt, row)))
        if missing := left_out(root, records.dataset):
            attempt.log(missing, "warning")
        report.stage("loading")
        models().forget()  # the whole device is needed
        dataset = open_dataset(root)
        subset = drawn(attempt, row.subset_id, dataset)
        checkpoint = checkpoint_folder(attempt, records.checkpoint, folder / "checkpoint")
        manifest = manifest_of(records.checkpoint)
        splits = splits_of(row, dataset)
        material, learned, student = dataset, subset, None
        if teacher_id_of(row) is not None:
            report.stage("teaching")
            student = taught(attempt, stack, row, dataset, subset, splits["val"], folder)
            material, learned, splits["val"] = student.dataset, student.subset, student.val_ids
        lesson = None if student is None else student.about
        plan = _plan(attempt, row, manifest, len(learned.image_ids))
        if same := reuse.found_equal(attempt, row, records.checkpoint, records.dataset, plan, subset):
            attempt.log(f"the same training has been done before, by {same.id}: its result is taken over")
            return reuse.taken_over(row, same)
        state = folder / "state"
        if restore(attempt, row, state):
            clock.goes_on_from(state)
            attempt.log(f"training goes on from iteration {row.state_iteration}")
        keeper = stack.enter_context(StateKeeper(attempt, row.id, state, folder))
        report.stage("training")
        other = stack.enter_context(other_test(attempt, row, dataset, [*learned.image_ids, *splits["val"]]))
        if other is not None:
            splits["test"] = []
        clock.training()
        ids = Ids(learned.image_ids, splits["val"], splits["test"], learned.annotation_ids)
        watch = Watch(report.progress, attempt.check, keeper.saved, report.point, attempt.log)
        trained = _train(attempt, checkpoint, manifest, material, plan, ids, folder, watch, student)
        clock.trained()
        report.tell()
        if lesson is None:
            with attempt.writing() as session:
                device = choose_device(attempt.settings.device)
                keep_trained(session, manifest, plan, trained, dataset, device)
        if only_times(row):
            return _measured(row, trained, clock, lesson)
        if not concludes(row):
            keeper.keep_last(trained.iterations)
            return _paused(row, trained, clock)
        trained = concluded(trained, dataset, plan, splits["test"], attempt)
        if other is not None:
            trained.test = measured(trained, other, plan, attempt)
        trained.warnings += _of_pseudo_boxes(attempt, records, other)
        if not reuse.keeps_weights(row):
            return _measured(row, trained, clock, lesson)
        report.stage("storing")
        found = fine_tuned.store(attempt, records, other or dataset, subset, plan, trained, lesson, folder)
    return _finished(records, trained, found, clock, lesson)


def _of_pseudo_boxes(attempt: Attempt, records: Records, other: Dataset | None) -> list[str]:
    """What has to be said where pseudo boxes are learned from, or measured on."""
    with attempt.database.reading() as session:
        warned = origin_of(session, records.dataset, [records.checkpoint.id])
    said = [each["detail"] for each in warned]
    if said and other is None:
        said.append(
            "validation, and test where its boxes are pseudo boxes, say how well the teacher is imitated: test_dataset_id "
            "names true boxes to measure on"
        )
    return said


def _wanted(attempt: Attempt, row: tables.Verification, dataset: Dataset) -> set[int]:
    """The images that are trained on, chosen by, and looked at once."""
    splits = splits_of(row, dataset)
    if teacher_id_of(row) is not None:
        return {image.id for image in dataset.images}
    return {*drawn(attempt, row.subset_id, dataset).image_ids, *splits["val"], *splits["test"]}


def _train(
    attempt: Attempt,
    checkpoint: Path,
    manifest: models_store.Manifest,
    dataset: Dataset,
    plan: Plan,
    ids: Ids,
    folder: Path,
    watch: Watch,
    student: Lesson | None,
) -> Trained:
    settings = attempt.settings
    device = choose_device(settings.device)
    host = Host(device, settings.decode_threads, min(settings.training_state_s, MOST_BETWEEN_STATES_S))
    processes = several_processes.processes_for(device, settings.train_processes)
    # other processes read the dataset from disk, without what a teacher said
    if processes > 1 and student is None:
        attempt.log(f"training in {processes} processes")
        return several_processes.train_in(
            processes, checkpoint, manifest, dataset, plan, ids, folder, host, watch
        )
    detector = models_store.load_detector(checkpoint)
    renewal = None if student is None else student.renewal
    return train(detector, dataset, plan, ids, folder / "state", host, watch, renewal)


def _plan(attempt: Attempt, row: tables.Verification, manifest: models_store.Manifest, images: int) -> Plan:
    """The plan of the first attempt, so that a later version goes on as it began; where to pause may be new."""
    asked = row.request
    if row.plan is not None:
        plan = Plan.from_json(row.plan)
    else:
        plan = plan_by(asked, manifest, images)
        if teacher_id_of(row) is not None:
            plan = student_plan(plan, images, mean_teacher=bool(asked.get("mean_teacher")))
        with attempt.writing() as session:
            session.get_one(tables.Verification, row.id).plan = plan.to_json()
    stop = row.stop_at
    return dataclasses.replace(
        plan,
        stop_at_iterations=stop["iterations"] if stop else None,
        stop_at_s=stop.get("seconds") if stop else None,
    )


def _paused(row: tables.Verification, trained: Trained, clock: Clock) -> Callable[[Session], None]:
    def finish(session: Session) -> None:
        _write_result(session.get_one(tables.Verification, row.id), trained, clock)

    return finish


def _measured(
    row: tables.Verification, trained: Trained, clock: Clock, lesson: dict[str, Any] | None
) -> Callable[[Session], None]:
    def finish(session: Session) -> None:
        found = session.get(tables.Verification, row.id)
        if found is not None:
            _write_result(found, trained, clock, lesson)
            found.state_sha256, found.state_iteration = None, None

    return finish


def _finished(
    records: Records, trained: Trained, found: Registered, clock: Clock, lesson: dict[str, Any] | None
) -> Callable[[Session], None]:
    before = records.verification

    def finish(session: Session) -> None:
        row = session.get(tables.Verification, before.id)
        if row is None:
            return
        _write_result(row, trained, clock, lesson)
        row.pictures, row.plots = found.pictures, found.plots
        row.state_sha256, row.state_iteration = None, None  # the blob is an orphan now, and tidied
        row.trained_checkpoint_id = _register(session, records, found)

    return finish


def _write_result(
    row: tables.Verification, trained: Trained, clock: Clock, lesson: dict[str, Any] | None = None
) -> None:
    row.curves, row.seconds = trained.curves, trained.seconds
    result: VerificationResult = {
        "val": _evaluation(trained.val),
        "test": None if trained.test is None else _evaluation(trained.test),
        "best": trained.best,
        "iterations": trained.iterations,
        "finished": trained.finished,
        "warnings": trained.warnings,
    }
    if lesson is not None:
        result["taught"] = lesson
    row.result = result if row.stop_at is None else {**result, **clock.read(trained)}


def _evaluation(found: Evaluated) -> Evaluation:
    # the science writes plain JSON, and knows nothing of the service's documents
    return cast(Evaluation, found.to_json())


def _register(session: Session, records: Records, found: Registered) -> str:
    """The fine-tuned weights as a checkpoint that is ready."""
    now, manifest = datetime.now(UTC), found.manifest
    row = tables.Checkpoint(
        id=new_id("ckpt"),
        workspace_id=records.verification.workspace_id,
        name=f"{records.checkpoint.name} on {records.dataset.name}"[:200],
        state=ResourceState.READY,
        request={"verification_id": records.verification.id},
        kind=manifest.kind,
        architecture=manifest.architecture,
        format=manifest.format,
        parameters=manifest.parameters,
        licence=records.checkpoint.licence,
        provenance=manifest.provenance,
        manifest=manifest_document(manifest),
        weights_sha256=found.weights_sha256,
        plain=found.plain,
        created_at=now,
        updated_at=now,
    )
    session.add(row)
    session.flush()
    return row.id


@contextmanager
def _refusals() -> Iterator[None]:
    """Turns refusals of the libraries into the failure of this verification."""
    try:
        yield
    except (models_store.Unusable, Untrainable, TrainingDiverged, Undrawable, Unevaluable) as refusal:
        raise VerificationFailed(refusal.detail, code=refusal.code) from refusal
    except BadPicture as refusal:
        raise VerificationFailed(str(refusal), code="bad_picture") from refusal
    except torch.OutOfMemoryError as failure:
        raise VerificationFailed(
            f"the device ran out of memory even with one image at a time: a smaller image_size needs less ({failure})"[
                :1000
            ],
            code="out_of_memory",
        ) from failure
