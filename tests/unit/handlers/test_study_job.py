"""A study from the request to its report, with real, tiny trainings."""

import csv
from collections.abc import Iterator
from pathlib import Path

import pytest
from handler_bench import Bench
from small_service import CHECKPOINTS, DATASET, OTHER_DATASET, copied, work_all

from app.db.tables import Checkpoint, Job, Study, Verification
from app.queue import leases
from app.schemas.studies import StudyCreate, StudyView
from app.services import studies, study_views, works
from tests.documents import misfits
from worker.handlers.verification import verify
from worker.training.errors import TrainingDiverged

TINY = {
    "checkpoint_ids": CHECKPOINTS,
    "iterations": 2,
    "image_size": 64,
    "batch_size": 2,
    "score_image_size": 64,
    "evaluations": 1,
    "metrics": ["logme", "tlogme"],
    "precision": "float32",
}


@pytest.fixture(scope="module")
def bench(small_service: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    bench = copied(small_service, tmp_path_factory.mktemp("study") / "copy")
    yield bench
    bench.database.dispose()


def asked(bench: Bench, **fields) -> str:
    with bench.database.unit_of_work() as session:
        return studies.create(
            session, "ws_1", StudyCreate(**TINY | {"dataset_ids": [DATASET]} | fields), bench.settings
        ).id


def at(bench: Bench, id: str) -> StudyView:
    with bench.database.reading() as session:
        return study_views.view(session, session.get(Study, id))


@pytest.fixture(scope="module")
def first(bench: Bench) -> StudyView:
    id = asked(bench, name="tiny")
    assert {job.state for job in work_all(bench)} == {"succeeded"}
    return at(bench, id)


def test_it_correlates_every_score_with_map_and_reports(bench: Bench, first: StudyView) -> None:
    assert (first.state, first.left_out, first.spent.reused) == ("succeeded", [], 0)
    maps = {one.checkpoint_id: one.map for one in first.trainings}
    assert all(value is not None for value in maps.values())
    assert {one.split for one in first.trainings} == {"test"}
    rows = {(row.dataset, row.metric, row.measure): row for row in first.correlations.rows}
    assert rows["dataset 1", "logme", "weighted_tau"].n == 3
    # what the weights bring is a score too, and the one that the service orders by
    gain = rows["dataset 1", "gain of tlogme", "weighted_tau"]
    assert (gain.n, gain.value) == (3, rows["dataset 1", "default rule", "weighted_tau"].value)
    assert {row.metric for row in first.correlations.rows if row.kind == "baseline"} == {
        "static_parameters",
        "static_coco_map",
        "static_blind_list",
    }
    # what stands beside every score: of one dataset there is no other to make a list of, but what detrank ships is known
    assert rows["dataset 1", "belief", "weighted_tau"].n == 3
    unknown = rows["dataset 1", "static_blind_list", "weighted_tau"]
    assert unknown.value is None
    assert "on no other dataset" in next(iter(unknown.excluded.values()))
    half = rows["dataset 1", "half_training", "kendall"]
    assert "were not looked at" in next(iter(half.excluded.values()))
    assert rows["dataset 1", "static_parameters", "kendall"].undefined == "all candidates have the same score"
    assert first.verdict[0].startswith("Ranking candidates")
    kept = {file["file_name"]: file for file in bench.get(Study, first.id).files}
    assert {"report.html", "report.md", "correlations.csv", "observations.csv"} <= set(kept)
    page = bench.store.local_path(kept["report.html"]["sha256"]).read_text(encoding="utf-8")
    assert "<title>tiny</title>" in page
    assert page.count('src="data:image/png;base64,') == sum(name.endswith(".png") for name in kept)
    assert "http" not in page.split("<body", 1)[1].replace("http-equiv", ""), "it needs nothing else"
    observed = bench.store.local_path(kept["observations.csv"]["sha256"]).read_text(encoding="utf-8")
    seen = {
        row["candidate"]: float(row["value"])
        for row in csv.DictReader(observed.splitlines())
        if row["kind"] == "map"
    }
    assert seen == {first.names[id]: value for id, value in maps.items()}
    assert bench.left_behind() == []


def test_it_keeps_no_weights_unless_asked(bench: Bench, first: StudyView) -> None:
    rows = [bench.get(Verification, one.verification_id) for one in first.trainings]
    assert [(row.trained_checkpoint_id, row.state_sha256, row.pictures) for row in rows] == [
        (None, None, None)
    ] * 3
    with bench.database.reading() as session:
        assert session.query(Checkpoint).count() == len(CHECKPOINTS)


def test_what_it_keeps_is_as_its_documents_say(bench: Bench, first: StudyView) -> None:
    with bench.database.reading() as session:
        assert misfits(session) == []


def test_the_next_study_takes_over_what_was_trained_and_leaves_out_what_fails(
    bench: Bench, first: StudyView, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another seed, and another dataset on which one candidate diverges."""
    train = verify.train

    def diverging(detector, dataset, plan, *more):
        if plan.seed == 1 and detector.manifest.weights_sha256 == weights:
            raise TrainingDiverged("its loss is no number any more")
        return train(detector, dataset, plan, *more)

    weights = bench.get(Checkpoint, CHECKPOINTS[0]).weights_sha256
    monkeypatch.setattr(verify, "train", diverging)
    id = asked(bench, seeds=[0, 1])
    jobs = work_all(bench)
    assert [job.state for job in jobs].count("failed") == 1
    second = at(bench, id)
    assert (second.state, second.spent.reused) == ("succeeded", 3)
    before = {one.checkpoint_id: one for one in first.trainings}
    for one in second.trainings:
        mine = before[one.checkpoint_id]
        assert (one.reused_from == mine.verification_id) == (one.seed == 0)
        assert one.seed or (one.map, one.seconds) == (mine.map, mine.seconds)
    assert second.spent.reused_s == pytest.approx(sum(one.seconds for one in first.trainings), abs=0.1)
    assert second.left_out == []
    assert [
        warning
        for warning in second.warnings
        if "checkpoint 1 on dataset 1 stands on 1 of 2 seeds" in warning
    ]

    # a copy of a copy says where the numbers came from; the first study may go
    with bench.database.unit_of_work() as session:
        works.remove(session, "ws_1", Study, first.id)
    third = asked(bench)
    work_all(bench)
    origins = {one.reused_from for one in at(bench, third).trainings}
    assert origins == {one.verification_id for one in first.trainings}


def test_a_candidate_or_dataset_without_numbers_is_left_out_with_its_reason(bench: Bench) -> None:
    id = asked(bench, dataset_ids=[DATASET, OTHER_DATASET], seeds=[0])
    for one in at(bench, id).trainings:
        if one.dataset_id == OTHER_DATASET:
            _fail(bench, bench.get(Verification, one.verification_id).job_id, "no memory")
    work_all(bench)
    found = at(bench, id)
    assert found.state == "succeeded"
    assert {(one.dataset, one.candidate, one.reason) for one in found.left_out} == {
        ("dataset 2", f"checkpoint {n}", "its fine-tuning failed: no memory") for n in (1, 2, 3)
    }
    assert {row.dataset for row in found.correlations.rows} == {"dataset 1", "average"}


def test_with_nothing_to_stand_on_it_fails_and_says_why(bench: Bench) -> None:
    id = asked(bench, reuse=False)
    for one in at(bench, id).trainings:
        _fail(bench, bench.get(Verification, one.verification_id).job_id, "no memory")
    work_all(bench)
    found = at(bench, id)
    assert (found.state, found.error["code"]) == ("failed", "no_observations")
    assert "no memory" in found.error["detail"]


def _fail(bench: Bench, job_id: str, detail: str) -> None:
    with bench.database.unit_of_work() as session:
        claim = leases.claim(session, job_id, "test", lease_s=60)
        leases.fail(session, claim, {"code": "out_of_memory", "title": "x", "status": 422, "detail": detail})
    assert bench.get(Job, job_id).state == "failed"
