"""Job `verify`: fine-tune one checkpoint on a dataset by a recipe, and register what came of it."""

import dataclasses
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import torch
from sqlalchemy.orm import Session

import models_store
from app.db import tables
from app.errors import NotFound, VerificationFailed
from app.ids import new_id
from app.queue.states import ResourceState
from models_store.manifest import WEIGHTS_FILE
from worker.data.dataset import Dataset, open_dataset
from worker.data.pictures import BadPicture
from worker.data.subsets import Subset, Undrawable
from worker.device import choose_device
from worker.evaluation.errors import Unevaluable
from worker.files import scratch, unpacked_dataset
from worker.handlers import fine_tuned, reuse, several_processes
from worker.handlers.fine_tuned import Registered
from worker.handlers.several_processes import Watch
from worker.handlers.subset import drawn
from worker.handlers.training_part import Clock, concluded, concludes, only_times, splits_of
from worker.handlers.training_report import TrainingReport
from worker.handlers.training_state import StateKeeper, restore
from worker.models import models
from worker.step import JobView, Step
from worker.training import Plan, Trained, TrainingDiverged, Untrainable, plan_of, train

MOST_BETWEEN_STATES_S = 60.0


@dataclass(frozen=True)
class Records:
    """What the job works with, as it stood when the job began."""

    verification: tables.Verification
    checkpoint: tables.Checkpoint
    dataset: tables.Dataset


def run(step: Step, job: JobView) -> Callable[[Session], None]:
    """Trains from where the last attempt's state stands, evaluates, and stores weights and pictures.

    Returns the write of the result, with the new checkpoint. Raises VerificationFailed with the reason and what to
    change (`training_diverged`, `out_of_memory`, and the codes of the libraries), and NotFound.
    """
    records = _records(step, job)
    row = records.verification
    clock = Clock(row)
    report = TrainingReport(step, row.id)
    with ExitStack() as stack:
        folder = stack.enter_context(scratch(step.settings.scratch_dir))
        root = stack.enter_context(
            unpacked_dataset(
                step.settings.cache_dir / "datasets",
                step.store,
                records.dataset.archive_sha256,
                max_bytes=step.settings.dataset_cache_bytes,
                check=step.check,
            )
        )
        stack.enter_context(_refusals())
        report.stage("loading")
        models().forget()  # the whole device is needed
        dataset = open_dataset(root)
        subset = drawn(step, row.subset_id, dataset)
        checkpoint = _checkpoint_files(step, records.checkpoint, folder / "checkpoint")
        manifest = models_store.Manifest.from_json(records.checkpoint.manifest)
        plan = _plan(step, row, manifest, len(subset.image_ids))
        if same := reuse.found_equal(step, row, records.checkpoint, records.dataset, plan, subset):
            step.log(f"the same training has been done before, by {same.id}: its result is taken over")
            return reuse.taken_over(row, same)
        state = folder / "state"
        if restore(step, row, state):
            clock.goes_on_from(state)
            step.log(f"training goes on from iteration {row.state_iteration}")
        keeper = stack.enter_context(StateKeeper(step, row.id, state, folder))
        report.stage("training")
        splits = splits_of(row, dataset)
        clock.training()
        trained = _train(step, report, keeper, checkpoint, manifest, dataset, subset, splits, plan, state, folder)
        clock.trained()
        report.tell()
        if only_times(row):
            return _measured(row, trained, clock)
        if not concludes(row):
            keeper.keep_last(trained.iterations)
            return _paused(row, trained, clock)
        trained = concluded(trained, dataset, plan, splits["test"], step)
        if not reuse.keeps_weights(row):
            return _measured(row, trained, clock)
        report.stage("storing")
        found = fine_tuned.store(step, records, dataset, subset, plan, trained, folder)
    return _finished(records, trained, found, clock)


def _train(
    step: Step, report: TrainingReport, keeper: StateKeeper, checkpoint: Path, manifest: models_store.Manifest,
    dataset: Dataset, subset: Subset, splits: dict[str, list[int]], plan: Plan, state: Path, beside: Path,
) -> Trained:  # fmt: skip
    settings = step.settings
    device = choose_device(settings.device)
    how = {
        "device": device,
        "decode_threads": settings.decode_threads,
        "save_every_s": min(settings.training_state_s, MOST_BETWEEN_STATES_S),
    }
    processes = several_processes.processes_for(device, settings.train_processes)
    if processes > 1:
        step.log(f"training in {processes} processes")
        watch = Watch(report.progress, step.check, keeper.saved, report.point)
        return several_processes.train_in(
            processes, checkpoint, manifest, dataset, plan, subset, splits, state, beside, watch, **how
        )
    return train(
        models_store.load_detector(checkpoint),
        dataset,
        plan,
        train_ids=subset.image_ids,
        annotation_ids=subset.annotation_ids,
        val_ids=splits["val"],
        test_ids=splits["test"],
        folder=state,
        progress=report.progress,
        check=step.check,
        saved=keeper.saved,
        point=report.point,
        log=step.log,
        **how,
    )


def _plan(step: Step, row: tables.Verification, manifest: models_store.Manifest, images: int) -> Plan:
    """The plan of the first attempt, so that a later version goes on as it began; where to pause may be new."""
    asked = row.request
    if row.plan is not None:
        plan = Plan.from_json(row.plan)
    else:
        minutes = asked["budget_minutes"]
        plan = plan_of(
            asked["recipe"],
            manifest=manifest,
            images=images,
            epochs=asked["epochs"],
            iterations=asked["iterations"],
            budget_s=None if minutes is None else minutes * 60,
            **{name: asked[name] for name in OF_PLAN},
        )
        with step.writing() as session:
            session.get(tables.Verification, row.id).plan = plan.to_json()
    stop = row.stop_at or {}
    return dataclasses.replace(plan, stop_at_iterations=stop.get("iterations"), stop_at_s=stop.get("seconds"))


# fields of a request that a plan has under the same name
OF_PLAN = ("seed", "freeze", "image_size", "batch_size", "precision", "patience", "evaluations", "ema", "lr_factor")


def _paused(row: tables.Verification, trained: Trained, clock: Clock) -> Callable[[Session], None]:
    def finish(session: Session) -> None:
        _write_result(session.get(tables.Verification, row.id), trained, clock)

    return finish


def _measured(row: tables.Verification, trained: Trained, clock: Clock) -> Callable[[Session], None]:
    def finish(session: Session) -> None:
        found = session.get(tables.Verification, row.id)
        if found is not None:
            _write_result(found, trained, clock)
            found.state_sha256, found.state_iteration = None, None

    return finish


def _finished(
    records: Records, trained: Trained, found: Registered, clock: Clock
) -> Callable[[Session], None]:
    before = records.verification

    def finish(session: Session) -> None:
        row = session.get(tables.Verification, before.id)
        if row is None:
            return
        _write_result(row, trained, clock)
        row.pictures, row.plots = found.pictures, found.plots
        row.state_sha256, row.state_iteration = None, None  # the blob is an orphan now, and tidied
        row.trained_checkpoint_id = _register(session, records, found)

    return finish


def _write_result(row: tables.Verification, trained: Trained, clock: Clock) -> None:
    row.curves, row.seconds = trained.curves, trained.seconds
    row.result = {
        "val": trained.val.to_json(),
        "test": trained.test and trained.test.to_json(),
        "best": trained.best,
        "iterations": trained.iterations,
        "finished": trained.finished,
        "warnings": trained.warnings,
    }
    if row.stop_at is not None:
        row.result = row.result | clock.read(trained)


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
        manifest=manifest.to_json(),
        weights_sha256=found.weights_sha256,
        plain=found.plain,
        created_at=now,
        updated_at=now,
    )
    session.add(row)
    session.flush()
    return row.id


def _records(step: Step, job: JobView) -> Records:
    with step.database.reading() as session:
        row = session.get(tables.Verification, job.resource_id)
        checkpoint = session.get(tables.Checkpoint, row.checkpoint_id) if row else None
        dataset = session.get(tables.Dataset, row.dataset_id) if row else None
    if row is None or checkpoint is None or dataset is None:
        raise NotFound(f"the verification {job.resource_id}, its dataset or its checkpoint is gone")
    for what, name, file in (
        (checkpoint, "checkpoint", checkpoint.weights_sha256),
        (dataset, "dataset", dataset.archive_sha256),
    ):
        if not file:
            raise VerificationFailed(f"the {name} {what.id} is {what.state}; verify when it is ready")
    return Records(row, checkpoint, dataset)


def _checkpoint_files(step: Step, checkpoint: tables.Checkpoint, folder: Path) -> Path:
    folder.mkdir()
    (folder / WEIGHTS_FILE).symlink_to(step.store.local_path(checkpoint.weights_sha256))
    models_store.Manifest.from_json(checkpoint.manifest).write(folder)
    return folder


@contextmanager
def _refusals() -> Iterator[None]:
    """What the libraries refuse, as the failure of this verification."""
    try:
        yield
    except (models_store.Unusable, Untrainable, TrainingDiverged, Undrawable, Unevaluable) as refusal:
        raise VerificationFailed(refusal.detail, code=refusal.code) from refusal
    except BadPicture as refusal:
        raise VerificationFailed(str(refusal), code="bad_picture") from refusal
    except torch.OutOfMemoryError as failure:
        raise VerificationFailed(
            f"the device ran out of memory even with one image at a time: a smaller image_size needs less ({failure})"[:1000],
            code="out_of_memory",
        ) from failure
