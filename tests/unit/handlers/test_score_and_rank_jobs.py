"""Jobs `score` and `rank`: scores as they come, ranks at the end, one bad candidate apart."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from handler_bench import Bench
from sqlalchemy import select
from sqlalchemy.orm import Session
from test_ingest_job import coco, zipped

from app.db.tables import Blob, Candidate, Checkpoint, Event, Job, Ranking, Score
from app.queue import tree
from app.queue.states import JobKind
from worker.metrics import METRICS as METRICS_BY_NAME

pytestmark = pytest.mark.slow
METRICS = ["logme", "logme_boxes", "h_score", "leep"]
WEIGHTS = {
    "imagenet": "weights/mobilenet_v2_imagenet_b/mobilenet_v2_features.fp16.safetensors",
    "skin": "weights/mobilenet_v2_skin/mobilenet_v2_features.fp16.safetensors",
}


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory, shared_data: Path) -> Path:
    """The files of a bench with a ready dataset ds_1 and ready checkpoints ckpt_1 and ckpt_2."""
    folder = tmp_path_factory.mktemp("original")
    bench = Bench(folder, f"sqlite:///{folder / 'detrank.db'}")
    assert bench.work(bench.dataset(zipped(coco(folder / "set", images=10)))).state == "succeeded"
    for path in WEIGHTS.values():
        job = bench.work(bench.checkpoint((shared_data / path).read_bytes()))
        assert job.state == "succeeded", job.error
    bench.database.dispose()
    return folder


@pytest.fixture
def prepared(original: Path, tmp_path: Path) -> Iterator[Bench]:
    folder = tmp_path / "copy"
    shutil.copytree(original, folder)
    bench = Bench(folder, f"sqlite:///{folder / 'detrank.db'}")
    yield bench
    bench.database.dispose()


def ranking(bench: Bench, id: str = "rk_1", **changes: Any) -> list[str]:
    """A ranking of both checkpoints; the ids of its score jobs."""
    request = {
        "name": None,
        "metrics": METRICS,
        "layers": ["backbone.c3", "backbone.c4"],
        "layers_by_default": False,
        "level": "both",
        "max_images": 6,
        "image_size": 96,
        "seed": 1,
        "rank_by": {"metric": None, "layer": None, "level": None},
        "filters": {
            "max_parameters": None,
            "max_memory_bytes": None,
            "max_ms_per_image": None,
            "licences": None,
        },
    } | changes

    def make(session: Session) -> list[str]:
        row = Ranking(
            id=id,
            workspace_id="ws_1",
            dataset_id="ds_1",
            state="queued",
            request=request,
            created_at=bench.now,
        )
        session.add(row)
        session.flush()
        own = tree.add(session, JobKind.RANK, id, workspace_id="ws_1", max_attempts=2)
        row.job_id = own.id
        jobs = []
        for position, checkpoint_id in enumerate(("ckpt_1", "ckpt_2")):
            payload = {"checkpoint_id": checkpoint_id}
            job = tree.add(session, JobKind.SCORE, id, workspace_id="ws_1", parent=own, payload=payload)
            session.add(
                Candidate(
                    ranking_id=id,
                    checkpoint_id=checkpoint_id,
                    position=position,
                    state="queued",
                    job_id=job.id,
                )
            )
            jobs.append(job.id)
        return jobs

    return bench.add(make)


def scores(bench: Bench, id: str = "rk_1") -> dict[tuple, tuple]:
    with bench.database.reading() as session:
        rows = session.scalars(select(Score).where(Score.ranking_id == id)).all()
    return {(r.checkpoint_id, r.metric, r.layer, r.level): (r.value, r.undefined) for r in rows}


def calibrations(bench: Bench, id: str = "rk_1") -> dict[tuple, tuple]:
    with bench.database.reading() as session:
        rows = session.scalars(select(Score).where(Score.ranking_id == id)).all()
    return {
        (r.checkpoint_id, r.metric, r.layer, r.level): (
            r.details["null"],
            r.details["z"],
            r.details["interval"],
            r.replicates,
        )
        for r in rows
    }


def test_ranking_from_scores_to_order(prepared: Bench) -> None:
    bench = prepared
    for job_id in ranking(bench):
        job = bench.work(job_id)
        assert (job.state, job.error) == ("succeeded", None)
    found = scores(bench)
    assert len(found) == 2 * (len(METRICS) - 1) * 2 * 2 + 2
    # once for each candidate, at its own place, with the reason why there is none
    assert {key[2:]: undefined for key, (_, undefined) in found.items() if key[1] == "leep"} == {
        (
            "head.class_probabilities",
            "local",
        ): "no source class probabilities: a backbone alone: the head that was put on it was never trained"
    }
    assert all(value is None for (_, metric, *_), (value, _) in found.items() if metric == "leep")
    assert all(value is not None for (_, metric, *_), (value, _) in found.items() if metric == "logme_boxes")
    candidate = bench.get(Candidate, ("rk_1", "ckpt_1"))
    assert candidate.cost["parameters"] > 0
    assert {"load", "decode", "forward", "pool", "score", "calibrate", "total"} <= set(candidate.timings)
    with bench.database.reading() as session:
        told = session.scalars(select(Event).where(Event.stream_id == "rk_1", Event.kind == "score")).all()
    assert len(told) == len(found)

    row = bench.get(Ranking, "rk_1")
    assert (row.state, row.stage) == ("running", "ranking")
    assert bench.work(row.job_id).state == "succeeded"
    row = bench.get(Ranking, "rk_1")
    assert (row.state, row.error) == ("succeeded", None)
    order = [each["checkpoint_id"] for each in row.result["order"]]
    assert sorted(order) == ["ckpt_1", "ckpt_2"]
    place = row.result["ranked_by"]
    values = [found[id, place["metric"], place["layer"], place["level"]][0] for id in order]
    assert values == sorted(values, reverse=True) == [each["value"] for each in row.result["order"]]
    assert [bench.get(Candidate, ("rk_1", id)).rank for id in order] == [1, 2]
    for (_, metric, *_), (null, z, interval, replicates) in calibrations(bench).items():
        if metric == "logme_boxes":
            assert null["permutations"] == 20
            assert null["std"] > 0
            assert interval[0] < interval[1]
            assert len(replicates) == 6 * 8  # one group for each of the few images
            assert z is not None
        if metric == "leep":
            assert (null, z, interval, replicates) == (None, None, None, None)
    for each in row.result["order"]:
        _, z, interval, _ = calibrations(bench)[
            each["checkpoint_id"], place["metric"], place["layer"], place["level"]
        ]
        assert (each["z"], each["interval"]) == (z, interval)
    assert sum(each["score_chance_of_highest"] for each in row.result["order"]) == pytest.approx(1.0)
    # what mAP they will reach is written with the order
    assert row.belief is not None
    assert {each["checkpoint_id"] for each in row.belief["candidates"]} == {"ckpt_1", "ckpt_2"}
    assert row.believed_from
    assert sorted(id for group in row.result["groups"] for id in group) == ["ckpt_1", "ckpt_2"]
    assert row.result["summary"]
    assert {warning["code"] for warning in row.result["warnings"]} >= {"few_objects"}
    assert bench.get(Blob, row.plot_sha256).media_type == "image/png"
    assert bench.store.open(row.plot_sha256).read(4) == b"\x89PNG"
    assert bench.left_behind() == []


def test_second_run_takes_features_from_the_cache_and_gives_the_same_numbers(prepared: Bench) -> None:
    bench = prepared
    for id in ("rk_1", "rk_2"):
        for job_id in ranking(bench, id):
            assert bench.work(job_id).state == "succeeded"
    assert scores(bench, "rk_1") == scores(bench, "rk_2")
    assert calibrations(bench, "rk_1") == calibrations(bench, "rk_2")
    assert bench.get(Candidate, ("rk_1", "ckpt_1")).timings["cached"] is False
    assert bench.get(Candidate, ("rk_2", "ckpt_1")).timings["cached"] is True


def test_pool_relative_metrics_are_filled_in_when_all_have_ended(prepared: Bench) -> None:
    bench = prepared
    for job_id in ranking(bench, metrics=["etran"], layers=["backbone.c3"], level="local"):
        assert bench.work(job_id).state == "succeeded"
    assert {metric for _, metric, *_ in scores(bench)} == set(METRICS_BY_NAME["etran"].terms)
    bench.work(bench.get(Ranking, "rk_1").job_id)
    found = scores(bench)
    for id in ("ckpt_1", "ckpt_2"):
        value, undefined = found[id, "etran", "backbone.c3", "local"]
        assert (value is None) != (undefined is None)
    assert bench.get(Ranking, "rk_1").state == "succeeded"


def test_a_ranking_without_calibration_says_that_nothing_is_known(prepared: Bench) -> None:
    bench = prepared
    for job_id in ranking(
        bench, metrics=["logme_boxes"], layers=["backbone.c3"], level="local", calibrate=False
    ):
        assert bench.work(job_id).state == "succeeded"
    bench.work(bench.get(Ranking, "rk_1").job_id)
    assert set(calibrations(bench).values()) == {(None, None, None, None)}
    result = bench.get(Ranking, "rk_1").result
    assert (result["groups"], result["ties"]) == ([], [])
    assert [each["score_chance_of_highest"] for each in result["order"]] == [None, None]
    assert "no_interval" in {warning["code"] for warning in result["warnings"]}


def test_a_layer_that_is_not_there_fails_this_candidate_with_the_reason(prepared: Bench) -> None:
    job = prepared.work(ranking(prepared, layers=["encoder.memory"])[0])
    assert (job.state, job.attempt, job.error["code"]) == ("failed", 1, "unknown_layer")
    assert "backbone.c4" in job.error["detail"]


def test_one_corrupt_candidate_fails_alone(prepared: Bench) -> None:
    bench = prepared
    weights = bench.get(Checkpoint, "ckpt_1").weights_sha256
    path = bench.store.local_path(weights)
    path.write_bytes(path.read_bytes()[:1000])
    first, second = ranking(bench)
    job = bench.work(first)
    assert (job.state, job.error["type"]) == ("failed", "/problems/candidate_failed"), job.error
    assert bench.work(second).state == "succeeded"
    assert bench.work(bench.get(Ranking, "rk_1").job_id).state == "succeeded"
    row = bench.get(Ranking, "rk_1")
    assert row.state == "succeeded"
    assert [each["checkpoint_id"] for each in row.result["order"]] == ["ckpt_2"]
    assert [(out["checkpoint_id"], out["code"]) for out in row.result["left_out"]] == [("ckpt_1", "failed")]
    assert row.result["left_out"][0]["reason"] == job.error["detail"]
    assert bench.get(Candidate, ("rk_1", "ckpt_1")).rank is None


def test_filters_leave_out_with_the_reason(prepared: Bench) -> None:
    for job_id in ranking(prepared, filters={"max_parameters": 1}):
        prepared.work(job_id)
    prepared.work(prepared.get(Ranking, "rk_1").job_id)
    result = prepared.get(Ranking, "rk_1").result
    assert result["order"] == []
    assert [out["code"] for out in result["left_out"]] == ["filtered"] * 2


def test_a_second_attempt_writes_the_same_rows(prepared: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    import worker.handlers.ranking.scorable as handler

    bench, real, calls = prepared, handler.score, []

    def fails_at_the_third(*given: Any, **asked: Any) -> Any:
        calls.append(1)
        if len(calls) == 3:
            raise RuntimeError("the power went")
        return real(*given, **asked)

    monkeypatch.setattr(handler, "score", fails_at_the_third)
    job_id = ranking(bench)[0]
    job = bench.work(job_id)
    assert (job.state, job.error["code"]) == ("queued", "transient_failure")
    half = scores(bench)
    assert len(half) == 2 * (len(METRICS) - 1)
    with bench.database.unit_of_work() as session:
        session.get(Job, job_id).not_before = None
    assert bench.work(job_id).state == "succeeded"
    whole = scores(bench)
    assert len(whole) == 4 * (len(METRICS) - 1) + 1
    assert half.items() <= whole.items()


def test_lost_features_cache_and_unpacked_dataset_are_made_again(prepared: Bench) -> None:
    bench = prepared
    bench.work(ranking(bench)[0])
    before = scores(bench)
    shutil.rmtree(bench.settings.cache_dir)
    assert bench.work(ranking(bench, "rk_2")[0]).state == "succeeded"
    assert list(scores(bench, "rk_2").values()) == list(before.values())
