"""A pseudo-labelling from the request to the dataset that it makes: real, tiny jobs, with a detector that was verified."""

import json
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from handler_bench import Bench
from small_service import CHECKPOINTS, DATASET, OTHER_DATASET, copied, made, queued, work_all
from sqlalchemy import select

from app.db.tables import Checkpoint, Dataset, FeatureFile, Job, PseudoLabelling, Ranking, Verification
from app.errors import Conflict, InvalidRequest
from app.queue import verifications
from app.schemas.pseudo_label_reviews import ReviewDecisions
from app.schemas.pseudo_labellings import PseudoLabellingCreate
from app.schemas.rankings import RankingCreate
from app.services import (
    datasets,
    pseudo_label_reviews,
    pseudo_labelling_views,
    pseudo_labellings,
    rankings,
    works,
)
from app.services.ranking_requests import normalised
from tests.documents import misfits
from worker.attempt import Cancelled
from worker.handlers.pseudo_labelling import teach
from worker.handlers.verification import other_test
from worker.pseudo_boxes.image_label_detr import DetrTeacher

DETECTOR = "ckpt_" + "d" * 32
TRAINED = {
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
    "batch_size": 4,
    "precision": "float32",
    "patience": None,
    "evaluations": 1,
    "ema": 0.0,
    "lr_factor": None,
    "data_dependent_init": True,
    "dataset_id": DATASET,
    "checkpoint_id": CHECKPOINTS[0],
    "seed": 0,
}


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of a bench with two datasets and a detector that was fine-tuned on one of them."""
    folder = made(tmp_path_factory.mktemp("pseudo") / "original")
    bench = Bench(folder, f"sqlite:///{folder / 'detrank.db'}")
    bench.add(lambda session: verifications.add(session, workspace_id="ws_1", request=TRAINED).id)
    (job,) = work_all(bench)
    assert job.state == "succeeded", job.error
    with bench.database.unit_of_work() as session:
        row = session.scalars(select(Verification)).one()
        trained, row.trained_checkpoint_id = row.trained_checkpoint_id, None
        session.flush()
        session.get_one(Checkpoint, trained).id = DETECTOR
    bench.database.dispose()
    return folder


@pytest.fixture
def bench(original: Path, tmp_path: Path) -> Iterator[Bench]:
    found = copied(original, tmp_path / "copy")
    yield found
    found.database.dispose()


def asked(bench: Bench, **changes: Any) -> str:
    fields = {"dataset_id": DATASET, "teacher": "detector", "detector_checkpoint": DETECTOR, "image_size": 64}
    body = PseudoLabellingCreate(**(fields | changes))
    return bench.add(lambda session: pseudo_labellings.create(session, "ws_1", body, bench.settings).id)


def view(bench: Bench, id: str) -> Any:
    with bench.database.reading() as session:
        return pseudo_labelling_views.shown(session, session.get_one(PseudoLabelling, id), None)


def annotations(bench: Bench, dataset: Dataset) -> dict[str, Any]:
    with zipfile.ZipFile(bench.store.local_path(dataset.archive_sha256)) as archive:
        return json.loads(archive.read("annotations.json"))


def test_a_dataset_with_pseudo_boxes_and_what_they_are_worth(bench: Bench) -> None:
    id = asked(bench, confidence=0.0, name="mine")
    done = work_all(bench)
    assert [(job.kind, job.state) for job in done] == [
        ("look", "succeeded"),
        ("pseudo_label", "waiting"),
        ("teach", "succeeded"),
        ("pseudo_label", "succeeded"),
    ], [job.error for job in done]
    found = view(bench, id)
    assert (found.state, found.stage, found.looked_at) == ("succeeded", None, 12)
    assert found.request["splits"] == ["train"]
    assert found.quality.measured_on == f"true boxes of {DATASET} itself, train"
    assert (found.quality.pictures, found.quality.objects) == (12, 24)
    assert found.quality.boxes == found.boxes
    assert 0 <= found.quality.precision <= 1
    assert found.said == {"confidence": 0.0, "f1_on_validation": None}
    assert found.pictures
    assert found.plots
    assert set(found.cost) == {"looking_s", "teaching_s"}
    with bench.database.reading() as session:
        assert misfits(session) == []

    dataset = bench.get(Dataset, found.made_dataset_id)
    assert (dataset.state, dataset.supervision, dataset.name) == ("ready", "pseudo_boxes", "mine")
    assert dataset.summary["pseudo_boxes"] == found.boxes
    assert dataset.lineage["pseudo_labelling_id"] == id
    assert dataset.lineage["dataset"]["id"] == DATASET
    assert dataset.lineage["checkpoint"]["id"] == DETECTOR
    assert dataset.previews
    content = annotations(bench, dataset)
    assert content["info"]["lineage"] == dataset.lineage
    scored = [row for row in content["annotations"] if "score" in row]
    assert len(scored) == found.boxes
    # validation and test keep what people drew
    assert len(content["annotations"]) - len(scored) == 12
    assert bench.left_behind() == []


def test_what_was_decided_becomes_a_dataset(bench: Bench) -> None:
    id = asked(bench, confidence=0.0)
    work_all(bench)
    before = annotations(bench, bench.get(Dataset, view(bench, id).made_dataset_id))
    row = bench.get(PseudoLabelling, id)
    first, second = (item["number"] for item in row.review["items"][:2])
    box = {"bbox": [4.0, 5.0, 20.0, 21.0], "category": row.review["categories"][0]}
    decided = ReviewDecisions(
        items=[
            {"number": first, "decision": "reject"},
            {"number": second, "decision": "correct", "corrected": box},
        ]
    )

    def make(session: Any) -> str:
        pseudo_label_reviews.decide(session, "ws_1", id, decided)
        return pseudo_label_reviews.make_dataset(session, "ws_1", id, None).id

    made_id = bench.add(make)
    (job,) = work_all(bench)
    assert (job.kind, job.state) == ("ingest", "succeeded"), job.error
    made = bench.get(Dataset, made_id)
    assert (made.state, made.supervision, made.format) == ("ready", "pseudo_boxes", "pseudo_labelling")
    assert made.lineage["pseudo_labelling_id"] == id
    after = annotations(bench, made)
    assert len(after["annotations"]) == len(before["annotations"]) - 1
    drawn = [row["bbox"] for row in after["annotations"] if "score" not in row]
    assert box["bbox"] in drawn
    assert bench.left_behind() == []


def test_what_was_seen_once_is_not_looked_at_again(bench: Bench) -> None:
    first = asked(bench, confidence=0.0)
    work_all(bench)
    with bench.database.reading() as session:
        keys = set(session.scalars(select(FeatureFile.key)))
    again = asked(bench, confidence=0.3)
    work_all(bench)
    with bench.database.reading() as session:
        assert set(session.scalars(select(FeatureFile.key))) == keys
    assert (view(bench, again).boxes or 0) < view(bench, first).boxes
    # a file that is gone is made again
    third = asked(bench, confidence=0.0)
    bench.work(queued(bench, "look"))
    with bench.database.unit_of_work() as session:
        for row in session.scalars(select(FeatureFile)):
            session.delete(row)
    work_all(bench)
    assert view(bench, third).boxes == view(bench, first).boxes


def test_a_teacher_that_finds_nothing_says_what_to_change(bench: Bench) -> None:
    id = asked(bench, confidence=1.0)
    work_all(bench)
    found = view(bench, id)
    assert (found.state, found.error["code"], found.made_dataset_id) == ("failed", "no_pseudo_boxes", None)
    assert "lower confidence" in found.error["detail"]


@pytest.mark.slow
def test_it_is_trained_on_like_any_other_and_the_truth_may_be_another_dataset(bench: Bench) -> None:
    id = asked(bench, confidence=0.0, truth_dataset_id=DATASET)
    work_all(bench)
    found = view(bench, id)
    assert found.quality.measured_on == f"true boxes of {DATASET}, train"
    request = TRAINED | {"dataset_id": found.made_dataset_id, "iterations": 2}
    one, other = (
        bench.add(
            lambda session, extra=extra: (
                verifications.add(session, workspace_id="ws_1", request=request | extra).id
            )
        )
        for extra in ({}, {"test_dataset_id": OTHER_DATASET, "seed": 1})
    )
    jobs = work_all(bench)
    own, elsewhere = bench.get(Verification, one), bench.get(Verification, other)
    assert jobs[0].state == "succeeded", jobs[0].error
    assert "pseudo boxes by detector" in own.result["warnings"][-2]
    assert "precision" in own.result["warnings"][-2]
    assert "test_dataset_id" in own.result["warnings"][-1]
    assert (elsewhere.state, elsewhere.split) == ("succeeded", "test")
    assert (elsewhere.result["test"]["images"], elsewhere.result["test"]["objects"]) == (3, 6)
    assert "test_dataset_id" not in elsewhere.result["warnings"][-1]


def test_a_student_learns_from_labels_and_from_what_its_teacher_says_of_the_rest(bench: Bench) -> None:
    terms = TRAINED | {"label_fraction": 0.5, "subset_seed": 1, "iterations": 2, "reuse": True}
    taught = terms | {"teacher_checkpoint_id": DETECTOR}
    ids = [
        bench.add(
            lambda session, asked=asked: verifications.add(session, workspace_id="ws_1", request=asked).id
        )
        for asked in (terms, taught, terms | {"label_fraction": None, "teacher_checkpoint_id": DETECTOR})
    ]
    work_all(bench)
    plain, student, whole = (bench.get(Verification, id) for id in ids)
    assert plain.state == "succeeded", plain.error
    assert "taught" not in plain.result
    if student.state == "succeeded":
        lesson = student.result["taught"]
        assert lesson["checkpoint_id"] == DETECTOR
        assert 1 <= lesson["pictures"] <= 6
        assert student.plan["images"] == 6 + lesson["pictures"]
        assert student.plan != plain.plan
        assert "reused_from" not in student.result
    else:  # eight steps may have taught the teacher nothing that is right on validation
        assert student.error["code"] == "no_pseudo_boxes"
    assert (whole.state, whole.error["code"]) == ("failed", "no_unlabelled")
    with bench.database.reading() as session:
        assert misfits(session) == []


def test_what_is_learned_from_is_not_measured_on(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def learned(dataset: Any) -> list[int]:
        return [image.id for image in dataset.images if image.split == "train"]

    monkeypatch.setattr(other_test, "measured_ids", learned)
    request = TRAINED | {"test_dataset_id": DATASET}
    bench.add(lambda session: verifications.add(session, workspace_id="ws_1", request=request).id)
    (job,) = work_all(bench)
    assert (job.state, job.error["code"]) == ("failed", "test_seen")
    assert "12 of the 12 pictures" in job.error["detail"]


def test_a_ranking_says_whose_boxes_they_are_and_how_far_it_agrees_with_one_on_true_boxes(
    bench: Bench,
) -> None:
    id = asked(bench, confidence=0.0)
    work_all(bench)
    made_id = view(bench, id).made_dataset_id
    candidates = [*CHECKPOINTS, DETECTOR]
    fields = {
        "metrics": ["logme"],
        "layers": ["backbone.c4"],
        "calibrate": False,
        "zero_point": False,
        "image_size": 64,
    }

    def rank(**more: Any) -> str:
        body = RankingCreate(checkpoint_ids=candidates, **(fields | more))
        request = normalised(body, bench.settings)
        return bench.add(lambda session: rankings.create(session, "ws_1", request).id)

    true = rank(dataset_id=DATASET)
    work_all(bench)
    pseudo = rank(dataset_id=made_id, compare_with=true)
    work_all(bench)
    before, found = bench.get(Ranking, true).result, bench.get(Ranking, pseudo).result
    assert before["agreement"] is None
    assert [w["code"] for w in found["warnings"][:2]] == ["pseudo_boxes", "teacher_is_candidate"]
    assert "pseudo_boxes" not in [w["code"] for w in before["warnings"]]
    agree = found["agreement"]
    assert (agree["ranking_id"], agree["dataset_id"], agree["n"]) == (true, DATASET, 4)
    assert -1 <= agree["measures"]["kendall"]["value"] <= 1
    with bench.database.reading() as session:
        assert misfits(session) == []


def test_a_kill_and_a_cancel_leave_nothing_half_written(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    id = asked(bench, confidence=0.0)
    bench.work(queued(bench, "look"))
    bench.work(queued(bench, "pseudo_label"))
    before = len(list(bench.add(lambda session: session.scalars(select(Dataset.id)).all())))
    pack = teach.pack

    def killed(*_: object) -> None:
        raise Cancelled("killed")

    monkeypatch.setattr(teach, "pack", killed)
    job = bench.work(queued(bench, "teach"))
    assert job.state in ("queued", "cancelled")
    assert len(list(bench.add(lambda session: session.scalars(select(Dataset.id)).all()))) == before
    assert bench.left_behind() == []
    monkeypatch.setattr(teach, "pack", pack)
    if job.state == "cancelled":
        with bench.database.unit_of_work() as session:
            works.retry(session, "ws_1", PseudoLabelling, id)
    work_all(bench)
    assert view(bench, id).state == "succeeded"


def test_a_dataset_that_is_deleted_leaves_the_pseudo_labelling(bench: Bench) -> None:
    id = asked(bench, confidence=0.0)
    work_all(bench)
    made_id = view(bench, id).made_dataset_id
    bench.add(lambda session: datasets.remove(session, "ws_1", made_id))
    assert view(bench, id).made_dataset_id is None
    bench.add(lambda session: works.remove(session, "ws_1", PseudoLabelling, id))
    with bench.database.reading() as session:
        assert session.scalars(select(Job).where(Job.resource_id == id)).all() == []


def test_image_labels_teach_without_a_look_at_where_the_boxes_are(bench: Bench) -> None:
    id = asked(
        bench,
        teacher="image_labels",
        detector_checkpoint=None,
        backbone_checkpoint=CHECKPOINTS[0],
        layers=["backbone.c3"],
        epochs=2,
    )
    done = work_all(bench)
    found = view(bench, id)
    assert found.state == "succeeded", (found.error, [job.error for job in done])
    assert found.boxes >= found.labelled == 12
    assert found.quality.objects == 24
    assert [one.title.partition(":")[2][:8] for one in found.pictures].count(" pseudo ") == 8
    assert sum("regions" in one.title for one in found.pictures) == 8
    with bench.database.reading() as session:
        points = pseudo_labelling_views.curves(session, session.get_one(PseudoLabelling, id))
        assert misfits(session) == []
    assert [point["iteration"] for point in points] == [1, 2]
    lineage = bench.get(Dataset, found.made_dataset_id).lineage
    assert lineage["settings"]["epochs"] == 2
    assert "curves" not in lineage["settings"]


DETR = {
    "teacher": "image_labels",
    "form": "detr",
    "detector_checkpoint": None,
    "backbone_checkpoint": CHECKPOINTS[0],
    "epochs": 2,
    "image_size": 128,
    "config": {
        "d_model": 32,
        "encoder_layers": 1,
        "decoder_layers": 1,
        "encoder_ffn_dim": 32,
        "decoder_ffn_dim": 32,
        "encoder_attention_heads": 4,
        "decoder_attention_heads": 4,
        "num_queries": 5,
    },
}


@pytest.mark.slow
def test_a_detr_that_learns_from_image_labels_becomes_a_checkpoint(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed after four of its six steps, it goes on from the state that was kept."""
    id = asked(bench, **DETR)
    bench.work(queued(bench, "look"))
    bench.work(queued(bench, "pseudo_label"))
    teach_all = DetrTeacher.teach
    begun: list[int] = []

    def killed(self: DetrTeacher, *args: Any) -> Any:
        host, watch = args[-2:]

        def saved(iteration: int) -> None:
            watch.saved(iteration)
            if iteration == 4:
                raise Cancelled("killed")

        cut = replace(host, save_every_s=0.0), replace(watch, saved=saved)
        return teach_all(self, *args[:-2], *cut)

    def watched(self: DetrTeacher, *args: Any) -> Any:
        told = args[-1].progress
        follow = replace(args[-1], progress=lambda done, *more: (begun.append(done), told(done, *more)))
        return teach_all(self, *args[:-1], follow)

    bench.settings.training_state_s = 0.0
    monkeypatch.setattr(DetrTeacher, "teach", killed)
    job = bench.work(queued(bench, "teach"))
    assert bench.get(PseudoLabelling, id).state_iteration, (job.state, job.error)
    monkeypatch.setattr(DetrTeacher, "teach", watched)
    if job.state == "cancelled":
        with bench.database.unit_of_work() as session:
            works.retry(session, "ws_1", PseudoLabelling, id)
    work_all(bench)
    found = view(bench, id)
    assert found.state == "succeeded", found.error
    assert begun[0] > 1
    assert begun[-1] == 6

    own = found.said["detector"]
    assert own["measured_on"] == "pictures that it has not seen"
    assert own["pictures"] == 6
    assert 0 <= own["ap50"] <= 1
    made = bench.get(Checkpoint, found.trained_checkpoint_id)
    assert (made.state, made.architecture) == ("ready", "detrank/deformable_detr")
    assert made.manifest["class_names"] == ["red", "blue"]
    assert made.provenance["pseudo_labelling_id"] == id
    assert made.provenance["parent"]["checkpoint_id"] == CHECKPOINTS[0]
    assert made.provenance["measured"] == own
    assert found.boxes >= found.labelled == 12
    assert sum("regions" in one.title for one in found.pictures) == 8
    assert sum("surest query looks at" in one.title for one in found.pictures) == 8
    with bench.database.reading() as session:
        points = pseudo_labelling_views.curves(session, session.get_one(PseudoLabelling, id))
        assert misfits(session) == []
    assert points[-1]["iteration"] == 6
    assert "own_loss_ce" in points[-1]["losses"]
    assert bench.get(PseudoLabelling, id).state_sha256 is None
    assert bench.left_behind() == []

    # an ordinary checkpoint: fine-tuned, and taught again as it is
    request = TRAINED | {"checkpoint_id": made.id, "iterations": 2, "image_size": 192}
    one = bench.add(lambda session: verifications.add(session, workspace_id="ws_1", request=request).id)
    again = asked(bench, **DETR | {"backbone_checkpoint": made.id, "config": None, "epochs": 1})
    work_all(bench)
    assert bench.get(Verification, one).state == "succeeded", bench.get(Verification, one).error
    assert view(bench, again).state == "succeeded", view(bench, again).error


def test_what_does_not_go_together_is_said_at_once(bench: Bench) -> None:
    for changes, refusal, words in (
        ({"detector_checkpoint": None}, InvalidRequest, "needs a detector"),
        ({"detector_checkpoint": CHECKPOINTS[0]}, InvalidRequest, "says no class of what it finds"),
        ({"classes": {"red": "green"}}, InvalidRequest, "no category 'green', it has red, blue"),
        ({"classes": {"green": "red"}}, InvalidRequest, "no class 'green', it has red, blue"),
        ({"splits": ["train", "train"]}, InvalidRequest, "named twice"),
        ({"proposals": ["cuts"]}, InvalidRequest, "proposals is of the teacher image_labels"),
        ({"teacher": "image_labels"}, InvalidRequest, "needs a checkpoint with a body"),
        ({"form": "detr"}, InvalidRequest, "form is of the teacher image_labels"),
        (DETR | {"layers": ["backbone.c3"]}, InvalidRequest, "layers has no meaning in the form detr"),
        (DETR | {"form": None}, InvalidRequest, "config has no meaning in the form regions"),
    ):
        with pytest.raises(refusal, match=words):
            asked(bench, **changes)
    with bench.database.unit_of_work() as session:
        row = session.get_one(Dataset, OTHER_DATASET)
        row.summary = row.summary | {"categories": [{"name": "cat"}, {"name": "dog"}]}
    with pytest.raises(InvalidRequest, match="finds red, blue and the dataset has cat, dog"):
        asked(bench, dataset_id=OTHER_DATASET)
    with bench.database.unit_of_work() as session:
        session.get_one(Dataset, OTHER_DATASET).supervision = "pseudo_boxes"
    with pytest.raises(Conflict, match="are pseudo boxes themselves"):
        asked(bench, dataset_id=OTHER_DATASET)
