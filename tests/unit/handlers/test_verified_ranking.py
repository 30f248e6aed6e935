"""Job `rank` of a ranking whose candidates were fine-tuned: mAP stands beside the scores, with how far they agree."""

from pathlib import Path

import pytest
from handler_bench import Bench
from sqlalchemy.orm import Session
from test_ingest_job import zipped

from app.db.tables import Blob, Candidate, Checkpoint, Job, Ranking, Score, Verification
from app.queue import tree, verifications
from app.queue.states import JobKind
from app.schemas.ranking_views import Verified
from tests.squares import squares

REQUEST = {
    "name": None,
    "metrics": ["logme"],
    "layers": ["backbone.c4"],
    "layers_by_default": False,
    "level": "local",
    "max_images": None,
    "image_size": 64,
    "seed": 1,
    "rank_by": {},
    "filters": {},
}
SCORES = (0.9, 0.7, 0.5, 0.3)


@pytest.fixture
def prepared(bench: Bench, tmp_path: Path) -> Bench:
    """A ranking rk_1 of four scored candidates ckpt_1 ... ckpt_4 with a logme that falls from one to the next."""
    assert bench.work(bench.dataset(zipped(squares(tmp_path / "set")))).state == "succeeded"

    def make(session: Session) -> None:
        session.add(
            Ranking(
                id="rk_1",
                workspace_id="ws_1",
                dataset_id="ds_1",
                state="running",
                request=REQUEST,
                created_at=bench.now,
            )
        )
        session.flush()
        for number, value in enumerate(SCORES, 1):
            id = f"ckpt_{number}"
            session.add(
                Checkpoint(
                    id=id,
                    workspace_id="ws_1",
                    name=f"candidate {number}",
                    state="ready",
                    request={},
                    parameters=number * 1000,
                    manifest={"layers": [], "published": {}},
                    created_at=bench.now,
                    updated_at=bench.now,
                )
            )
            session.flush()
            session.add(
                Candidate(
                    ranking_id="rk_1", checkpoint_id=id, position=number, state="succeeded", job_id="none"
                )
            )
            key = {
                "ranking_id": "rk_1",
                "checkpoint_id": id,
                "metric": "logme",
                "layer": "backbone.c4",
                "level": "local",
            }
            session.add(Score(**key, value=value, seconds=0.1, details={"notes": []}))

    bench.add(make)
    return bench


def fine_tuned(
    bench: Bench, maps: dict[int, float | None], seed: int = 0, split: str = "test", **terms: object
) -> None:
    """A verification for each candidate by its number; None: it failed."""

    def make(session: Session) -> None:
        for number, value in maps.items():
            request = {
                "dataset_id": "ds_1",
                "checkpoint_id": f"ckpt_{number}",
                "seed": seed,
                "name": None,
                "recipe": "quick",
                **terms,
            }
            position = session.query(Verification).count()
            row = verifications.add(session, workspace_id="ws_1", request=request, position=position)
            row.ranking_id = "rk_1"
            row.state = "failed" if value is None else "succeeded"
            if value is None:
                row.error = {"detail": "its loss is no number"}
            else:
                row.result = {
                    "val": {"box": {"map": value}},
                    "test": {"box": {"map": value}} if split == "test" else None,
                }

    bench.add(make)


def concluded(bench: Bench) -> Ranking:
    def asked(session: Session) -> str:
        row = session.get(Ranking, "rk_1")
        if row.job_id is None:
            row.job_id = tree.add(session, JobKind.RANK, "rk_1", workspace_id="ws_1").id
        else:
            tree.go_on(session, session.get(Job, row.job_id))
        return row.job_id

    job = bench.work(bench.add(asked))
    assert job.state == "succeeded", job.error
    return bench.get(Ranking, "rk_1")


def agreement(verified: dict, metric: str) -> dict:
    Verified.model_validate(verified)
    (row,) = (row for row in verified["correlations"] if row["metric"] == metric)
    return row


def test_scores_and_baselines_are_held_against_map(prepared: Bench) -> None:
    fine_tuned(prepared, {1: 0.6, 2: 0.5, 3: 0.4, 4: 0.1})
    row = concluded(prepared)
    (verified,) = row.result["verified"]
    assert (verified["candidates"], verified["split"], verified["seeds"], verified["without"]) == (
        4,
        "test",
        [0],
        {},
    )
    logme, size = agreement(verified, "logme"), agreement(verified, "parameters")
    assert (logme["kind"], logme["layer"], logme["n"]) == ("metric", "backbone.c4", 4)
    assert logme["measures"]["kendall"]["value"] == pytest.approx(1.0)
    assert (size["kind"], size["measures"]["weighted_tau"]["value"]) == ("baseline", pytest.approx(-1.0))
    assert "candidate 1 with mAP 0.600 on test" in verified["summary"]
    assert "weighted tau of 1.00 (n = 4" in verified["summary"]
    assert prepared.get(Blob, row.map_plot_sha256).media_type == "image/png"
    assert len(row.result["verified_ids"]) == 4
    assert row.state == "succeeded"


def test_two_candidates_say_that_they_are_too_few(prepared: Bench) -> None:
    fine_tuned(prepared, {1: 0.6, 2: 0.5, 3: None}, split="val")
    (verified,) = concluded(prepared).result["verified"]
    logme = agreement(verified, "logme")
    assert (logme["n"], logme["measures"]["pearson"]["value"]) == (2, None)
    assert logme["measures"]["pearson"]["undefined"]
    assert (verified["split"], verified["without"]) == ("val", {"ckpt_3": "its loss is no number"})
    assert "cannot be said" in verified["summary"]


def test_seeds_are_averaged_and_other_terms_stand_apart(prepared: Bench) -> None:
    fine_tuned(prepared, {1: 0.1, 2: 0.2, 3: 0.3}, epochs=1)
    for seed, gain in ((0, 0.0), (1, 0.2)):
        fine_tuned(prepared, {1: 0.5 + gain, 2: 0.4 + gain, 3: 0.3 + gain}, seed=seed, epochs=9)
    last, first = concluded(prepared).result["verified"]
    assert (last["seeds"], first["seeds"]) == ([0, 1], [0])
    assert agreement(last, "logme")["measures"]["spearman"]["value"] == pytest.approx(1.0)
    assert agreement(first, "logme")["measures"]["spearman"]["value"] == pytest.approx(-1.0)


def test_without_verifications_nothing_is_claimed(prepared: Bench) -> None:
    row = concluded(prepared)
    assert (row.result["verified"], row.result["verified_ids"], row.map_plot_sha256) == ([], [], None)
    fine_tuned(prepared, {1: None})
    assert concluded(prepared).result["verified"] == []
