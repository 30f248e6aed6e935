"""Job `score` with a zero point: what the weights bring beyond the architecture's initial ones."""

import io
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from handler_bench import Bench
from sqlalchemy import select
from test_ingest_job import zipped
from test_shard_jobs import forget_caches, jobs, scenes, work

from app.db.tables import Candidate, Event, Job, Ranking, Score
from app.queue.states import JobKind
from app.services import rankings
from worker.features import reading as reading_module
from worker.handlers.ranking import zero_point as zero_point_module
from worker.models import models

METRICS = ["logme", "tlogme", "logme_regions", "detection_evidence", "leep"]
OF_FEATURES = METRICS[:-1]
BACKBONE = "mobilenet_v3_small"
INITIAL, LEARNED = "ckpt_1", "ckpt_2"
PLACE = ("backbone.c4", "local")


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of a bench with a ready dataset ds_1 and two checkpoints of one architecture: ckpt_1 with the initial weights
    of seed 0, ckpt_2 with others, as if it had learned."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("original")
    bench = Bench(folder, f"sqlite:///{folder / 'detrank.db'}")
    assert (
        bench.work(bench.dataset(zipped(scenes(folder / "set", images=12, objects=2)))).state == "succeeded"
    )
    for seed in (0, 5):
        torch.manual_seed(seed)
        content = io.BytesIO()
        torch.save(torchvision.models.get_model(BACKBONE, weights=None).state_dict(), content)
        job = bench.work(bench.checkpoint(content.getvalue(), architecture=f"torchvision/{BACKBONE}"))
        assert job.state == "succeeded", job.error
    bench.database.dispose()
    return folder


@pytest.fixture
def bench(original: Path, tmp_path: Path) -> Iterator[Bench]:
    folder = tmp_path / "copy"
    shutil.copytree(original, folder)
    found = Bench(folder, f"sqlite:///{folder / 'detrank.db'}")
    models().forget()
    yield found
    found.database.dispose()


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The weights that pictures were read with, one entry for each time a reading of them began."""
    begun, real = [], reading_module.Reader

    def counted(detector: Any, *given: Any, **named: Any) -> Any:
        begun.append(detector.manifest.weights_sha256)
        return real(detector, *given, **named)

    monkeypatch.setattr(reading_module, "Reader", counted)
    return begun


def ranking(bench: Bench, *checkpoints: str, **changes: Any) -> str:
    request = {
        "dataset_id": "ds_1",
        "checkpoint_ids": list(checkpoints or (LEARNED,)),
        "name": None,
        "metrics": METRICS,
        "layers": ["backbone.c4"],
        "layers_by_default": False,
        "level": "local",
        "max_images": None,
        "image_size": 64,
        "seed": 1,
        "rank_by": {"metric": None, "layer": None, "level": None},
        "filters": {},
        "calibrate": True,
        "zero_point": True,
        "regions": {"jittered": 2, "background": 2},
    } | changes
    return bench.add(lambda session: rankings.create(session, "ws_1", request).id)


def scored(bench: Bench, ranking_id: str) -> dict[tuple, Score]:
    """Does the work of all candidates; the rows by checkpoint, metric, layer and level."""
    work(bench, *jobs(bench, ranking_id, JobKind.SHARD))
    work(bench, *jobs(bench, ranking_id, JobKind.SCORE))
    with bench.database.reading() as session:
        rows = session.scalars(select(Score).where(Score.ranking_id == ranking_id)).all()
    return {(row.checkpoint_id, row.metric, row.layer, row.level): row for row in rows}


def sure(rows: dict[tuple, Score]) -> dict[tuple, list[float] | None]:
    return {key[1:]: row.details["gain_interval"] for key, row in rows.items()}


def zeros(rows: dict[tuple, Score]) -> dict[tuple, tuple]:
    return {key[1:]: (row.details["zero_point"], row.details["gain"]) for key, row in rows.items()}


def test_the_zero_point_is_what_the_initial_weights_score_themselves(bench: Bench) -> None:
    plain = scored(bench, ranking(bench, INITIAL, LEARNED, zero_point=False))
    assert set(zeros(plain).values()) == {(None, None)}
    found = scored(bench, ranking(bench))
    assert {metric for _, metric, *_ in found} == set(METRICS)
    for (_, metric, *place), row in found.items():
        if metric == "leep":
            assert (row.details["zero_point"], row.details["gain"]) == (None, None)
            assert not any("zero point" in note for note in row.details["notes"])
            continue
        of_initial = plain[INITIAL, metric, *place].value
        assert row.details["zero_point"] == of_initial, metric
        assert row.details["gain"] == row.value - of_initial
        left = np.frombuffer(row.replicates) - np.frombuffer(plain[INITIAL, metric, *place].replicates)
        assert np.frombuffer(row.gain_replicates) == pytest.approx(left, rel=1e-9, abs=1e-12)
        before = plain[LEARNED, metric, *place]
        # all else is as without
        assert (row.value, row.replicates) == (before.value, before.replicates)
        assert {name: row.details[name] for name in ("null", "z", "interval", "notes", "objects")} == {
            name: before.details[name] for name in ("null", "z", "interval", "notes", "objects")
        }


def test_candidates_of_one_architecture_share_it_and_no_picture_is_decoded_again(
    bench: Bench, read: list[str]
) -> None:
    candidate = ranking(bench)
    first = scored(bench, candidate)
    assert len(read) == 2
    assert read[1] == "untrained:0"
    timings = bench.get(Candidate, (candidate, LEARNED)).timings
    assert 0 < timings["zero_point"] < timings["total"]
    second = scored(bench, ranking(bench, name="again"))
    assert len(read) == 2, "all is in the cache"
    assert zeros(second) == zeros(first)
    # another candidate of this architecture: only its own reading is new
    scored(bench, ranking(bench, INITIAL))
    assert len(read) == 3
    assert read[2] != "untrained:0"
    plain = bench.get(Candidate, (ranking_without(bench), LEARNED)).timings
    assert plain["zero_point"] == 0.0


@pytest.mark.parametrize("changes", [{}, {"keep_features": False}])
def test_its_scores_are_computed_once_for_all_rankings_that_read_the_same(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, changes: dict
) -> None:
    first = scored(bench, ranking(bench, **changes))
    assert any(zero is not None for zero, _ in zeros(first).values())
    with monkeypatch.context() as patched:
        patched.setattr(zero_point_module, "Scorable", None)
        again = scored(bench, ranking(bench, name="again", **changes))
    assert zeros(again) == zeros(first)
    assert sure(again) == sure(first)
    # of other images, and by other groups of them, they are other scores
    other = scored(bench, ranking(bench, max_images=6, **changes))
    assert zeros(other) != zeros(first)
    assert sure(scored(bench, ranking(bench, seed=2, **changes))) != sure(first)
    # what was kept goes like features do
    forget_caches(bench)
    assert zeros(scored(bench, ranking(bench, **changes))) == zeros(first)


def ranking_without(bench: Bench) -> str:
    id = ranking(bench, zero_point=False)
    scored(bench, id)
    return id


def test_who_is_untrained_is_its_own_zero_point(bench: Bench, read: list[str]) -> None:
    found = scored(bench, ranking(bench, INITIAL))
    assert len(read) == 1, "it need not be read twice"
    gains = {metric: row.details["gain"] for (_, metric, *_), row in found.items()}
    assert gains == {**dict.fromkeys(OF_FEATURES, 0.0), "leep": None}


@pytest.mark.parametrize(
    "changes", [{"shards": 3}, {"keep_features": False}, {"shards": 2, "keep_features": False}]
)
def test_parts_and_statistics_have_the_same_zero_point(bench: Bench, read: list[str], changes: dict) -> None:
    rows = scored(bench, ranking(bench))
    whole, whole_sure = zeros(rows), sure(rows)
    forget_caches(bench)
    read.clear()
    rows = scored(bench, ranking(bench, **changes))
    found, found_sure = zeros(rows), sure(rows)
    assert read.count("untrained:0") == 1
    assert found.keys() == whole.keys()
    for key, (zero, gain) in found.items():
        if key[0] != "leep":
            assert zero == pytest.approx(whole[key][0], rel=1e-7), key
            assert gain == pytest.approx(whole[key][1], rel=1e-5, abs=1e-9), key
            assert whole_sure[key] is not None
            assert found_sure[key] == pytest.approx(whole_sure[key], rel=1e-5, abs=1e-7), key


def test_one_that_cannot_be_built_fails_nobody_and_is_said(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise RuntimeError("the library has changed")

    monkeypatch.setattr("worker.models.untrained", broken)
    found = scored(bench, ranking(bench))
    for (_, metric, *_), row in found.items():
        assert (row.details["zero_point"], row.details["gain"]) == (None, None)
        if metric != "leep":
            assert row.value is not None
            [note] = [note for note in row.details["notes"] if "zero point" in note]
            assert note == (
                "no zero point: the untrained detrank/fasterrcnn_fpn could not be read: RuntimeError: the library has changed"
            )


def test_one_without_a_value_says_why(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    real = zero_point_module.reading_of

    def blown_up(detector: Any, *given: Any, **asked: Any) -> Any:
        with torch.no_grad():
            next(detector.module.backbone.parameters()).fill_(1e38)
        return real(detector, *given, **asked)

    monkeypatch.setattr(zero_point_module, "reading_of", blown_up)
    row = scored(bench, ranking(bench))[LEARNED, "logme", *PLACE]
    assert row.value is not None
    assert (row.details["zero_point"], row.details["gain"]) == (None, None)
    assert any(
        note.startswith("no zero point: ") and "NaN or infinity" in note for note in row.details["notes"]
    )


def test_scores_are_there_before_and_survive_a_worker_that_dies_meanwhile(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    class PowerCut(OSError):
        """Nothing that the architecture is to blame for."""

    def dies(*_: Any, **__: Any) -> None:
        raise PowerCut("no space")

    id = ranking(bench)
    [job_id] = jobs(bench, id, JobKind.SCORE)
    with monkeypatch.context() as patched:
        patched.setattr("worker.models.untrained", dies)
        assert bench.work(job_id).state == "queued"
    with bench.database.reading() as session:
        rows = session.scalars(select(Score).where(Score.ranking_id == id)).all()
    assert {row.metric for row in rows} == set(METRICS)
    assert {row.details["zero_point"] for row in rows} == {None}
    with bench.database.unit_of_work() as session:
        session.get(Job, job_id).not_before = None
    found = scored(bench, id)
    assert zeros(found) == zeros(scored(bench, ranking(bench)))
    with bench.database.reading() as session:
        events = session.scalars(select(Event).where(Event.stream_id == job_id, Event.kind == "state")).all()
        told = session.scalars(select(Event).where(Event.stream_id == id, Event.kind == "score")).all()
    stages = [stage for event in events if (stage := event.data.get("stage"))]
    assert stages[-2:] == ["zero_point", "measuring"]
    last = {event.data["metric"]: (event.data["zero_point"], event.data["gain"]) for event in told}
    assert last == {key[0]: value for key, value in zeros(found).items()}


def test_the_order_says_who_brings_nothing(bench: Bench) -> None:
    id = ranking(bench, INITIAL, LEARNED)
    rows = scored(bench, id)
    work(bench, bench.get(Ranking, id).job_id)
    result = bench.get(Ranking, id).result
    by = result["ranked_by"]
    for each in result["order"]:
        details = rows[each["checkpoint_id"], by["metric"], by["layer"], by["level"]].details
        assert (each["zero_point"], each["gain"]) == (details["zero_point"], details["gain"])
    assert by["quantity"] == "gain"
    assert [each["gain"] for each in result["order"]] == sorted(
        (each["gain"] for each in result["order"]), reverse=True
    )
    gains = {each["checkpoint_id"]: each["gain"] for each in result["order"]}
    assert gains[INITIAL] == 0.0
    said = [warning["detail"] for warning in result["warnings"] if warning["code"] == "brings_nothing"]
    beaten = sorted(id for id, gain in gains.items() if gain <= 0)
    assert said[0].startswith("weights" if len(beaten) == 1 else "weights, weights")
    assert "not beat the untrained detrank/fasterrcnn_fpn over torchvision/mobilenet_v3_small: " in said[0]
    assert said[0].endswith("weights bring nothing to this dataset by detection_evidence")


def test_the_size_of_the_objects_chooses_the_map(bench: Bench) -> None:
    id = ranking(
        bench,
        INITIAL,
        LEARNED,
        layers=["backbone.c2", "backbone.c3", "backbone.c4", "backbone.c5"],
        layers_by_default=True,
        metrics=["logme"],
        regions=None,
        calibrate=False,
        rank_by={"metric": None, "layer": "size_matched", "level": None},
    )
    rows = scored(bench, id)
    assert {key[2] for key in rows} == {"backbone.c2", "backbone.c3", "backbone.c4", "backbone.c5"}
    pixels = {row.details["object_pixels"] for row in rows.values()}
    assert len(pixels) == 1
    # sides are 10 to 30 pixels of pictures whose shorter side grows from 48 to 64
    assert 10 < pixels.pop() < 40
    work(bench, bench.get(Ranking, id).job_id)
    by = bench.get(Ranking, id).result["ranked_by"]
    assert (by["layer"], by["chosen_by"]) == ("backbone.c4", "size of the objects")


@pytest.mark.parametrize("keep_features", [None, False])
def test_by_default_the_score_that_orders_alone_is_calibrated_and_with_the_same_numbers(
    bench: Bench, keep_features: bool | None
) -> None:
    every = scored(bench, ranking(bench, INITIAL, LEARNED, keep_features=keep_features))
    found = scored(bench, ranking(bench, INITIAL, LEARNED, keep_features=keep_features, calibrate=None))
    for key, row in found.items():
        same = every[key].details
        assert (row.value, row.details["gain"]) == (every[key].value, same["gain"])
        told = {name: row.details[name] for name in ("null", "z", "interval", "gain_interval")}
        if key[1] == "detection_evidence":
            assert told == {name: same[name] for name in told}
            assert all(told.values())
            assert row.replicates == every[key].replicates
        else:
            assert told == dict.fromkeys(told)
    of_metric = {"metric": "logme", "layer": None, "level": None}
    named = scored(bench, ranking(bench, keep_features=keep_features, calibrate=None, rank_by=of_metric))
    assert {metric for (_, metric, *_), row in named.items() if row.details["interval"]} == {"logme"}


def test_where_the_first_choice_has_no_value_the_next_is_calibrated(bench: Bench) -> None:
    # no source probabilities of a backbone alone
    of_source = {"metric": "leep", "layer": None, "level": None}
    found = scored(
        bench, ranking(bench, calibrate=None, metrics=["logme", "leep", "tlogme"], rank_by=of_source)
    )
    assert all(row.undefined for (_, metric, *_), row in found.items() if metric == "leep")
    assert {metric for (_, metric, *_), row in found.items() if row.details["gain_interval"]} == {"tlogme"}
