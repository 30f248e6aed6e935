"""Job `verify`: real, tiny trainings from the request to the registered checkpoint."""

import dataclasses
import io
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from handler_bench import Bench
from sqlalchemy import select
from sqlalchemy.orm import Session
from test_ingest_job import zipped

import models_store
from app.db.tables import Blob, Checkpoint, Event, Job, Subset, Verification
from app.errors import TransientFailure
from app.queue import verifications
from tests.documents import misfits
from tests.squares import squares
from worker.attempt import Cancelled
from worker.handlers.verification import several_processes, subset, training_report, verify
from worker.training.errors import TrainingDiverged, Untrainable

ASKED = {
    "name": None,
    "recipe": "quick",
    "epochs": None,
    "iterations": 8,
    "budget_minutes": None,
    "label_fraction": None,
    "shots": None,
    "subset_seed": 0,
    "freeze": None,
    "image_size": 64,
    "batch_size": 2,
    "precision": "float32",
    "patience": None,
    "evaluations": 2,
    "ema": 0.0,
    "lr_factor": None,
    "data_dependent_init": True,
    "dataset_id": "ds_1",
    "checkpoint_id": "ckpt_1",
    "seed": 0,
}


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of a bench with a ready dataset ds_1 and a ready checkpoint ckpt_1."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("original")
    bench = Bench(folder, f"sqlite:///{folder / 'detrank.db'}")
    job = bench.work(bench.dataset(zipped(squares(folder / "set"))))
    assert job.state == "succeeded", job.error
    torch.manual_seed(0)
    weights = io.BytesIO()
    torch.save(torchvision.models.mobilenet_v2().state_dict(), weights)
    job = bench.work(bench.checkpoint(weights.getvalue(), architecture="detrank/retinanet"))
    assert job.state == "succeeded", job.error
    bench.database.dispose()
    return folder


@pytest.fixture
def prepared(original: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    shutil.copytree(original, tmp_path / "copy")
    bench = Bench(tmp_path / "copy", f"sqlite:///{tmp_path / 'copy' / 'detrank.db'}")
    monkeypatch.setattr(training_report, "TELL_S", 0.0)
    yield bench
    with bench.database.reading() as session:
        assert misfits(session) == []
    bench.database.dispose()


def asked(bench: Bench, **changes: Any) -> Verification:
    def make(session: Session) -> Verification:
        return verifications.add(session, workspace_id="ws_1", request=ASKED | changes)

    return bench.add(make)


def kinds(bench: Bench, id: str, kind: str) -> list[dict]:
    with bench.database.reading() as session:
        query = select(Event.data).where(Event.stream_id == id, Event.kind == kind).order_by(Event.seq)
        return list(session.scalars(query))


def test_it_trains_tells_and_registers_what_it_made(prepared: Bench) -> None:
    made = asked(prepared)
    job = prepared.work(made.job_id)
    assert job.state == "succeeded", job.error
    row = prepared.get(Verification, made.id)
    assert (row.state, row.stage, row.state_sha256) == ("succeeded", None, None)
    assert row.result["finished"] == "completed"
    assert row.result["iterations"] == row.curves[-1]["iteration"] == 8
    for split in ("val", "test"):
        assert row.result[split]["images"] == 3
        assert 0 <= row.result[split]["box"]["map"] <= 1
    assert row.plan["iterations"] == 8
    assert row.seconds > 0
    assert [point["iteration"] for point in kinds(prepared, row.id, "curve")] == [
        p["iteration"] for p in row.curves
    ]
    assert [data["stage"] for data in kinds(prepared, row.id, "state") if data.get("stage")] == [
        "loading",
        "training",
        "storing",
    ]
    assert row.progress["total"] == 8

    trained = prepared.get(Checkpoint, row.trained_checkpoint_id)
    assert (trained.state, trained.kind, trained.manifest["class_names"]) == (
        "ready",
        "detector",
        ["red", "blue"],
    )
    lineage = trained.provenance
    assert lineage["parent"]["checkpoint_id"] == "ckpt_1"
    assert (lineage["recipe"], lineage["seed"], lineage["subset"]["kind"]) == ("quick", 0, "all")
    assert lineage["map"]["test"] == row.result["test"]["box"]["map"]
    assert lineage["data_dependent_init"] is row.plan["data_dependent_init"] is True
    assert trained.plain["library"] == "torchvision"
    assert "use.py" in trained.plain["texts"]
    assert prepared.get(Blob, trained.weights_sha256).size_bytes > 1_000_000
    *pictures, found = row.pictures
    for file in (*pictures, *row.plots):
        assert prepared.get(Blob, file["sha256"]).media_type == file["media_type"] == "image/png"
    with prepared.store.open(found["sha256"]) as stream:
        boxes = json.load(stream)
    assert (found["file_name"], boxes["categories"]) == ("predictions.json", ["red", "blue"])
    assert [image["split"] for image in boxes["images"]] == ["test"] * 3
    assert boxes["images"][0]["objects"]
    assert {file["file_name"] for file in row.plots} == {
        "learning.png",
        "precision-recall-test.png",
        "precision-recall-val.png",
    }
    assert {file["about"]["kind"] for file in pictures} == {"best", "worst"}
    assert prepared.left_behind() == []


def stopped_at(iteration: int, how: Callable[[], None], monkeypatch: pytest.MonkeyPatch) -> None:
    """Training stops when so many iterations are done."""
    whole = verify.train

    def train(*arguments: Any) -> Any:
        *others, watch, renewal = arguments

        def progress(done: int, total: int | None, message: str) -> None:
            watch.progress(done, total, message)
            if done == iteration:
                how()

        return whole(*others, dataclasses.replace(watch, progress=progress), renewal)

    monkeypatch.setattr(verify, "train", train)


class Killed(BaseException):
    pass


@pytest.mark.slow
def test_an_attempt_that_was_cut_off_is_gone_on_with_to_the_same_end(
    prepared: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    undisturbed, other = asked(prepared), asked(prepared)
    prepared.work(undisturbed.job_id)

    def die() -> None:
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(prepared.settings, "training_state_s", 0.0)
        stopped_at(5, die, patched)
        job = prepared.work(other.job_id)
    assert (job.state, job.attempt) == ("queued", 1), job.error
    kept = prepared.get(Verification, other.id)
    assert 0 < kept.state_iteration <= 5
    assert kept.state_sha256 is not None
    prepared.add(lambda session: setattr(session.get(Job, job.id), "not_before", None))
    job = prepared.work(other.job_id)
    assert job.state == "succeeded", job.error
    one, two = (prepared.get(Verification, row.id) for row in (undisturbed, other))
    assert one.result == two.result
    without_time = [[{**point, "seconds": None} for point in row.curves] for row in (one, two)]
    assert without_time[0] == without_time[1]
    weights = {prepared.get(Checkpoint, row.trained_checkpoint_id).weights_sha256 for row in (one, two)}
    assert len(weights) == 1


def test_cancelling_leaves_no_checkpoint_and_a_state_to_go_on_from(
    prepared: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepared.settings.training_state_s = 0.0
    made = asked(prepared)

    def cancel() -> None:
        raise Cancelled("as asked")

    stopped_at(3, cancel, monkeypatch)
    job = prepared.work(made.job_id)
    row = prepared.get(Verification, made.id)
    assert (job.state, row.state, row.trained_checkpoint_id, row.result) == (
        "cancelled",
        "cancelled",
        None,
        None,
    )
    assert row.state_sha256 is not None
    assert prepared.left_behind() == []


def test_losses_that_are_no_numbers_fail_with_what_to_change(prepared: Bench) -> None:
    made = asked(prepared, lr_factor=1e12, recipe="sgd_1x", iterations=30)
    job = prepared.work(made.job_id)
    row = prepared.get(Verification, made.id)
    assert (row.state, job.attempt) == ("failed", 1)
    assert row.error["code"] == "training_diverged"
    assert "lr_factor" in row.error["detail"]


def test_the_subset_is_drawn_once_and_read_by_everybody_after(
    prepared: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    short = {"shots": 3, "iterations": 2, "evaluations": 1}
    first = asked(prepared, **short)
    assert prepared.work(first.job_id).state == "succeeded"
    kept = prepared.get(Subset, first.subset_id)
    assert kept.coverage == {"red": 3, "blue": 3}
    assert len(kept.annotation_ids) == 6

    def another(*_: object, **__: object) -> None:
        raise AssertionError("it was drawn before")

    monkeypatch.setattr(subset, "draw", another)
    # of another seed, and from what the first one made
    trained = prepared.get(Verification, first.id).trained_checkpoint_id
    second = asked(prepared, **short, seed=1, checkpoint_id=trained)
    assert second.subset_id == first.subset_id
    assert prepared.work(second.job_id).state == "succeeded"
    assert prepared.get(Subset, kept.id).image_ids == kept.image_ids
    made = prepared.get(Checkpoint, prepared.get(Verification, second.id).trained_checkpoint_id)
    assert made.provenance["parent"]["checkpoint_id"] == trained
    assert models_store.Manifest.from_json(made.manifest).initialised_keys == ()


@pytest.mark.slow
def test_how_fresh_layers_begin_is_part_of_what_makes_trainings_equal(prepared: Bench) -> None:
    first = asked(prepared, iterations=1, evaluations=1)
    assert prepared.work(first.job_id).state == "succeeded"

    def as_of_before(session: Session) -> None:
        # there was no choice, and no word of it in plans and requests
        row = session.get(Verification, first.id)
        for name in ("plan", "request"):
            setattr(row, name, {k: v for k, v in getattr(row, name).items() if k != "data_dependent_init"})

    prepared.add(as_of_before)
    for asked_for, origin in ((True, None), (False, first.id)):
        again = asked(prepared, iterations=1, evaluations=1, reuse=True, data_dependent_init=asked_for)
        assert prepared.work(again.job_id).state == "succeeded"
        row = prepared.get(Verification, again.id)
        assert row.plan["data_dependent_init"] is asked_for
        assert row.result.get("reused_from") == origin
    # one that waited while the service was upgraded has the start of those that it is compared with
    waited = asked(prepared, iterations=1, evaluations=1)

    def without_a_word(session: Session) -> None:
        row = session.get(Verification, waited.id)
        row.request = {k: v for k, v in row.request.items() if k != "data_dependent_init"}

    prepared.add(without_a_word)
    assert prepared.work(waited.job_id).state == "succeeded"
    assert prepared.get(Verification, waited.id).plan["data_dependent_init"] is False


def test_a_pause_keeps_its_state_and_registers_nothing(prepared: Bench) -> None:
    made = asked(prepared)
    prepared.add(lambda session: setattr(session.get(Verification, made.id), "stop_at", {"iterations": 4}))
    assert prepared.work(made.job_id).state == "succeeded"
    row = prepared.get(Verification, made.id)
    assert (row.result["finished"], row.result["iterations"], row.state_iteration) == ("paused", 4, 4)
    assert (row.trained_checkpoint_id, row.result["test"]) == (None, None)

    def go_on(session: Session) -> str:
        again = session.get(Verification, made.id)
        verifications.go_on(session, again, session.get(Job, again.job_id), stop_at=None)
        return again.job_id

    job = prepared.work(prepared.add(go_on))
    assert job.state == "succeeded", job.error
    row = prepared.get(Verification, made.id)
    assert (row.state, row.result["finished"], row.result["iterations"]) == ("succeeded", "completed", 8)
    assert row.trained_checkpoint_id is not None


@pytest.mark.slow
def test_two_processes_train_as_one(prepared: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(several_processes, "processes_for", lambda device, asked: 2)
    prepared.settings.training_state_s = 0.0
    made = asked(prepared, iterations=4)
    job = prepared.work(made.job_id)
    assert job.state == "succeeded", job.error
    row = prepared.get(Verification, made.id)
    assert (row.result["iterations"], row.curves[-1]["iteration"], row.progress["done"]) == (4, 4, 4)
    assert [point["iteration"] for point in kinds(prepared, row.id, "curve")] == [
        point["iteration"] for point in row.curves
    ]
    lineage = prepared.get(Checkpoint, row.trained_checkpoint_id).provenance
    assert lineage["parent"]["checkpoint_id"] == "ckpt_1"
    assert str(prepared.settings.home) not in str(lineage)
    assert prepared.left_behind() == []


def test_what_processes_refuse_keeps_its_reason_and_what_killed_them_its_last_words(tmp_path: Path) -> None:
    refusal, log = tmp_path / "refusal.json", tmp_path / "log"
    log.write_text("x" * 5000 + "CUDA error: device lost")
    reason = several_processes._reason(refusal, log, -9)
    assert isinstance(reason, TransientFailure)
    assert reason.detail.endswith("device lost")
    assert len(reason.detail) < 2000
    for code, kind in (("training_diverged", TrainingDiverged), ("no_objects", Untrainable)):
        refusal.write_text(json.dumps({"code": code, "detail": "change this"}))
        reason = several_processes._reason(refusal, log, 1)
        assert (type(reason), reason.code, reason.detail) == (kind, code, "change this")
