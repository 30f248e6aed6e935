"""Jobs on datasets whose pictures stay where they are: what is fetched, what it gives, and what a change at the source does."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from handler_bench import Bench
from small_service import CHECKPOINTS, _called, copied, work_all
from sqlalchemy import select

from app.db.tables import Candidate, Dataset, Job, Ranking, Score, Verification
from app.schemas.rankings import RankingCreate
from app.schemas.verifications import VerificationCreate
from app.services import ranking_requests, rankings, verifications
from tests.squares import squares
from worker.data.sources.local import LocalSource

SENT, STAYS = "ds_" + "1" * 32, "ds_" + "9" * 32


@pytest.fixture
def bench(small_service: Path, tmp_path: Path) -> Iterator[Bench]:
    """The small service with one more dataset: the pictures of the first, left where they are."""
    bench = copied(small_service, tmp_path / "copy")
    job = bench.work(bench.dataset(stays_at=squares(tmp_path / "set", images=12).resolve().as_uri()))
    assert (job.state, job.error) == ("succeeded", None)
    _called(bench, Dataset, job.resource_id, STAYS)
    yield bench
    bench.database.dispose()


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The pictures that are read at the source, as they are."""
    found: list[str] = []
    original = LocalSource.read

    def told(self: LocalSource, path: str, pin: object) -> bytes:
        found.append(path)
        return original(self, path, pin)

    monkeypatch.setattr(LocalSource, "read", told)
    return found


def forget(bench: Bench) -> None:
    """What this host has fetched so far, as on a host that never did."""
    shutil.rmtree(bench.settings.cache_dir / "pictures", ignore_errors=True)
    shutil.rmtree(bench.settings.cache_dir / "datasets", ignore_errors=True)


def ranked(bench: Bench, dataset: str, **fields: object) -> Ranking:
    asked = {
        "dataset_id": dataset,
        "checkpoint_ids": CHECKPOINTS[:2],
        "metrics": ["logme", "tlogme"],
        "image_size": 64,
        "zero_point": False,
        "calibrate": False,
        "rank_by": {"metric": "logme"},
    }
    with bench.database.unit_of_work() as session:
        request = ranking_requests.normalised(RankingCreate(**asked | fields), bench.settings)
        id = rankings.create(session, "ws_1", request).id
    work_all(bench)
    return bench.get(Ranking, id)


def scores(bench: Bench, ranking: Ranking) -> dict[tuple, float]:
    with bench.database.reading() as session:
        rows = session.scalars(select(Score).where(Score.ranking_id == ranking.id)).all()
    return {(row.checkpoint_id, row.metric, row.layer): row.value for row in rows}


def test_it_is_ready_and_holds_no_picture(bench: Bench, tmp_path: Path) -> None:
    row = bench.get(Dataset, STAYS)
    sent = bench.get(Dataset, SENT)
    assert (row.state, row.format, row.supervision) == ("ready", "coco", "boxes")
    for name in ("images", "annotations", "categories", "splits"):
        assert row.summary[name] == sent.summary[name], name
    assert len(row.previews) == 9
    with bench.store.open(row.archive_sha256) as file:
        assert len(file.read()) < 20_000 < sum(p.stat().st_size for p in (tmp_path / "set").rglob("*.png"))


def test_scores_are_those_of_the_same_pictures_sent(bench: Bench) -> None:
    stays, sent = (ranked(bench, id, max_images=None) for id in (STAYS, SENT))
    assert (stays.state, sent.state) == ("succeeded", "succeeded")
    found = scores(bench, sent)
    assert scores(bench, stays) == pytest.approx(found, rel=1e-5)
    assert len(found) >= 4
    assert [row["name"] for row in stays.result["order"]] == [row["name"] for row in sent.result["order"]]


def test_only_the_sample_of_a_ranking_is_fetched_and_once(bench: Bench, read: list[str]) -> None:
    forget(bench)
    assert ranked(bench, STAYS, max_images=5).state == "succeeded"
    assert len(read) == len(set(read)) == 5
    assert ranked(bench, STAYS, max_images=5, image_size=48).state == "succeeded"
    assert len(read) == 5
    assert bench.left_behind() == []


@pytest.mark.parametrize("cached", [False, True])
def test_a_picture_that_changed_fails_the_ranking_and_says_what_to_do(
    bench: Bench, tmp_path: Path, cached: bool
) -> None:
    if not cached:
        forget(bench)
    for path in (tmp_path / "set/train").glob("*.png"):
        path.write_bytes(path.read_bytes() + b"x")
    ranking = ranked(bench, STAYS, max_images=5)
    assert ranking.state == "failed"
    with bench.database.reading() as session:
        candidates = session.scalars(select(Candidate).where(Candidate.ranking_id == ranking.id)).all()
    for candidate in candidates:
        assert (candidate.error["code"], candidate.error["status"]) == ("source_changed", 409)
        assert "make the dataset anew" in candidate.error["detail"]
        assert candidate.error["retryable"] is False
    assert bench.left_behind() == []
    assert not list((bench.settings.cache_dir / "datasets").glob("*.part"))


def test_a_picture_that_is_no_picture_is_left_out_with_a_warning(bench: Bench, tmp_path: Path) -> None:
    folder = tmp_path / "broken"
    squares(folder, images=30)
    (folder / "train/7.png").write_bytes(b"no picture")
    job = bench.work(bench.dataset(stays_at=folder.resolve().as_uri()))
    _called(bench, Dataset, job.resource_id, "ds_" + "8" * 32)
    ranking = ranked(bench, "ds_" + "8" * 32, max_images=None)
    assert ranking.state == "succeeded"
    candidate = bench.get(Candidate, (ranking.id, CHECKPOINTS[0]))
    assert any("1 pictures of the sample" in line and "train/7.png" in line for line in candidate.warnings)


def test_a_training_fetches_what_it_learns_from_and_is_measured_on(bench: Bench, read: list[str]) -> None:
    forget(bench)
    asked = VerificationCreate(
        dataset_id=STAYS,
        checkpoint_id=CHECKPOINTS[0],
        iterations=2,
        image_size=64,
        batch_size=2,
        evaluations=1,
        label_fraction=0.5,
        precision="float32",
    )
    with bench.database.unit_of_work() as session:
        id = verifications.create(session, "ws_1", asked, bench.settings).id
    work_all(bench)
    row = bench.get(Verification, id)
    assert (row.state, row.error) == ("succeeded", None)
    assert row.result["test"]["images"] == 3
    assert sorted(path.partition("/")[0] for path in read) == ["test"] * 3 + ["train"] * 6 + ["valid"] * 3


def test_a_source_that_is_not_there_is_no_dataset(bench: Bench, tmp_path: Path) -> None:
    job = bench.work(bench.dataset(stays_at=(tmp_path / "nowhere").as_uri()))
    row = bench.get(Dataset, job.resource_id)
    assert (job.state, row.state) == ("failed", "invalid")
    assert (row.error["code"], row.error["status"]) == ("source_not_found", 422)
    assert "nowhere" in row.error["detail"]


def test_a_hub_that_cannot_be_reached_is_said_at_once(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    job: Job = bench.work(bench.dataset(stays_at="hf://datasets/org/one"))
    assert (job.state, job.attempt, job.error["code"]) == ("failed", 1, "source_offline")
    assert "127.0.0.1:9" in job.error["detail"]
