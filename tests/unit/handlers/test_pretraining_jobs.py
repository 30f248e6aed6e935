"""A pretraining from the request to the registered checkpoint and the comparison: real, tiny jobs."""

import contextlib
import dataclasses
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch
from handler_bench import Bench
from small_service import _called, copied, queued, work_all
from sqlalchemy import select
from test_ingest_job import zipped
from timm import create_model

from app.db.tables import Checkpoint, Dataset, Event, FeatureFile, Job, Pretraining, Verification
from app.errors import Conflict, InvalidRequest
from app.schemas.pretrainings import PretrainingCreate
from app.services import pretraining_views, pretrainings, works
from tests.documents import misfits
from tests.faults.servers import small_disk
from tests.small_detr import small_detr
from tests.squares import squares
from worker.attempt import Cancelled
from worker.handlers.pretraining import learn
from worker.handlers.verification import taught, training_report
from worker.pseudo_boxes.self_training import PseudoLabelled
from worker.training.inputs import Host

DATASET = "ds_" + "1" * 32
BODY = "ckpt_" + "1" * 32
CONFIG = small_detr()
ASKED: dict[str, Any] = {
    "dataset_id": DATASET,
    "architecture": "deformable_detr",
    "encoder_checkpoint": BODY,
    "config": CONFIG,
    "iterations": 6,
    "image_size": 64,
    "batch_size": 4,
    "evaluations": 2,
    "max_proposals": 8,
}


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of a bench with a ready dataset and the checkpoint of a tiny backbone."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("pretraining") / "original"
    bench = Bench(folder, f"sqlite:///{folder / 'detrank.db'}")
    job = bench.work(bench.dataset(zipped(squares(folder / "set", images=16))))
    assert job.state == "succeeded", job.error
    _called(bench, Dataset, job.resource_id, DATASET)
    torch.manual_seed(0)
    torch.save(create_model("test_resnet").state_dict(), folder / "body.pth")
    content = (folder / "body.pth").read_bytes()
    job = bench.work(bench.checkpoint(content, architecture="timm/test_resnet"))
    assert job.state == "succeeded", job.error
    _called(bench, Checkpoint, job.resource_id, BODY)
    bench.database.dispose()
    return folder


@pytest.fixture
def bench(original: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    made = copied(original, tmp_path / "copy", training_state_s=0.0)
    monkeypatch.setattr(training_report, "TELL_S", 0.0)
    yield made
    made.database.dispose()


def asked(bench: Bench, **changes: Any) -> Pretraining:
    body = PretrainingCreate(**(ASKED | changes))
    return bench.add(lambda session: pretrainings.create(session, "ws_1", body, bench.settings))


def view(bench: Bench, id: str) -> Any:
    with bench.database.reading() as session:
        return pretraining_views.view(session, session.get_one(Pretraining, id))


def kinds_of(bench: Bench) -> list[str]:
    with bench.database.reading() as session:
        return list(session.scalars(select(Job.kind).order_by(Job.id)))


@pytest.mark.slow
def test_self_training_is_another_arm_once_its_teachers_are_there(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    lessons = []

    def known(teacher: Any, dataset: Any, **fields: Any) -> PseudoLabelled:
        """What a good teacher would say: the boxes themselves."""
        lessons.append(teacher.manifest.class_names)
        own = np.isin(dataset.annotation_image_ids, [*fields["labelled_ids"], *fields["unlabelled_ids"]])
        ids = tuple(fields["unlabelled_ids"])
        return PseudoLabelled(
            dataset, ids, tuple(dataset.annotation_ids[own].tolist()), 0.5, 1.0, 2 * len(ids)
        )

    monkeypatch.setattr(taught, "pseudo_labelled", known)
    compare = {
        "label_fractions": [0.5],
        "seeds": 2,
        "iterations": 2,
        "image_size": 64,
        "batch_size": 2,
        "evaluations": 1,
        "self_training": True,
    }
    row = asked(bench, compare=compare)
    done = work_all(bench)
    assert [job.kind for job in done].count("verify") == 6
    found = view(bench, row.id)
    assert found.state == "succeeded", found.error
    assert lessons == [("red", "blue")] * 2
    arms = {one.arm: one for one in found.comparison.arms}
    assert set(arms) == {"pretrained", "start", "self_training"}
    assert set(arms["self_training"].by_seed["ap50"]) == {"0", "1"}
    assert [gain.against for gain in found.comparison.gains] == ["start", "self_training"]
    assert "self-training" in found.comparison.verdict[1]
    with bench.database.reading() as session:
        students = [
            one for one in session.scalars(select(Verification)) if one.request.get("teacher_checkpoint_id")
        ]
        assert [one.result["taught"]["pictures"] for one in students] == [8, 8]
        assert {one.plan["images"] for one in students} == {16}
        assert misfits(session) == []


@pytest.mark.slow
def test_regions_training_comparison_and_what_it_says(bench: Bench) -> None:
    compare = {
        "label_fractions": [0.5],
        "seeds": 2,
        "iterations": 2,
        "image_size": 64,
        "batch_size": 2,
        "evaluations": 1,
    }
    row = asked(bench, compare=compare)
    done = work_all(bench)
    assert [job.kind for job in done] == [
        "propose",
        "pretrain",
        "learn",
        "pretrain",
        *["verify"] * 4,
        "pretrain",
    ]
    assert all(job.state == "succeeded" or job.kind == "pretrain" for job in done), [
        job.error for job in done
    ]
    found = view(bench, row.id)
    assert (found.state, found.stage, found.finished, found.iterations) == ("succeeded", None, "completed", 6)
    assert found.trained_on == 16
    assert found.held_out == {"split": 3, "equal_content": 0}
    assert set(found.recall["start"]) == {"proposals", "objects"}
    assert found.recall["end"]["objects"]["objects"] == 6
    assert {one.about["epoch"] for one in found.pictures} == {0.0, 0.75, 1.5}
    assert len(found.plots) == 1

    trained = bench.get(Checkpoint, found.trained_checkpoint_id)
    assert (trained.state, trained.kind, trained.architecture) == (
        "ready",
        "detector",
        "detrank/deformable_detr",
    )
    lineage = trained.provenance
    assert lineage["pretraining_id"] == row.id
    assert lineage["parent"]["checkpoint_id"] == found.start_checkpoint_id
    assert lineage["encoder"] == {"checkpoint_id": BODY, "layer": "backbone.c3"}
    assert (lineage["dataset"]["id"], lineage["proposals"]) == (DATASET, "selective_search")
    start = bench.get(Checkpoint, found.start_checkpoint_id)
    assert start.manifest["initialised_keys"]
    assert not trained.manifest["initialised_keys"]

    comparison = found.comparison
    assert [(one.arm, one.label_fraction) for one in comparison.arms] == [("pretrained", 0.5), ("start", 0.5)]
    assert comparison.measured_on == ["test"]
    (gain,) = comparison.gains
    assert (gain.against, gain.ap50.n) == ("start", 2)
    assert gain.ap50.low <= gain.ap50.mean <= gain.ap50.high
    assert len(comparison.verdict) == 1
    assert set(found.cost) == {"proposing_s", "training_s", "comparing_s"}
    with bench.database.reading() as session:
        subsets = session.execute(select(Verification.checkpoint_id, Verification.subset_id)).all()
        by_arm: dict[str, set[str]] = {}
        for checkpoint_id, subset_id in subsets:
            by_arm.setdefault(checkpoint_id, set()).add(subset_id)
        # the same two subsets for both
        assert len(set(map(frozenset, by_arm.values()))) == 1
        points = list(
            session.scalars(select(Event.data).where(Event.stream_id == row.id, Event.kind == "curve"))
        )
    assert [point["iteration"] for point in points] == [
        p["iteration"] for p in bench.get(Pretraining, row.id).curves
    ]
    assert bench.left_behind() == []

    # the regions are there: another pretraining of the same pictures searches none
    again = asked(bench, iterations=1, evaluations=1)
    first = bench.work(queued(bench))
    assert (first.kind, first.resource_id) == ("propose", again.id)
    with bench.database.reading() as session:
        assert len(session.scalars(select(FeatureFile)).all()) == 1
        said = session.scalars(
            select(Event.data).where(Event.stream_id == first.id, Event.kind == "log")
        ).all()
    assert any("searched before" in each["message"] for each in said)
    work_all(bench)

    # and the checkpoint can be pretrained further
    further = asked(
        bench,
        architecture=None,
        encoder_checkpoint=None,
        config=None,
        from_checkpoint=trained.id,
        proposals="random",
        iterations=1,
        evaluations=1,
    )
    done = work_all(bench)
    assert [job.kind for job in done] == ["pretrain", "learn", "pretrain"]
    assert view(bench, further.id).state == "succeeded", view(bench, further.id).error

    with bench.database.unit_of_work() as session:
        works.remove(session, "ws_1", Pretraining, row.id)
    assert bench.get(Pretraining, row.id) is None
    assert bench.get(Checkpoint, trained.id) is not None


def test_one_that_was_cut_off_goes_on_and_one_that_is_cancelled_can_be_retried(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = asked(bench, proposals="random", iterations=6)
    bench.work(queued(bench))
    original, seen = learn.pretrain, []

    def cut(*arguments: Any, **options: Any) -> Any:
        watch = options["watch"]

        def progress(done: int, total: int | None, message: str) -> None:
            watch.progress(done, total, message)
            seen.append(done)
            if done == 4 and len(seen) == 4:
                raise Cancelled("stop")

        often = {"host": Host(save_every_s=0.0), "watch": dataclasses.replace(watch, progress=progress)}
        return original(*arguments, **(options | often))

    monkeypatch.setattr(learn, "pretrain", cut)
    job = bench.work(queued(bench))
    assert (job.kind, job.state) == ("learn", "cancelled")
    found = view(bench, row.id)
    assert found.state == "cancelled"
    kept = (
        found.resumable_at
    )  # of the state that was last copied: a copy is left out while another is on its way
    assert 1 <= kept <= 4
    with bench.database.unit_of_work() as session:
        works.retry(session, "ws_1", Pretraining, row.id)
    work_all(bench)
    found = view(bench, row.id)
    assert (found.state, found.iterations) == ("succeeded", 6)
    assert seen == [1, 2, 3, 4, *range(kept + 1, 7)]


def test_a_loss_that_is_no_number_fails_with_what_to_change_and_leaves_a_state_to_go_on_from(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = asked(bench, proposals="random", iterations=6)
    bench.work(queued(bench))
    original = learn.pretrain

    def blown_up(detector: Any, *arguments: Any, **options: Any) -> Any:
        watch = options["watch"]

        def progress(done: int, total: int | None, message: str) -> None:
            watch.progress(done, total, message)
            if done == 4:
                detector.module.feature_embed.layers[1].weight.data.fill_(float("inf"))

        often = {"host": Host(save_every_s=0.0), "watch": dataclasses.replace(watch, progress=progress)}
        return original(detector, *arguments, **(options | often))

    monkeypatch.setattr(learn, "pretrain", blown_up)
    job = bench.work(queued(bench))
    assert (job.kind, job.state, job.error["code"]) == ("learn", "failed", "training_diverged")
    work_all(bench)
    found = view(bench, row.id)
    assert (found.state, found.error["code"], found.trained_checkpoint_id) == (
        "failed",
        "training_diverged",
        None,
    )
    for word in ("loss_embedding", "iteration", "lr_factor"):
        assert word in found.error["detail"], found.error
    assert 0 < found.resumable_at <= 4
    assert bench.left_behind() == []
    # what was kept was a number still: whoever takes the cause away goes on from there
    monkeypatch.setattr(learn, "pretrain", original)
    with bench.database.unit_of_work() as session:
        works.retry(session, "ws_1", Pretraining, row.id)
    work_all(bench)
    assert (view(bench, row.id).state, view(bench, row.id).iterations) == ("succeeded", 6)


@pytest.mark.slow
def test_a_full_disk_is_waited_out_with_the_state_that_was_kept(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    with small_disk(bench.settings.scratch_dir, 24 << 20) as mounted:
        if not mounted:
            pytest.skip("this process may not mount a disk of its own")
        undisturbed = asked(bench, proposals="random", iterations=6)
        work_all(bench)
        row = asked(bench, proposals="random", iterations=6)
        bench.work(queued(bench))
        filler = bench.settings.scratch_dir / "filler"
        original = learn.pretrain

        def filled(*arguments: Any, **options: Any) -> Any:
            watch = options["watch"]

            def progress(done: int, total: int | None, message: str) -> None:
                watch.progress(done, total, message)
                if done == 4:
                    # copies of the state that are on their way take room, and give it back
                    until(lambda: not list(bench.settings.scratch_dir.glob("*/state-*")))
                    fill(filler)

            often = {"host": Host(save_every_s=0.0), "watch": dataclasses.replace(watch, progress=progress)}
            return original(*arguments, **(options | often))

        monkeypatch.setattr(learn, "pretrain", filled)
        job = bench.work(queued(bench))
        assert (job.kind, job.state, job.attempt) == ("learn", "queued", 0), job.error
        assert job.error["code"] == "storage_full"
        found = view(bench, row.id)
        assert (found.state, found.error, found.trained_checkpoint_id) == ("running", None, None)
        assert 0 < found.resumable_at <= 4
        # nothing half-written, neither here nor in storage
        assert bench.left_behind() == [filler]
        assert not list(bench.settings.home.rglob("*.partial"))

        filler.unlink()
        monkeypatch.setattr(learn, "pretrain", original)
        with bench.database.unit_of_work() as session:
            session.get_one(Job, job.id).not_before = None
        work_all(bench)
    ended = view(bench, row.id)
    assert (ended.state, ended.iterations, ended.recall) == (
        "succeeded",
        6,
        view(bench, undisturbed.id).recall,
    )
    weights = [
        bench.get(Checkpoint, view(bench, each.id).trained_checkpoint_id).weights_sha256
        for each in (row, undisturbed)
    ]
    assert weights[0] == weights[1]


def until(holds: Callable[[], bool], patience_s: float = 60.0) -> None:
    ends = time.monotonic() + patience_s
    while not holds():
        assert time.monotonic() < ends, "it did not come"
        time.sleep(0.01)


def fill(path: Path) -> None:
    """Writes until the disk has no room."""
    with path.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(1 << 16))


def test_what_cannot_be_pretrained_says_what_to_change(bench: Bench) -> None:
    wrong = [
        ({"architecture": None}, "/from_checkpoint"),
        ({"encoder_checkpoint": None}, "/encoder_checkpoint"),
        ({"proposals": "guesses"}, "/proposals"),
        ({"recipe": "nothing"}, "/recipe"),
        ({"recipe": "detreg_quick_detr"}, "/recipe"),
        ({"embedding_layer": "backbone.c9"}, "/embedding_layer"),
        ({"epochs": 2}, "/iterations"),
        ({"architecture": None, "config": None, "from_checkpoint": BODY}, "/from_checkpoint"),
        ({"compare": {"label_fractions": [0.5], "recipe": "frcnn_full"}}, "/compare/recipe"),
        ({"compare": {"label_fractions": [0.5, 0.5]}}, "/compare/label_fractions/1"),
        ({"dataset_id": "ds_" + "9" * 32}, "/dataset_id"),
    ]
    for changes, pointer in wrong:
        with pytest.raises(InvalidRequest) as refusal:
            asked(bench, **changes)
        assert pointer in [error["pointer"] for error in refusal.value.errors], (
            changes,
            refusal.value.errors,
        )
    with bench.database.unit_of_work() as session:
        dataset = session.get_one(Dataset, DATASET)
        dataset.summary = dataset.summary | {"splits": {"train": {"images": 3, "annotations": 0}}}
    with pytest.raises(Conflict, match="3 training pictures"):
        asked(bench)
    assert kinds_of(bench).count("pretrain") == 0


@pytest.mark.slow
def test_blank_pictures_have_no_region_to_learn_from(bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "blank").mkdir()
    for grey in range(16):
        PIL.Image.new("RGB", (48, 48), (10 * grey,) * 3).save(tmp_path / "blank" / f"{grey}.png")
    job = bench.work(bench.dataset(zipped(tmp_path / "blank")))
    assert job.state == "succeeded", job.error
    blank = "ds_" + "3" * 32
    _called(bench, Dataset, job.resource_id, blank)
    row = asked(bench, dataset_id=blank)
    work_all(bench)
    found = view(bench, row.id)
    assert (found.state, found.error["code"], found.trained_checkpoint_id) == ("failed", "no_proposals", None)
    assert "proposals random needs nothing in them" in found.error["detail"]
    assert bench.left_behind() == []


def test_a_training_that_fails_is_the_failure_of_the_whole(bench: Bench) -> None:
    row = asked(bench, config=CONFIG | {"encoder_attention_heads": 7})
    work_all(bench)
    found = view(bench, row.id)
    assert found.state == "failed"
    assert found.error["code"] == "bad_config"
    assert found.trained_checkpoint_id is None


def test_pictures_that_another_dataset_measures_on_are_kept_out_whatever_they_are_called(
    tmp_path: Path,
) -> None:
    from worker.data.dataset import open_dataset
    from worker.data.ingest import ingest
    from worker.pretraining.held_out import allowed, digests_measured_on

    raw, other = squares(tmp_path / "raw", images=10), squares(tmp_path / "other", images=10)
    shutil.move(other / "train" / "1.png", other / "test" / "2.png")
    opened = []
    for name, folder in (("a", raw), ("b", other)):
        ingest(folder, tmp_path / name, seed=0)
        opened.append(open_dataset(tmp_path / name))
    train = [image for image in opened[0].images if image.split == "train"]
    assert len(allowed(train, digests_measured_on(opened[:1]))) == len(train) == 10
    assert len(allowed(train, digests_measured_on(opened))) == 9
