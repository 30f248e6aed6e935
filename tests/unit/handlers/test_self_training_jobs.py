"""A self-training from the request to the last student: real, tiny jobs, with a teacher that sees what is there."""

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch
from handler_bench import Bench
from small_service import OPTIONS, _called, copied, queued, work_all
from sqlalchemy import delete, select
from test_ingest_job import zipped
from timm import create_model

from app.db.tables import Checkpoint, Dataset, Event, FeatureFile, Job, Pretraining, Verification
from app.errors import Conflict
from app.queue.beliefs import counts
from app.schemas.pretrainings import PretrainingCreate
from app.schemas.verifications import VerificationCreate
from app.services import pretraining_views, pretrainings, verifications, works
from tests.documents import misfits
from tests.squares import squares
from worker.evaluation.prediction import Prediction
from worker.handlers.verification import verify
from worker.pseudo_boxes import detector
from worker.pseudo_boxes.self_training import RENEWED_FROM, STRONGER

LABELLED, BARE = "ds_" + "1" * 32, "ds_" + "2" * 32
BODY = "ckpt_" + "1" * 32
TERMS: dict[str, Any] = {
    "recipe": "quick",
    "iterations": 2,
    "image_size": 64,
    "batch_size": 2,
    "evaluations": 1,
    "precision": "float32",
}
# of the 24 pictures to be taught 14 are also in the labelled dataset, for `squares` begins with the same ones
NEW, SAME = 10, 14


class Seeing:
    """Finds the squares by their colour; stands for `predictions_of` of a teacher."""

    def __init__(self) -> None:
        self.looks = 0

    def __call__(self, teacher: Any, images: Any, *_: Any, **__: Any) -> list[Prediction]:
        self.looks += len(images)
        return [self._found(image, teacher.manifest.class_names) for image in images]

    def _found(self, image: Any, names: tuple[str, ...]) -> Prediction:
        pixels = np.asarray(PIL.Image.open(image.path).convert("RGB")).astype(int)
        boxes, labels = [], []
        for label, name in enumerate(names):
            y, x = np.nonzero(pixels[..., {"red": 0, "blue": 2}[name]] > 200)
            boxes.append([x.min(), y.min(), x.max() + 1, y.max() + 1])
            labels.append(label)
        return Prediction(image.id, np.array(boxes, float), np.full(len(boxes), 0.9), np.array(labels))


class Blind(Seeing):
    def _found(self, image: Any, names: tuple[str, ...]) -> Prediction:
        return Prediction(image.id, np.zeros((0, 4)), np.zeros(0), np.zeros(0, np.int64))


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of a bench with a labelled dataset, one whose labels nobody may read, and the checkpoint of a tiny body."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("self-training") / "original"
    bench = Bench(folder, f"sqlite:///{folder / 'detrank.db'}")
    for id, images in ((LABELLED, 8), (BARE, NEW + SAME)):
        job = bench.work(bench.dataset(zipped(squares(folder / f"set{images}", images=images))))
        assert job.state == "succeeded", job.error
        _called(bench, Dataset, job.resource_id, id)
    torch.manual_seed(0)
    weights = io.BytesIO()
    torch.save(create_model("test_resnet").state_dict(), weights)
    job = bench.work(bench.checkpoint(weights.getvalue(), architecture="timm/test_resnet", options=OPTIONS))
    assert job.state == "succeeded", job.error
    _called(bench, Checkpoint, job.resource_id, BODY)
    bench.database.dispose()
    return folder


@pytest.fixture
def bench(original: Path, tmp_path: Path) -> Iterator[Bench]:
    made = copied(original, tmp_path / "copy")
    yield made
    made.database.dispose()


@pytest.fixture
def seeing(monkeypatch: pytest.MonkeyPatch) -> Seeing:
    made = Seeing()
    monkeypatch.setattr(detector, "predictions_of", made)
    return made


def verified(bench: Bench, **changes: Any) -> Verification:
    body = VerificationCreate(dataset_id=LABELLED, checkpoint_id=BODY, **(TERMS | changes))
    row = bench.add(lambda session: verifications.create(session, "ws_1", body, bench.settings))
    job = bench.work(row.job_id)
    assert job.state == "succeeded", job.error
    return bench.get(Verification, row.id)


def asked(bench: Bench, **changes: Any) -> Pretraining:
    body = {"method": "self_training", "dataset_id": BARE, "labelled_dataset_id": LABELLED}
    made = PretrainingCreate(**(body | changes))
    return bench.add(lambda session: pretrainings.create(session, "ws_1", made, bench.settings))


def view(bench: Bench, id: str) -> Any:
    with bench.database.reading() as session:
        return pretraining_views.view(session, session.get_one(Pretraining, id))


@pytest.mark.slow
def test_rounds_of_students_and_what_they_gain(bench: Bench, seeing: Seeing) -> None:
    teacher = verified(bench)
    row = asked(bench, rounds=2, ema=0.9, seed=3, mean_teacher=True, compare={"seeds": 2})
    asked_for = row.request
    # the best verified one teaches, and its terms are those of the student
    assert asked_for["teacher_checkpoint_id"] == teacher.trained_checkpoint_id
    assert (asked_for["from_checkpoint_id"], asked_for["teacher_verification_id"]) == (BODY, teacher.id)
    assert {name: asked_for["terms"][name] for name in TERMS} == TERMS
    assert (asked_for["terms"]["ema"], asked_for["compare"]["label_fractions"]) == (0.9, [1.0])
    assert asked_for["compare"]["terms"] == asked_for["terms"]
    done = work_all(bench)
    steps = [["pretrain", "verify"], ["pretrain", "verify"], ["pretrain", "verify", "verify"]]
    steps += [["pretrain", "verify", "verify"], ["pretrain"]]
    assert [job.kind for job in done] == [kind for step in steps for kind in step]
    found = view(bench, row.id)
    assert (found.state, found.method, found.proposals) == ("succeeded", "self_training", None), found.error

    first, second = found.self_training.rounds
    assert first.teacher_checkpoint_id == teacher.trained_checkpoint_id
    assert second.teacher_checkpoint_id == first.trained_checkpoint_id
    assert found.trained_checkpoint_id == second.trained_checkpoint_id
    for one in (first, second):
        assert (one.pictures, one.boxes, one.unlabelled_pictures) == (NEW, 2 * NEW, NEW)
        assert (one.equal_content, one.f1, one.split) == (SAME, 1.0, "test")
    assert found.self_training.teacher == {
        "checkpoint_id": teacher.trained_checkpoint_id,
        "verification_id": teacher.id,
        "map": teacher.map,
        "ap50": teacher.ap50,
        "split": "test",
    }
    assert (found.trained_on, found.held_out, found.iterations) == (8 + NEW, {"equal_content": SAME}, 2)
    assert len(found.verification_ids) == 6
    assert found.plots
    assert {file.url.rsplit(".", 1)[1] for file in found.pictures} == {"png"}

    # what it learned from, and under what
    student = bench.get(Verification, second.verification_id)
    assert student.plan["images"] == 8 + NEW
    assert student.plan["ema"] == 0.9
    # a mean teacher in every student, and in nobody else
    with bench.database.reading() as session:
        whose = {
            "teacher_checkpoint_id" in one.request: one.plan["renewed_from"]
            for one in session.scalars(select(Verification))
        }
    assert whose == {True: RENEWED_FROM, False: None}
    assert student.plan["recipe"]["augmentation"]["crop"] == STRONGER.crop
    made = bench.get(Checkpoint, found.trained_checkpoint_id)
    assert made.provenance["parent"]["checkpoint_id"] == BODY
    assert made.provenance["taught"]["checkpoint_id"] == first.trained_checkpoint_id
    assert made.provenance["taught"]["unlabelled_dataset_id"] == BARE

    arms = {one.arm: one for one in found.comparison.arms}
    assert set(arms) == {"self_training", "start"}
    assert set(arms["self_training"].by_seed["map"]) == {"0", "1"}
    (gain,) = found.comparison.gains
    assert (gain.against, gain.ap50.n) == ("start", 2)
    assert "the labels alone" in found.comparison.verdict[0]
    assert found.cost["training_s"] > 0
    assert found.cost["comparing_s"] > 0
    with bench.database.reading() as session:
        assert misfits(session) == []
        # a belief takes no student for what labels alone make of a checkpoint
        counted = set(session.scalars(select(Verification.id).where(counts())))
        every = session.scalars(select(Verification)).all()
        assert counted == {one.id for one in every if "teacher_checkpoint_id" not in one.request}
    assert bench.left_behind() == []

    with bench.database.unit_of_work() as session:
        works.remove(session, "ws_1", Pretraining, row.id)
    assert bench.get(Verification, first.verification_id) is None
    assert bench.get(Checkpoint, made.id) is not None


@pytest.mark.slow
def test_a_teacher_that_finds_nothing_is_the_failure_of_the_whole_and_it_can_be_tried_again(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    verified(bench)
    monkeypatch.setattr(detector, "predictions_of", Blind())
    row = asked(bench)
    work_all(bench)
    found = view(bench, row.id)
    assert (found.state, found.error["code"], found.trained_checkpoint_id) == (
        "failed",
        "no_pseudo_boxes",
        None,
    )
    assert "the student of round 1" in found.error["detail"]
    assert "fine-tune it longer" in found.error["detail"]

    seeing = Seeing()
    monkeypatch.setattr(detector, "predictions_of", seeing)
    with bench.database.unit_of_work() as session:
        session.execute(delete(FeatureFile))  # else what the blind one saw is found again
        works.retry(session, "ws_1", Pretraining, row.id)
    done = work_all(bench)
    assert [job.kind for job in done] == ["verify", "pretrain"]
    found = view(bench, row.id)
    assert found.state == "succeeded", found.error
    assert found.comparison is None
    assert seeing.looks == NEW + 3


def test_pictures_that_have_labels_or_are_measured_on_teach_nobody(bench: Bench, seeing: Seeing) -> None:
    verified(bench)
    with bench.database.unit_of_work() as session:
        # the pictures of the labelled dataset again, under another record
        copy = session.get_one(Dataset, LABELLED)
        bare = session.get_one(Dataset, BARE)
        bare.archive_sha256, bare.digest, bare.summary = copy.archive_sha256, copy.digest, copy.summary
    row = asked(bench)
    work_all(bench)
    found = view(bench, row.id)
    assert (found.state, found.error["code"]) == ("failed", "no_unlabelled")
    assert "not in the labelled dataset" in found.error["detail"]
    assert seeing.looks == 0


def test_pseudo_boxes_choose_no_weights_where_there_is_no_validation(
    bench: Bench, seeing: Seeing, monkeypatch: pytest.MonkeyPatch
) -> None:
    verified(bench)
    splits_of, train, chosen = verify.splits_of, verify.train, []
    monkeypatch.setattr(verify, "splits_of", lambda *of: splits_of(*of) | {"val": []})

    def watched(detector: Any, dataset: Any, plan: Any, ids: Any, *rest: Any) -> Any:
        labelled = [image.id for image in dataset.images if image.split == "train"][:8]
        chosen.append((set(ids.val) <= set(labelled), len(ids.val), set(ids.val) & set(ids.train)))
        return train(detector, dataset, plan, ids, *rest)

    monkeypatch.setattr(verify, "train", watched)
    row = asked(bench)
    work_all(bench)
    found = view(bench, row.id)
    assert found.state == "succeeded", found.error
    # of the eight pictures with labels one chooses; all that the teacher spoke of are learned from
    assert chosen == [(True, 1, set())]
    with bench.database.reading() as session:
        student = session.get_one(Verification, found.self_training.rounds[0].verification_id)
    lesson = student.result["taught"]
    assert (lesson["labelled_pictures"], lesson["pictures"], student.plan["images"]) == (7, NEW, 7 + NEW)


def test_without_a_verified_detector_nobody_teaches(bench: Bench) -> None:
    with pytest.raises(Conflict, match="no detector was fine-tuned on ds_"):
        asked(bench)
    with bench.database.reading() as session:
        assert not session.scalars(select(Job).where(Job.kind == "pretrain")).all()


@pytest.mark.slow
def test_another_attempt_looks_at_nothing_again(bench: Bench, seeing: Seeing) -> None:
    verified(bench)
    rows = [asked(bench, seed=seed) for seed in (0, 1)]
    work_all(bench)
    assert [view(bench, row.id).state for row in rows] == ["succeeded"] * 2
    # the pictures of both and the validation images, once
    assert seeing.looks == NEW + 3
    with bench.database.reading() as session:
        said = session.scalars(select(Event.data).where(Event.kind == "log")).all()
    assert any("looked at before" in each["message"] for each in said)
    assert queued(bench) is None
