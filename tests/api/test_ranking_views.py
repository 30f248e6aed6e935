"""GET /v1/rankings/{id}, as JSON, CSV and picture"""

import csv
import io
import threading
import time
import uuid
from datetime import UTC, datetime

import pytest
from running import Record, Workspace
from sqlalchemy import select

from app.db.tables import Candidate, Checkpoint
from app.queue import training_costs

NAMES = ("slow", "=cheap", "undefined", "broken")


@pytest.fixture
def ranked(space: Workspace) -> Record:
    """A finished ranking: slow before =cheap, one without a value, one that failed."""
    candidates = [
        space.checkpoint(name=name, licence="MIT" if name == "=cheap" else "GPL-3.0") for name in NAMES
    ]
    body = {"dataset_id": space.dataset(), "checkpoint_ids": candidates}
    made = space.http.post("/v1/rankings", json=body).json()
    slow, cheap, undefined, broken = candidates
    space.score(made, slow, 2.0, ms_per_image=50.0, parameters=2000)
    space.score(made, cheap, 1.0)
    space.score(made, undefined, None, peak_memory_bytes=None)
    space.fail(space.job_of(made, broken), "no such layer")
    space.rank(made, [(slow, 2.0), (cheap, 1.0)], left_out=[undefined])
    return made


def names(shown: Record) -> list[tuple[str, int | None]]:
    return [(one["name"], one["rank"]) for one in shown["candidates"]]


def test_best_first_with_scores_costs_and_who_is_left_out(space: Workspace, ranked: Record) -> None:
    shown = space.http.get(f"/v1/rankings/{ranked['id']}").json()
    assert shown["state"] == "succeeded"
    assert shown["ranked_by"] == {
        "metric": "logme",
        "layer": "backbone.c4",
        "level": "local",
        "quantity": "value",
        "chosen_by": "default rule",
    }
    assert shown["progress"] == {"done": 4, "total": 4, "fraction": 1.0}
    assert names(shown) == [("slow", 1), ("=cheap", 2), ("undefined", None), ("broken", None)]
    best, _, undefined, broken = shown["candidates"]
    assert best["scores"] == [
        {
            "metric": "logme",
            "layer": "backbone.c4",
            "level": "local",
            "value": 2.0,
            "undefined": None,
            "seconds": 0.5,
            "null": {"mean": 0.5, "std": 0.1, "permutations": 20},
            "z": 15.0,
            "interval": [1.8, 2.2],
            "zero_point": 1.75,
            "gain": 0.25,
            "gain_interval": [0.125, 0.375],
            "pool_relative": False,
            "notes": [],
            "details": {"objects": 12},
        }
    ]
    assert (best["z"], best["interval"], best["score_chance_of_highest"], best["group"]) == (
        15.0,
        [1.8, 2.2],
        1.0,
        1,
    )
    assert (
        undefined["z"],
        undefined["interval"],
        undefined["score_chance_of_highest"],
        undefined["group"],
    ) == (None,) * 4
    assert (undefined["scores"][0]["null"], undefined["scores"][0]["interval"]) == (None, None)
    assert [(one["zero_point"], one["gain"]) for one in shown["candidates"]] == [
        (1.75, 0.25),
        (0.75, 0.25),
        (None, None),
        (None, None),
    ]
    assert [one["gain_interval"] for one in shown["candidates"]] == [
        [0.125, 0.375],
        [0.125, 0.375],
        None,
        None,
    ]
    assert (undefined["scores"][0]["zero_point"], undefined["scores"][0]["gain"]) == (None, None)
    assert shown["groups"] == [[one["checkpoint_id"]] for one in shown["candidates"][:2]]
    assert shown["summary"] == "each candidate can be told apart from the next"
    assert (undefined["scores"][0]["value"], undefined["scores"][0]["undefined"]) == (
        None,
        "only one category",
    )
    assert best["cost"] == {
        "parameters": 2000,
        "peak_memory_bytes": 10_000,
        "ms_per_image": 50.0,
        "device": "cpu",
        "licence": "GPL-3.0",
        "inference": None,
        "training": None,
    }
    assert (best["timings"], best["warnings"]) == ({"total": 1.5}, ["read at another layer"])
    assert best["baselines"] == {"parameters": {"value": 1000, "rank": 1}}
    assert (broken["state"], broken["error"]["detail"]) == ("failed", "no such layer")
    assert [(out["name"], out["code"]) for out in shown["left_out"]] == [
        ("x", "undefined"),
        ("broken", "failed"),
    ]
    assert shown["warnings"] == [{"code": "few_objects", "detail": "12 objects"}]


@pytest.mark.parametrize(
    ("query", "left", "reason"),
    [
        ("max_ms_per_image=10", [("=cheap", 1)], "50.0 ms per image"),
        ("max_parameters=1500", [("=cheap", 1)], "2,000 parameters"),
        ("licence=mit", [("=cheap", 1)], "its licence is GPL-3.0"),
        ("licence=mit&licence=gpl-3.0", [("slow", 1), ("=cheap", 2)], None),
        ("max_memory_bytes=10000", [("slow", 1), ("=cheap", 2)], None),
        ("max_memory_bytes=1", [], "10,000 bytes of memory"),
    ],
)
def test_filters_close_the_ranks_up_and_say_why(
    space: Workspace, ranked: Record, query: str, left: list[tuple[str, int]], reason: str | None
) -> None:
    shown = space.http.get(f"/v1/rankings/{ranked['id']}?{query}").json()
    assert [one for one in names(shown) if one[1] is not None] == left
    filtered = [out["reason"] for out in shown["left_out"] if out["code"] == "filtered"]
    assert (reason is None and not filtered) or any(reason in given for given in filtered)
    assert shown["summary"].startswith("before the filters") == (len(left) < 2)
    assert shown["groups"] == [
        [one["checkpoint_id"]] for one in shown["candidates"] if one["rank"] is not None
    ]
    assert names(space.http.get(f"/v1/rankings/{ranked['id']}").json())[0] == ("slow", 1)


@pytest.mark.parametrize(
    "query", ["max_parameters=x", "max_parameters=-1", "max_ms_per_image=nan", "licence=", "wait=61", "foo=1"]
)
def test_wrong_filters(space: Workspace, ranked: Record, query: str) -> None:
    assert space.http.get(f"/v1/rankings/{ranked['id']}?{query}").status_code == 422


INFERENCE = {"ms_per_image": 4.0, "peak_memory_bytes": 5000, "image_hw": [64, 64], "device": "cpu"}
TRAINING = {
    "key": "a" * 64,
    "recipe": "quick",
    "image_size": 320,
    "batch_size": 4,
    "iterations": 100,
    "budget_s": None,
    "val_looks": 10,
    "end_looks": 10,
    "pixels": 1000.0,
    "device": "a card",
    "memory_bytes": 10_000,
    "unknown": None,
}


@pytest.fixture
def costly(space: Workspace) -> Record:
    """Three candidates in the order best, middle, fast; the best cannot be trained here."""
    ids = [space.checkpoint(name=name) for name in ("best", "middle", "fast")]
    made = space.http.post("/v1/rankings", json={"dataset_id": space.dataset(), "checkpoint_ids": ids}).json()
    keys = [uuid.uuid4().hex * 2 for _ in ids]
    with space.service.database.unit_of_work() as session:
        for key, peak in zip(keys, (20_000, 5000, 2000), strict=True):
            step = {
                "step_s": 0.5,
                "image_s": 0.1,
                "peak_memory_bytes": peak,
                "pixels": 1000.0,
                "measured": "step",
            }
            training_costs.keep(session, key, step, datetime.now(UTC))
    for id, key, ms, value in zip(ids, keys, (30.0, 40.0, 10.0), (3.0, 2.0, 1.0), strict=True):
        cost = {"inference": INFERENCE | {"ms_per_image": ms}, "training": TRAINING | {"key": key}}
        space.score(made, id, value, **cost)
    space.rank(made, list(zip(ids, (3.0, 2.0, 1.0), strict=True)))
    return made


def test_what_fine_tuning_costs_and_who_is_on_the_frontier(space: Workspace, costly: Record) -> None:
    best, middle, fast = space.http.get(f"/v1/rankings/{costly['id']}").json()["candidates"]
    assert [one["frontier"] for one in (best, middle, fast)] == [True, False, True]
    training = middle["cost"]["training"]
    assert (training["seconds"], training["step_s"], training["fits"]) == (52.0, 0.5, True)
    assert (training["peak_memory_bytes"], training["memory_bytes"]) == (5000, 10_000)
    assert (best["cost"]["training"]["fits"], best["cost"]["training"]["unknown"] is None) == (False, False)
    assert middle["cost"]["inference"] == INFERENCE | {"ms_per_image": 40.0}


def test_a_step_that_was_measured_since_is_shown_to_whoever_polls(space: Workspace, costly: Record) -> None:
    address, other = f"/v1/rankings/{costly['id']}", f"/v1/rankings/{space.ranking(2)['id']}"
    before, untouched = space.http.get(address), space.http.get(other)
    with space.service.database.reading() as session:
        (key,) = session.scalars(
            select(Candidate.training_key)
            .join(Checkpoint, Checkpoint.id == Candidate.checkpoint_id)
            .where(Candidate.ranking_id == costly["id"], Checkpoint.name == "middle")
        )
    step = {"step_s": 0.25, "image_s": 0.1, "peak_memory_bytes": 4000, "pixels": 1000.0, "measured": "step"}
    with space.service.database.unit_of_work() as session:
        training_costs.keep(session, key, step, datetime.now(UTC))
    again = space.http.get(address, headers={"If-None-Match": before.headers["ETag"]})
    assert again.status_code == 200
    seconds = [one["cost"]["training"]["step_s"] for one in again.json()["candidates"]]
    assert seconds.count(0.25) == 1, seconds
    same = space.http.get(other, headers={"If-None-Match": untouched.headers["ETag"]})
    assert same.status_code == 304


@pytest.mark.parametrize(
    ("query", "left"),
    [
        ("fits=true", ["middle", "fast"]),
        ("fits=false", ["best"]),
        ("max_inference_ms=30", ["best", "fast"]),
        ("max_inference_memory_bytes=4999", []),
        ("max_training_s=52", ["best", "middle", "fast"]),
        ("max_training_s=51.9", []),
        ("max_training_memory_bytes=5000", ["middle", "fast"]),
        ("frontier=true", ["best", "fast"]),
        ("frontier=false", ["middle"]),
        # the frontier is that of those that are left
        ("frontier=true&fits=true", ["middle", "fast"]),
    ],
)
def test_filters_on_what_it_costs(space: Workspace, costly: Record, query: str, left: list[str]) -> None:
    shown = space.http.get(f"/v1/rankings/{costly['id']}?{query}").json()
    assert [one["name"] for one in shown["candidates"] if one["rank"] is not None] == left
    assert len([out for out in shown["left_out"] if out["code"] == "filtered"]) == 3 - len(left)
    table = csv.DictReader(io.StringIO(space.http.get(f"/v1/rankings/{costly['id']}.csv?{query}").text))
    assert [row["name"] for row in table if row["rank"]] == left


def test_the_table_has_what_it_costs(space: Workspace, costly: Record) -> None:
    rows = list(csv.DictReader(io.StringIO(space.http.get(f"/v1/rankings/{costly['id']}.csv").text)))
    assert [(row["inference_ms"], row["frontier"], row["training_s"], row["fits"]) for row in rows] == [
        ("30.0", "True", "52.0", "False"),
        ("40.0", "False", "52.0", "True"),
        ("10.0", "True", "52.0", "True"),
    ]
    assert rows[0]["training_recipe"] == "quick"


def test_the_picture_of_cost_once_there_is_one(space: Workspace, costly: Record) -> None:
    assert space.http.get(f"/v1/rankings/{costly['id']}/cost.png").status_code == 404


def test_the_page_shows_it_and_takes_limits(space: Workspace, costly: Record) -> None:
    page = space.http.get(f"/rankings/{costly['id']}").text
    assert page.count("◆</span>") == 2
    assert "fine-tuning" in page
    limited = space.http.get(f"/rankings/{costly['id']}?fits=true&max_parameters=&max_training_gib=0.1")
    assert limited.status_code == 200
    assert "its fine-tuning fits" not in limited.text
    assert "it does not fit" in limited.text
    assert (
        f"/v1/rankings/{costly['id']}.csv?fits=true&amp;max_training_memory_bytes=107374182" in limited.text
    )
    assert space.http.get(f"/rankings/{costly['id']}?max_inference_ms=x").status_code == 422
    candidate = costly["candidates"][0]["checkpoint_id"]
    assert "52 s" in space.http.get(f"/rankings/{costly['id']}/candidates/{candidate}").text


def test_a_table_for_spreadsheets_that_runs_no_formula(space: Workspace, ranked: Record) -> None:
    answer = space.http.get(f"/v1/rankings/{ranked['id']}.csv")
    assert answer.headers["content-type"].startswith("text/csv")
    rows = list(csv.DictReader(io.StringIO(answer.text)))
    assert [(row["rank"], row["name"]) for row in rows] == [
        ("1", "slow"),
        ("2", "'=cheap"),
        ("", "undefined"),
        ("", "broken"),
    ]
    assert rows[0]["logme@backbone.c4.local"] == "2.0"
    sure = [
        (row["interval_low"], row["interval_high"], row["z"], row["score_chance_of_highest"], row["group"])
        for row in rows
    ]
    assert sure == [
        ("1.8", "2.2", "15.0", "1.0", "1"),
        ("0.8", "1.2", "15.0", "0.5", "2"),
        ("",) * 5,
        ("",) * 5,
    ]
    assert [(row["zero_point"], row["gain"]) for row in rows] == [
        ("1.75", "0.25"),
        ("0.75", "0.25"),
        ("", ""),
        ("", ""),
    ]
    assert [(row["gain_low"], row["gain_high"]) for row in rows] == [
        ("0.125", "0.375"),
        ("0.125", "0.375"),
        ("", ""),
        ("", ""),
    ]
    assert rows[2]["logme@backbone.c4.local"] == ""
    assert rows[3]["left_out"] == "no such layer"
    only = csv.DictReader(io.StringIO(space.http.get(f"/v1/rankings/{ranked['id']}.csv?licence=MIT").text))
    assert [row["name"] for row in only if row["rank"]] == ["'=cheap"]


def test_the_plot_once_there_is_one(space: Workspace, ranked: Record) -> None:
    answer = space.http.get(f"/v1/rankings/{ranked['id']}/plot.png")
    assert (answer.headers["content-type"], answer.content[:4]) == ("image/png", b"\x89PNG")
    waiting = space.ranking(1)
    assert space.http.get(f"/v1/rankings/{waiting['id']}/plot.png").status_code == 409
    space.http.post(f"/v1/rankings/{waiting['id']}:cancel")
    assert space.http.get(f"/v1/rankings/{waiting['id']}/plot.png").status_code == 404


def test_polling_costs_nothing_until_something_changes(space: Workspace) -> None:
    made = space.ranking(1)
    first = space.http.get(f"/v1/rankings/{made['id']}")
    tag = {"If-None-Match": first.headers["etag"]}
    same = space.http.get(f"/v1/rankings/{made['id']}", headers=tag)
    assert (same.status_code, same.content, same.headers["etag"]) == (304, b"", first.headers["etag"])
    space.score(made, made["candidates"][0]["checkpoint_id"], 1.0)
    changed = space.http.get(f"/v1/rankings/{made['id']}", headers=tag)
    assert changed.status_code == 200
    assert changed.json()["candidates"][0]["scores"]


def test_waiting_for_the_next_change(space: Workspace) -> None:
    made = space.ranking(1)
    tag = {"If-None-Match": space.http.get(f"/v1/rankings/{made['id']}").headers["etag"]}
    timer = threading.Timer(0.5, space.claim, [made["candidates"][0]["job_id"]])
    timer.start()
    answer = space.http.get(f"/v1/rankings/{made['id']}?wait=20", headers=tag)
    timer.join()
    assert (answer.status_code, answer.json()["state"]) == (200, "running")


def test_waiting_ends_in_time_and_for_what_is_over(space: Workspace, ranked: Record) -> None:
    waiting = space.ranking(1)
    assert space.http.get(f"/v1/rankings/{waiting['id']}?wait=0.3").json()["state"] == "queued"
    tag = {"If-None-Match": space.http.get(f"/v1/rankings/{waiting['id']}").headers["etag"]}
    assert space.http.get(f"/v1/rankings/{waiting['id']}?wait=0.3", headers=tag).status_code == 304
    began = time.monotonic()
    assert space.http.get(f"/v1/rankings/{ranked['id']}?wait=25").json()["state"] == "succeeded"
    assert space.http.get(f"/v1/rankings/rk_{'0' * 32}?wait=25").status_code == 404
    assert time.monotonic() - began < 20


def test_another_workspace_sees_nothing_of_it(other: Workspace, ranked: Record) -> None:
    for path in ("", ".csv", "/plot.png", "/events", "?wait=1"):
        assert other.http.get(f"/v1/rankings/{ranked['id']}{path}").status_code == 404
    for action in (":cancel", ":retry"):
        assert other.http.post(f"/v1/rankings/{ranked['id']}{action}").status_code == 404
    assert other.http.delete(f"/v1/rankings/{ranked['id']}").status_code == 404
