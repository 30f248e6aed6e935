"""What the jobs of a ranking and of a verification leave of what candidates cost, measured and kept."""

from pathlib import Path
from typing import Any

import pytest
from handler_bench import Bench
from small_service import CHECKPOINTS, DATASET, copied, work_all
from sqlalchemy import select
from sqlalchemy.orm import Session

from app.db.tables import Blob, Candidate, MeasuredStep, Ranking
from app.queue import verifications
from app.schemas.rankings import RankingCreate, RankingFilters
from app.services import ranking_requests, ranking_views, rankings
from worker import models as kept
from worker.features.cost import Cost
from worker.handlers.ranking import costs
from worker.training.cost import StepCost

TERMS = {
    "recipe": "quick",
    "iterations": 12,
    "image_size": 64,
    "batch_size": 2,
    "evaluations": 1,
    "freeze": None,
    "precision": "auto",
    "patience": None,
    "ema": None,
    "lr_factor": None,
}


@pytest.fixture
def small(small_service: Path, tmp_path: Path) -> Any:
    bench = copied(small_service, tmp_path / "small")
    yield bench
    bench.database.dispose()


def ranked(bench: Bench, **fields: Any) -> str:
    asked = RankingCreate(
        dataset_id=DATASET,
        checkpoint_ids=CHECKPOINTS[:2],
        metrics=["logme"],
        layers=["backbone.c4"],
        image_size=64,
        calibrate=False,
        zero_point=False,
        **fields,
    )

    def make(session: Session) -> str:
        request = ranking_requests.normalised(asked, bench.settings)
        return rankings.create(session, "ws_1", request).id

    id = bench.add(make)
    assert {job.state for job in work_all(bench)} == {"succeeded"}
    return id


def shown(bench: Bench, id: str, **limits: Any) -> Any:
    with bench.database.reading() as session:
        return ranking_views.view(session, session.get_one(Ranking, id), RankingFilters(**limits))


def steps(bench: Bench) -> list[dict[str, Any]]:
    with bench.database.reading() as session:
        return [dict(step) for step in session.scalars(select(MeasuredStep.step))]


@pytest.mark.slow
def test_a_step_is_tried_once_for_all_that_train_alike(small: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    tried = []
    real = costs.measured_step
    monkeypatch.setattr(costs, "measured_step", lambda *args: tried.append(args) or real(*args))
    found = shown(small, ranked(small, measure_training=True))
    assert len(tried) == 1, "both candidates have one architecture"
    (step,) = steps(small)
    for one in found.candidates:
        assert one.cost.inference.image_hw == [64, 64]
        assert one.cost.inference.ms_per_image > 0
        training = one.cost.training
        assert (training.recipe, training.iterations, training.batch_size) == ("quick", 240, 4)
        assert training.seconds > 240 * step["step_s"]
        assert training.peak_memory_bytes == step["peak_memory_bytes"] > 4 * one.cost.parameters
        assert (training.fits, training.measured, training.unknown) == (True, "step", None)
    assert any(one.frontier for one in found.candidates)
    again = shown(small, ranked(small, measure_training=True))
    assert len(tried) == 1
    assert again.candidates[0].cost.training.seconds == found.candidates[0].cost.training.seconds


def test_who_asks_for_none_gets_none_and_filters_say_so(small: Bench) -> None:
    id = ranked(small, measure_training=False, filters={"max_training_s": 10.0})
    assert steps(small) == []
    found = shown(small, id)
    assert {out.code for out in found.left_out} == {"filtered"}
    assert all("seconds of fine-tuning are not known" in out.reason for out in found.left_out)
    training = found.candidates[0].cost.training
    assert (training.seconds, training.fits, training.measured) == (None, None, None)
    assert "measure_training" in training.unknown


def test_unasked_a_step_is_tried_where_a_pass_of_the_whole_detector_says_that_it_is_quick(
    small: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = []

    def takes(ms: float) -> None:
        cost = Cost(1000, ms, 1, "cpu", (64, 64), "the whole detector")
        kept.models().forget()
        monkeypatch.setattr(kept, "inference_cost", lambda *_: cost)

    def step(*args: Any) -> StepCost:
        tried.append(args)
        return StepCost(0.25, 0.125, 1 << 20)

    monkeypatch.setattr(costs, "measured_step", step)
    takes(1e6)
    assert shown(small, ranked(small)).candidates[0].cost.training.seconds is None
    assert tried == []
    takes(1e-3)
    assert shown(small, ranked(small)).candidates[0].cost.training.step_s == 0.25
    assert len(tried) == 1


@pytest.mark.slow
def test_a_fine_tuning_teaches_what_the_next_one_takes(small: Bench) -> None:
    id = ranked(small, measure_training=False)
    request = TERMS | {"dataset_id": DATASET, "checkpoint_id": CHECKPOINTS[0], "seed": 0, "name": None}
    request |= {"epochs": None, "budget_minutes": None, "data_dependent_init": None}

    def make(session: Session) -> None:
        verifications.add(session, workspace_id="ws_1", request=request)

    small.add(make)
    (job,) = work_all(small)
    assert job.state == "succeeded", job.error
    (step,) = steps(small)
    assert (step["measured"], step["peak_memory_bytes"]) == ("verification", None)
    # the ranking of before was asked by the quick recipe as it is, the next one goes by what the workspace did last
    assert shown(small, id).candidates[0].cost.training.seconds is None
    training = shown(small, ranked(small, measure_training=False)).candidates[1].cost.training
    assert (training.iterations, training.batch_size, training.measured) == (12, 2, "verification")
    looks = (training.seconds - 12 * step["step_s"]) / step["image_s"]
    assert looks == pytest.approx(round(looks), abs=0.5 / step["image_s"])
    assert looks > 0
    assert (training.fits, "memory" in training.unknown) == (None, True)


def test_what_does_not_fit_is_said_and_kept(small: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def too_much(*_: Any) -> None:
        raise MemoryError

    monkeypatch.setattr(costs, "measured_step", too_much)
    found = shown(small, ranked(small, measure_training=True, filters={"fits": True}))
    assert [one.cost.training.fits for one in found.candidates] == [False, False]
    assert all("it does not fit" in out.reason for out in found.left_out)
    assert steps(small)[0]["too_large"] is True


def test_a_step_that_cannot_be_tried_fails_nobody(small: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> None:
        raise RuntimeError("it is broken")

    monkeypatch.setattr(costs, "measured_step", broken)
    kept.models().forget()
    monkeypatch.setattr(kept, "inference_cost", broken)
    found = shown(small, ranked(small, measure_training=True))
    assert [one.state for one in found.candidates] == ["succeeded", "succeeded"]
    assert "it is broken" in found.candidates[0].cost.training.unknown
    assert found.candidates[0].cost.inference is None


def test_there_is_a_picture_of_it(small: Bench) -> None:
    row = small.get(Ranking, ranked(small, measure_training=False))
    assert small.get(Blob, row.cost_plot_sha256).media_type == "image/png"
    assert small.get(Candidate, (row.id, CHECKPOINTS[0])).timings["cost"] > 0
