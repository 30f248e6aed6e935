"""What `detrank verify` prints, and what `detrank rank --verify` asks for."""

from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console
from typer.testing import CliRunner

from app.cli.commands import rankings as rank
from app.cli.main import build
from app.cli.session import Failed
from app.cli.show import rankings as ranking_table
from app.cli.show import verifications as verification_table

Record = dict[str, Any]
BOX = {
    "map": 0.4321,
    "ap50": 0.7,
    "ap75": 0.4,
    "ap_small": None,
    "ap_medium": 0.3,
    "ap_large": 0.6,
    "ar1": 0.2,
    "ar10": 0.5,
    "ar100": 0.55,
}


def evaluation(**more: Any) -> Record:
    per_class = [
        {"category": "[red]", "objects": 7, "ap": 0.5, "ap50": 0.75},
        {"category": "blue", "objects": 0, "ap": None, "ap50": None},
    ]
    return {"box": BOX, "mask": None, "per_class": per_class, "images": 5, "objects": 7} | more


def verification(**changes: Any) -> Record:
    subset = {"kind": "shots", "value": 3.0, "seed": 1, "images": 4, "objects": 6, "missing": ["blue"]}
    return {
        "id": "vf_1",
        "name": None,
        "state": "succeeded",
        "recipe": "quick",
        "seed": 0,
        "test": evaluation(),
        "val": evaluation(images=2),
        "subset": subset,
        "warnings": ["few images"],
        "finished": "plateau",
        "iterations": 30,
        "seconds": 12.4,
        "best": {"iteration": 20},
        "progress": None,
        "error": None,
        "trained_checkpoint_id": "ckpt_9",
    } | changes


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    def show(module: Any, name: str, record: Record) -> str:
        monkeypatch.setattr(module, "out", Console(width=200))
        getattr(module, name)(record)
        return capsys.readouterr().out

    return show


def test_map_by_part_and_class_and_where_the_weights_are(shown: Any) -> None:
    text = shown(verification_table, "show_verification", verification())
    test, val = (next(line for line in text.splitlines() if f" {part} " in line) for part in ("test", "val"))
    assert all(value in test for value in ("0.4321", "0.7000", "0.5500", "–"))
    assert " 2 " in val
    assert "[red]" in text
    assert "learned from 4 images with 6 objects (shots 3, seed 1)" in text
    assert "beware: no object of blue among them" in text
    assert "quick: plateau after 30 iterations, 12 s; best at iteration 20" in text
    assert "fine-tuned weights: ckpt_9" in text


def test_masks_have_a_row_of_their_own(shown: Any) -> None:
    text = shown(
        verification_table, "show_verification", verification(test=evaluation(mask=BOX | {"map": 0.1234}))
    )
    assert "0.1234" in next(line for line in text.splitlines() if "test masks" in line)


def test_one_that_failed_says_why(shown: Any) -> None:
    error = {
        "title": "The checkpoint could not be fine-tuned",
        "detail": "the loss is no number: lower the rate",
    }
    none = dict.fromkeys(("test", "val", "finished", "trained_checkpoint_id"))
    assert "lower the rate" in shown(
        verification_table, "show_verification", verification(state="failed", error=error, **none)
    )


def test_a_ranking_shows_map_beside_the_scores_and_how_they_agree(shown: Any) -> None:
    measure = {"value": 0.333, "low": -0.5, "high": 0.9, "undefined": None}
    no_value = {"value": None, "low": None, "high": None, "undefined": "fewer than three"}
    names = ("pearson", "spearman", "kendall", "weighted_tau")
    rows = [
        {
            "kind": "metric",
            "metric": "logme",
            "layer": "backbone.c4",
            "level": "local",
            "n": 3,
            "measures": dict.fromkeys(names, measure),
        },
        {
            "kind": "metric",
            "metric": "elsewhere",
            "layer": "neck.p3",
            "level": "local",
            "n": 3,
            "measures": dict.fromkeys(names, measure),
        },
        {
            "kind": "baseline",
            "metric": "parameters",
            "layer": None,
            "level": None,
            "n": 2,
            "measures": dict.fromkeys(names, no_value),
        },
    ]
    score = {"metric": "logme", "layer": "backbone.c4", "level": "local", "value": 0.5, "undefined": None}
    candidate = {
        "checkpoint_id": "c",
        "name": "first",
        "rank": 1,
        "state": "succeeded",
        "timings": {"total": 1.0},
        "scores": [score],
        "cost": {"parameters": 1, "ms_per_image": 1.0, "peak_memory_bytes": 1, "licence": None},
        "value": 0.5,
        "interval": None,
        "near": [],
        "map": 0.4567,
        "verifications": [{"id": "vf_1"}],
    }
    ranking = {
        "id": "rk_1",
        "state": "succeeded",
        "order_by": "score",
        "ranked_by": {"metric": "logme", "layer": "backbone.c4", "level": "local"},
        "candidates": [candidate],
        "left_out": [],
        "summary": None,
        "warnings": [],
        "verified": [
            {
                "split": "test",
                "recipes": ["quick"],
                "correlations": rows,
                "summary": "3 candidates were fine-tuned",
            }
        ],
    }
    text = shown(ranking_table, "show_ranking", ranking)
    assert "0.457" in text
    assert "0.33" in text
    assert "-0.50 to 0.90" in text
    assert "undefined" in next(line for line in text.splitlines() if "parameters" in line and "2" in line)
    assert "elsewhere" not in text
    assert "3 candidates were fine-tuned" in text


def test_what_rank_verify_asks_for() -> None:
    assert rank.Verifying(epochs=None).fields() is None
    assert rank.Verifying(top_k="3", epochs=2.0, recipe=None).fields() == {"top_k": 3, "epochs": 2.0}
    assert rank.Verifying(top_k="all", recipe="quick").fields() == {"top_k": "all", "recipe": "quick"}
    for top, terms in (("some", {}), (None, {"epochs": 2.0})):
        with pytest.raises(Failed, match="--verify"):
            rank.Verifying(top_k=top, **terms).fields()


def test_rank_hands_on_what_the_trainings_are_to_be(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, Any] = {}

    class Rankings:
        def create(self, *ids: Any, **fields: Any) -> dict[str, Any]:
            asked.update(fields)
            return {"id": "rk_1", "state": "queued", "left_out": []}

    @contextmanager
    def connected(_: Any, __: str = "") -> Iterator[Any]:
        yield SimpleNamespace(rankings=Rankings())

    monkeypatch.setattr(rank, "connected", connected)
    monkeypatch.setattr(rank, "dataset_for", lambda *_: {"id": "ds_1"})
    monkeypatch.setattr(rank, "checkpoints_for", lambda *_: ([{"id": "ckpt_1"}], []))
    terms = [
        "--verify",
        "2",
        "--fraction",
        "0.1",
        "--train-size",
        "256",
        "--train-batch",
        "4",
        "--train-seeds",
        "0, 1",
        "--minutes",
        "5",
    ]
    answer = CliRunner().invoke(
        build(), ["rank", "set", "one", "--quantity", "value", *terms, "--no-wait", "--json"]
    )
    assert answer.exit_code == 0, answer.output
    assert asked["verify"] == {
        "top_k": 2,
        "label_fraction": 0.1,
        "image_size": 256,
        "batch_size": 4,
        "seeds": [0, 1],
        "budget_minutes": 5.0,
    }
    assert (asked["rank_by"], asked["image_size"]) == ({"quantity": "value"}, None)


@pytest.mark.parametrize(
    "words",
    [["verify"], ["verifications", "list"], ["verifications", "recipes"], ["checkpoints", "download"]],
)
def test_every_command_has_help(words: list[str]) -> None:
    answer = CliRunner().invoke(build(), [*words, "--help"])
    assert answer.exit_code == 0, answer.output
