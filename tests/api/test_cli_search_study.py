"""`detrank search`, `searches`, `study run` and `studies` against a service whose jobs the test ends itself."""

import json
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from running import Workspace
from sqlalchemy.orm import Session
from test_searches import begin_round, ranked
from test_searches import posted as posted_search
from test_studies import conclude, whole
from test_studies import posted as posted_study
from typer.testing import CliRunner

from app.cli.main import build
from app.cli.waiting.work import wait_for_search
from app.db.tables import Search, Verification
from detrank import Client

Detrank = Callable[..., str]


@pytest.fixture
def detrank(space: Workspace, monkeypatch: pytest.MonkeyPatch) -> Detrank:
    """Runs a command in this process; its output, errors after it."""
    monkeypatch.setenv("COLUMNS", "200")
    root = build()

    def run(*words: object, code: int = 0) -> str:
        done = CliRunner().invoke(root, ["--url", space.service.url, "--key", space.key, *map(str, words)])
        assert done.exit_code == code, done.output
        return done.output

    return run


def test_a_search_from_the_command_line(space: Workspace, detrank: Detrank, tmp_path: Path) -> None:
    dataset, first, second = (
        space.dataset(name="set"),
        space.checkpoint(name="one"),
        space.checkpoint(name="two"),
    )
    made = json.loads(
        detrank(
            "search",
            dataset,
            first,
            second,
            "--minutes",
            5,
            "--iterations",
            60,
            "--val-images",
            7,
            "--strategy",
            "expected_improvement",
            "--parallel",
            2,
            "--min-improvement",
            0.01,
            "--no-wait",
            "--json",
        )
    )
    asked = made["request"]
    assert (asked["budget_minutes"], asked["iterations"], asked["max_val_images"]) == (5, 60, 7)
    assert (asked["strategy"], asked["parallel"], asked["min_improvement"]) == (
        "expected_improvement",
        2,
        0.01,
    )
    begin_round(space, ranked(space, made), expected_improvement=0.0123)
    text = detrank("searches", "show", made["id"], "--csv", tmp_path / "spent.csv")
    assert "what was spent where" in text
    assert "+0.0123" in text, "why each part was chosen"
    assert "spent 0.0 of 5.0 minutes" in text
    assert "on training, by expected improvement" in text
    assert (tmp_path / "spent.csv").read_text().count("\n") == 3
    assert made["id"] in detrank("searches", "list", "--state", "running")
    assert "cancelled" in detrank("searches", "cancel", made["id"])
    assert "running" in detrank("searches", "retry", made["id"])
    assert "no search" in detrank("searches", "show", "sr_1", code=1)


def test_waiting_follows_the_rounds_to_the_end(space: Workspace) -> None:
    made = ranked(space, posted_search(space))
    parts = begin_round(space, made)

    def work() -> None:
        for id in parts:
            time.sleep(0.1)
            job = space.http.get(f"/v1/verifications/{id}").json()["job_id"]
            space.finish(job)
        space.finish(space.http.get(f"/v1/searches/{made['id']}").json()["job_id"])

    with Client(space.service.url, space.key) as client:
        thread = threading.Thread(target=work)
        thread.start()
        assert wait_for_search(client, client.searches.get(made["id"]))["state"] == "succeeded"
        thread.join()


def test_a_search_that_ended_shows_its_winner(space: Workspace, detrank: Detrank) -> None:
    made = ranked(space, posted_search(space))
    winner, _ = begin_round(space, made)
    for id in space.http.get(f"/v1/verifications?search_id={made['id']}").json()["items"]:
        space.finish(id["job_id"])

    def write(session: Session) -> None:
        row, won = session.get(Search, made["id"]), session.get(Verification, winner)
        box = {"map": 0.4321, "ap50": 0.6}
        won.result, won.trained_checkpoint_id = (
            {"val": {"box": box}, "test": {"box": box}},
            made["checkpoint_ids"][0],
        )
        best = {
            "checkpoint_id": made["checkpoint_ids"][0],
            "verification_id": winner,
            "iterations": 20,
            "whole": False,
            "rank": 1,
        }
        row.result = {
            "names": dict.fromkeys(made["checkpoint_ids"], "one"),
            "ladder": [20, 60],
            "best": best,
            "summary": "the best of 2",
            "warnings": ["it was short"],
            "spent": {
                "budget_s": 60.0,
                "ranking_s": 6.0,
                "training_s": 30.0,
                "total_s": 36.0,
                "left_s": 24.0,
            },
            "brute_force": {
                "seconds": 120.0,
                "minutes": 2.0,
                "candidates": 2,
                "iterations": 60,
                "text": "an estimate",
            },
            "sure": {
                "runner_up": None,
                "margin": None,
                "at": None,
                "val_images": 3,
                "rounds_agree": [],
                "score_agrees": None,
                "text": "by luck",
            },
            "left_out": [
                {
                    "checkpoint_id": made["checkpoint_ids"][1],
                    "name": "x",
                    "code": "failed",
                    "reason": "it diverged",
                }
            ],
        }

    space.finish(space.http.get(f"/v1/searches/{made['id']}").json()["job_id"], write)
    text = detrank("searches", "show", made["id"])
    for word in (
        "left out: x: it diverged",
        "beware: it was short",
        "spent 0.6 of 1.0 minutes: 0.1 on scores, 0.5 on training",
        "the best of 2",
        "how sure: by luck",
        "brute force: about 2.0 minutes",
        f"fine-tuned weights: {made['checkpoint_ids'][0]}",
    ):
        assert word in text, text
    assert "0.4321" in detrank("searches", "list")


def test_a_study_from_the_command_line(space: Workspace, detrank: Detrank, tmp_path: Path) -> None:
    made = whole(space, name="mine")
    assert "no report yet" in detrank("studies", "report", made["id"], "--out", tmp_path / "early", code=1)
    conclude(space, made)
    text = detrank("studies", "show", made["id"])
    for word in (
        "mAP after fine-tuning",
        "0.400",
        "nothing beats the baselines",
        "left out: every candidate on a: it broke",
        "6/6 parts",
    ):
        assert word in text, text
    detrank("studies", "report", made["id"], "--out", tmp_path / "out")
    assert {
        str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*") if path.is_file()
    } == {
        "report.html",
        "correlations.csv",
        "study.json",
        "plots/a.png",
    }
    assert json.loads((tmp_path / "out" / "study.json").read_text())["id"] == made["id"]
    assert made["id"] in detrank("studies", "list", "--state", "succeeded")


def test_studies_are_made_stopped_and_tried_again(space: Workspace, detrank: Detrank) -> None:
    dataset, first, second = (
        space.dataset(name="set"),
        space.checkpoint(name="one"),
        space.checkpoint(name="two"),
    )
    words = ("study", "run", "-d", dataset, "-c", first, "-c", second, "--iterations", 5, "--no-wait")
    made = json.loads(detrank(*words, "--seeds", "3,4", "--no-reuse", "--json"))
    asked = made["request"]
    assert (asked["seeds"], asked["iterations"], asked["reuse"], len(made["trainings"])) == (
        [3, 4],
        5,
        False,
        4,
    )
    assert "whole numbers" in detrank(*words, "--seeds", "3,x", code=2)
    assert "cancelled" in detrank("studies", "cancel", made["id"])
    assert "running" in detrank("studies", "retry", made["id"])
    assert posted_study(space)["id"] in detrank("studies", "list")


def test_a_name_that_nobody_has_is_answered_with_those_that_there_are(
    space: Workspace, detrank: Detrank
) -> None:
    dataset = space.dataset(name="set")
    for name in ("cards", "cards of old", "dice"):
        space.checkpoint(name=name)
    far = detrank("search", dataset, "ships", "--minutes", 5, code=1)
    assert all(name in far for name in ("no checkpoint is called 'ships'", "dice", "cards of old"))
    near = detrank("search", dataset, "card", "--minutes", 5, code=1)
    assert "cards, " in near or ", cards" in near
    assert "dice" not in near
