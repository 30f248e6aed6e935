"""Jobs `shard` and `score` of one candidate: its images read in parts, on hosts that share only database and storage."""

import io
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from handler_bench import Bench, picture
from sqlalchemy import delete, select
from test_ingest_job import zipped

import models_store
from app.db.tables import Candidate, FeatureFile, Job, Ranking, Score
from app.queue.states import JobKind
from app.services import rankings, works
from worker.metrics.statistics import NEEDS_FEATURES
from worker.models import models

METRICS = ["logme", "logme_boxes", "tlogme", "h_score", "transrate", "leep"]
FROM_STATISTICS = {"logme", "logme_boxes", "tlogme", "h_score"}


def scenes(folder: Path, images: int = 50, objects: int = 3) -> Path:
    """A COCO dataset of random pictures of two shapes, with boxes of three categories anywhere."""
    rng = np.random.default_rng(4)
    sizes = [(64, 48) if index % 3 else (48, 64) for index in range(images)]
    for index, size in enumerate(sizes):
        picture(folder, f"images/{index}.png", size, seed=index)
    annotations = []
    for number in range(images * objects):
        (width, height), (w, h) = sizes[number // objects], rng.uniform(10, 30, 2).round(1).tolist()
        x, y = rng.uniform(0, width - w), rng.uniform(0, height - h)
        annotations.append(
            {
                "id": number,
                "image_id": number // objects,
                "category_id": int(rng.integers(3)),
                "bbox": [round(x, 1), round(y, 1), w, h],
                "area": w * h,
                "iscrowd": 0,
            }
        )
    document = {
        "images": [
            {"id": i, "file_name": f"{i}.png", "width": w, "height": h} for i, (w, h) in enumerate(sizes)
        ],
        "annotations": annotations,
        "categories": [{"id": i, "name": name} for i, name in enumerate(("cat", "dog", "cow"))],
    }
    (folder / "annotations.json").write_text(json.dumps(document))
    return folder


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of a bench with a ready dataset ds_1 and a ready checkpoint ckpt_1: a ResNet-18, whose last bits depend on
    which images share a batch."""
    folder = tmp_path_factory.mktemp("original")
    bench = Bench(folder, f"sqlite:///{folder / 'detrank.db'}")
    assert bench.work(bench.dataset(zipped(scenes(folder / "set")))).state == "succeeded"
    torch.manual_seed(0)
    content = io.BytesIO()
    torch.save(torchvision.models.resnet18(weights=None).state_dict(), content)
    job = bench.work(bench.checkpoint(content.getvalue(), architecture="torchvision/resnet18"))
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


def ranking(bench: Bench, **changes: Any) -> str:
    request = {
        "dataset_id": "ds_1",
        "checkpoint_ids": ["ckpt_1"],
        "name": None,
        "metrics": METRICS,
        "layers": ["backbone.c2", "neck.roi"],
        "layers_by_default": False,
        "level": "local",
        "max_images": None,
        "image_size": 64,
        "seed": 1,
        "rank_by": {"metric": None, "layer": None, "level": None},
        "filters": {},
        "calibrate": True,
    } | changes
    return bench.add(lambda session: rankings.create(session, "ws_1", request).id)


def jobs(bench: Bench, ranking_id: str, kind: JobKind) -> list[str]:
    with bench.database.reading() as session:
        return list(
            session.scalars(
                select(Job.id).where(Job.resource_id == ranking_id, Job.kind == kind).order_by(Job.id)
            )
        )


def work(bench: Bench, *job_ids: str) -> None:
    for job_id in job_ids:
        job = bench.work(job_id)
        assert job.state == "succeeded", job.error


def finish(bench: Bench, ranking_id: str) -> dict[tuple, Score]:
    work(bench, *jobs(bench, ranking_id, JobKind.SHARD))
    work(bench, *jobs(bench, ranking_id, JobKind.SCORE))
    return scores(bench, ranking_id)


def scores(bench: Bench, ranking_id: str) -> dict[tuple, Score]:
    with bench.database.reading() as session:
        rows = session.scalars(select(Score).where(Score.ranking_id == ranking_id)).all()
    return {(row.metric, row.layer, row.level): row for row in rows}


def same(found: dict[tuple, Score], expected: dict[tuple, Score], exactly: bool = True) -> None:
    assert found.keys() == expected.keys()
    for key, row in expected.items():
        other = found[key]
        assert other.undefined == row.undefined, key
        for name in ("value", "z", "interval", "null"):
            one, two = (each.value if name == "value" else each.details[name] for each in (other, row))
            if name == "null" and two:
                one, two = one["mean"], two["mean"]
            if exactly or two is None:
                assert one == two, (key, name)
            else:  # at the neck there are more dimensions than objects, where features take another way than statistics
                limit = 1e-9 if key[1] == "backbone.c2" else 1e-7
                limit = 1e-6 if name == "z" else limit  # a small difference over a small spread
                assert one == pytest.approx(two, rel=limit, abs=limit), (key, name)


def forget_caches(bench: Bench, *, shared: bool = True) -> None:
    shutil.rmtree(bench.settings.cache_dir / "features", ignore_errors=True)
    if shared:
        bench.add(lambda session: session.execute(delete(FeatureFile)))


def candidate(bench: Bench, ranking_id: str) -> Candidate:
    return bench.get(Candidate, (ranking_id, "ckpt_1"))


@pytest.mark.parametrize("shards", [3, 20])
def test_parts_give_the_very_same_scores(bench: Bench, shards: int) -> None:
    whole = ranking(bench)
    expected = finish(bench, whole)
    assert any(row.value is not None and row.details["interval"] for row in expected.values())
    forget_caches(bench)
    cut = ranking(bench, shards=shards)
    assert len(jobs(bench, cut, JobKind.SHARD)) == shards
    assert [bench.get(Job, id).state for id in jobs(bench, cut, JobKind.SCORE)] == ["waiting"]
    same(finish(bench, cut), expected)
    found = candidate(bench, cut)
    assert (found.state, found.timings["shards"], found.timings["cached"]) == ("succeeded", shards, False)
    assert found.timings["forward"] > 0
    assert found.cost["image_hw"] == candidate(bench, whole).cost["image_hw"]
    with bench.database.reading() as session:
        assert len(session.scalars(select(FeatureFile)).all()) == 1, "the whole stays, the parts are spent"
    assert bench.left_behind() == []


@pytest.mark.parametrize("shards", [1, 3])
def test_statistics_alone_give_the_scores_of_the_features(bench: Bench, shards: int) -> None:
    expected = finish(bench, ranking(bench))
    forget_caches(bench)
    cut = ranking(bench, shards=shards, keep_features=False)
    found = finish(bench, cut)
    for key, row in found.items():
        if key[0] not in FROM_STATISTICS:
            assert row.value is None
            assert NEEDS_FEATURES in row.undefined
    same(
        {key: row for key, row in found.items() if key[0] in FROM_STATISTICS},
        {key: row for key, row in expected.items() if key[0] in FROM_STATISTICS},
        exactly=False,
    )
    assert any("features were not kept" in warning for warning in candidate(bench, cut).warnings)
    # other metrics from the same statistics: nothing is read again
    again = ranking(bench, shards=shards, keep_features=False, metrics=["h_score_regularized", "logme_boxes"])
    began = candidate(bench, cut).timings
    same(
        {key: row for key, row in finish(bench, again).items() if key[0] == "logme_boxes"},
        {key: row for key, row in expected.items() if key[0] == "logme_boxes"},
        exactly=False,
    )
    assert candidate(bench, again).timings["forward"] == began["forward"], "as it took then"


def test_statistics_are_gathered_by_themselves_where_features_are_too_large(bench: Bench) -> None:
    bench.settings.feature_table_bytes = 1000
    rows = finish(bench, ranking(bench))
    assert NEEDS_FEATURES in rows["transrate", "neck.roi", "local"].undefined
    rows = finish(bench, ranking(bench, keep_features=True))
    assert NEEDS_FEATURES not in (rows["transrate", "neck.roi", "local"].undefined or "")


def test_another_host_starts_from_what_is_in_storage(bench: Bench, tmp_path: Path) -> None:
    expected = finish(bench, ranking(bench, metrics=["logme"]))
    other = Bench(
        tmp_path / "other",
        str(bench.database.engine.url),
        storage_url=f"file://{bench.settings.home / 'storage'}",
    )
    second = ranking(other, metrics=["logme", "logme_boxes"])
    found = finish(other, second)
    assert candidate(other, second).timings["cached"] is True
    same({key: row for key, row in found.items() if key[0] == "logme"}, expected)
    third = ranking(other, shards=3, metrics=["h_score"])
    for job_id in jobs(other, third, JobKind.SHARD):
        assert other.work(job_id).progress_unit == "parts", "nothing to read"
    other.database.dispose()


def test_a_part_that_storage_lost_is_read_again(bench: Bench) -> None:
    expected = finish(bench, ranking(bench))
    forget_caches(bench)
    cut = ranking(bench, shards=3)
    work(bench, *jobs(bench, cut, JobKind.SHARD))
    with bench.database.unit_of_work() as session:
        first, second, _ = session.scalars(select(FeatureFile)).all()
        session.delete(first)
        path = bench.store.local_path(second.sha256)
    path.write_bytes(path.read_bytes()[:100])
    work(bench, *jobs(bench, cut, JobKind.SCORE))
    same(scores(bench, cut), expected)


def test_a_shard_is_read_once_even_if_its_worker_died_before_it_could_say_so(bench: Bench) -> None:
    cut = ranking(bench, shards=2)
    first, second = jobs(bench, cut, JobKind.SHARD)
    work(bench, first)
    with bench.database.unit_of_work() as session:  # as if it had to be done again
        job = session.get(Job, first)
        job.state, job.attempt, job.finished_at = "queued", 0, None
    assert bench.work(first).progress_unit == "parts"
    work(bench, second)
    assert [bench.get(Job, id).state for id in jobs(bench, cut, JobKind.SCORE)] == ["queued"]


def test_what_cannot_be_read_fails_the_candidate_with_the_reason(bench: Bench) -> None:
    cut = ranking(bench, shards=2, layers=["encoder.memory"])
    first, second = jobs(bench, cut, JobKind.SHARD)
    job = bench.work(first)
    assert (job.state, job.error["code"]) == ("failed", "unknown_layer")
    assert bench.get(Job, second).state == "cancelled"
    found = candidate(bench, cut)
    assert (found.state, found.error["code"]) == ("failed", "unknown_layer")
    again = bench.add(lambda session: works.retry(session, "ws_1", Ranking, cut).state)
    assert (again, candidate(bench, cut).state) == ("running", "queued")
    assert {bench.get(Job, each).state for each in (first, second)} == {"queued"}


def test_a_checkpoint_is_loaded_once_by_a_process(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded, real = [], models_store.load_detector

    def counted(*given: Any, **asked: Any) -> Any:
        loaded.append(given)
        return real(*given, **asked)

    monkeypatch.setattr(models_store, "load_detector", counted)
    expected = finish(bench, ranking(bench, shards=3))
    assert len(loaded) == 1
    assert [one["architecture"] for one in models().held()] == ["detrank/fasterrcnn_fpn"]
    forget_caches(bench)
    same(finish(bench, ranking(bench)), expected)
    assert len(loaded) == 1
    bench.settings.model_cache_bytes = 0
    models().forget()
    forget_caches(bench)
    finish(bench, ranking(bench, shards=2))
    assert len(loaded) == 4
    assert models().held() == []
