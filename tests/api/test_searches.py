"""POST /v1/searches and what can be done to a search"""

import time

import pytest
from running import Record, Workspace
from sqlalchemy.orm import Session

from app.db.tables import Job, Search, Verification
from app.queue import leases, verifications
from tests.documents import search_result

BUDGET = {"budget_minutes": 30}


def posted(space: Workspace, checkpoints: int = 2, **fields) -> Record:
    ids = [space.checkpoint(name=f"candidate {n}") for n in range(checkpoints)]
    body = {"dataset_id": space.dataset(), "checkpoint_ids": ids} | BUDGET | fields
    return space.http.post("/v1/searches", json=body).raise_for_status().json()


def at(space: Workspace, search: Record) -> Record:
    return space.http.get(f"/v1/searches/{search['id']}").raise_for_status().json()


def ranked(space: Workspace, search: Record) -> Record:
    """The search with its ranking in order, its own job queued."""
    ranking = space.http.get(f"/v1/rankings/{search['ranking_id']}").json()
    for value, id in enumerate(search["checkpoint_ids"], 1):
        space.score(ranking, id, float(value))
    space.rank(ranking, [(id, 1.0 / n) for n, id in enumerate(search["checkpoint_ids"], 1)])
    return at(space, search)


def begin_round(space: Workspace, search: Record, **more: object) -> list[str]:
    """Ends the search's own job as a worker would, with a round of all candidates; ids of the verifications."""
    made: list[str] = []

    def write(session: Session) -> None:
        row, parts = session.get(Search, search["id"]), []
        for position, id in enumerate(search["checkpoint_ids"]):
            request = row.request["verification"] | {"checkpoint_id": id, "iterations": 60}
            part = verifications.add(
                session,
                workspace_id=row.workspace_id,
                request=request,
                parent=session.get(Job, row.job_id),
                position=position,
                stop_at={"iterations": 20, "seconds": None, "conclude": False},
            )
            made.append(part.id)
            parts.append(
                {
                    "checkpoint_id": id,
                    "verification_id": part.id,
                    "job_id": part.job_id,
                    "begin": 0,
                    "begin_s": 0.0,
                    "stop": 20,
                    "predicted_s": 5.0,
                    "seconds": None,
                    "trained_s": None,
                    "state": None,
                    "iterations": None,
                    "map": None,
                    "ap50": None,
                    "error": None,
                    **more,
                }
            )
        row.rounds = [
            {
                "kind": "round",
                "rung": 0,
                "stop": 20,
                "left_s": 1700.0,
                "predicted_s": 10.0,
                "seconds": None,
                "parts": parts,
            }
        ]
        names = dict.fromkeys(search["checkpoint_ids"], "one")
        row.result = search_result(search["budget_minutes"] * 60, ladder=[20, 60], names=names)

    space.finish(at(space, search)["job_id"], write)
    return made


def test_a_search_begins_with_its_ranking_and_every_default_filled_in(space: Workspace) -> None:
    made = posted(
        space,
        metrics=["logme"],
        layers=["backbone.c5"],
        max_images=50,
        image_size=256,
        rank_by="logme",
        seed=3,
    )
    job = space.http.get(f"/v1/jobs/{made['job_id']}").json()
    assert (job["kind"], job["state"], job["resource_id"]) == ("search", "queued", made["id"])
    assert (made["state"], made["stage"], made["rounds"], made["best"]) == (
        "queued",
        None,
        [],
        None,
    )
    asked = made["request"]
    assert (
        asked["recipe"],
        asked["iterations"],
        asked["image_size"],
        asked["eta"],
        asked["min_iterations"],
    ) == ("quick", 240, 256, 3, 20)
    assert asked["rank_by"] == {"metric": "logme", "layer": None, "level": None, "quantity": None}
    assert asked["zero_point"] is True
    assert (asked["strategy"], asked["parallel"], asked["min_improvement"]) == (None, None, 0.001)
    expecting = posted(space, strategy="expected_improvement", parallel=2, min_improvement=0)["request"]
    assert (expecting["strategy"], expecting["parallel"], expecting["min_improvement"]) == (
        "expected_improvement",
        2,
        0,
    )
    assert made["spent"] == {
        "budget_s": 1800.0,
        "ranking_s": 0.0,
        "training_s": 0.0,
        "total_s": 0.0,
        "left_s": 1800.0,
    }
    ranking = space.http.get(f"/v1/rankings/{made['ranking_id']}").json()["request"]
    assert (ranking["metrics"], ranking["layers"], ranking["max_images"], ranking["seed"]) == (
        ["logme"],
        ["backbone.c5"],
        50,
        3,
    )
    assert (ranking["calibrate"], ranking["zero_point"], ranking["image_size"]) == (False, True, 320)
    other = posted(space, zero_point=False)
    assert space.http.get(f"/v1/rankings/{other['ranking_id']}").json()["request"]["zero_point"] is False
    assert asked["verification"]["budget_minutes"] is None
    assert space.http.get("/v1/verifications").json()["items"] == []


def test_when_the_order_is_there_the_search_decides(space: Workspace) -> None:
    made = posted(space)
    ranking = space.http.get(f"/v1/rankings/{made['ranking_id']}").json()
    space.score(ranking, made["checkpoint_ids"][0], 1.0)
    assert (at(space, made)["state"], at(space, made)["stage"]) == ("running", "ranking")
    space.score(ranking, made["checkpoint_ids"][1], 2.0)
    space.rank(ranking, [(id, 1.0) for id in made["checkpoint_ids"]])
    now = at(space, made)
    assert (now["state"], now["stage"]) == ("running", "deciding")
    job = space.http.get(f"/v1/jobs/{now['job_id']}").json()
    assert (job["kind"], job["queue"], job["resource_id"]) == ("search", "cpu", made["id"])


def test_the_last_part_of_a_round_adds_the_next_decision(space: Workspace) -> None:
    made = ranked(space, posted(space))
    first, second = begin_round(space, made)
    now = at(space, made)
    assert (now["stage"], now["ladder"]) == ("training", [20, 60])
    assert [(part["state"], part["goes_on"]) for part in now["rounds"][0]["parts"]] == [("queued", None)] * 2
    jobs = [space.http.get(f"/v1/verifications/{id}").json()["job_id"] for id in (first, second)]
    space.fail(jobs[0], "it diverged")
    assert at(space, made)["stage"] == "training"
    space.finish(jobs[1])
    now = at(space, made)
    assert (now["stage"], now["job_id"]) == ("deciding", made["job_id"])
    assert space.http.get(f"/v1/jobs/{now['job_id']}").json()["state"] == "queued"
    assert [part["state"] for part in now["rounds"][0]["parts"]] == ["failed", "succeeded"]
    space.finish(now["job_id"])
    assert at(space, made)["state"] == "succeeded", "a decision without parts is the end"


def test_a_ranking_that_fails_is_the_end_and_the_reason(space: Workspace) -> None:
    made = posted(space, 1)
    ranking = space.http.get(f"/v1/rankings/{made['ranking_id']}").json()
    space.fail(space.job_of(ranking, made["checkpoint_ids"][0]), "no such layer")
    now = at(space, made)
    assert now["state"] == "failed"
    assert "no such layer" in now["error"]["detail"]
    again = space.http.post(f"/v1/searches/{made['id']}:retry")
    assert (again.status_code, again.json()["state"], again.json()["stage"]) == (202, "running", "ranking")
    ranked(space, made)
    assert at(space, made)["stage"] == "deciding"


@pytest.mark.parametrize("when", ["ranking", "deciding", "training"])
def test_it_is_cancelled_with_everything_and_goes_on_after_a_retry(space: Workspace, when: str) -> None:
    made = posted(space)
    if when != "ranking":
        made = ranked(space, made)
    parts = begin_round(space, made) if when == "training" else []
    answer = space.http.post(f"/v1/searches/{made['id']}:cancel")
    assert (answer.status_code, answer.json()["state"]) == (200, "cancelled")
    assert space.http.get("/v1/jobs?state=queued").json()["items"] == []
    for id in parts:
        assert space.http.get(f"/v1/verifications/{id}").json()["state"] == "cancelled"
    assert space.http.post(f"/v1/searches/{made['id']}:cancel").status_code == 200
    again = space.http.post(f"/v1/searches/{made['id']}:retry").json()
    assert (again["state"], again["stage"]) == ("running", when)
    assert again["cancel_requested_at"] is None
    assert (
        len(space.http.get("/v1/jobs?state=queued").json()["items"])
        == {"ranking": 2, "deciding": 1, "training": 2}[when]
    )
    for id in parts:
        space.finish(space.http.get(f"/v1/verifications/{id}").json()["job_id"])
    assert not parts or at(space, made)["stage"] == "deciding"


def test_a_running_part_is_waited_for(space: Workspace) -> None:
    made = ranked(space, posted(space))
    first, _ = begin_round(space, made)
    claim = space.claim(space.http.get(f"/v1/verifications/{first}").json()["job_id"])
    answer = space.http.post(f"/v1/searches/{made['id']}:cancel")
    assert (answer.status_code, answer.json()["state"]) == (202, "cancelling")
    refused = space.http.post(f"/v1/searches/{made['id']}:retry")
    assert refused.status_code == 409
    with space.service.database.unit_of_work() as session:
        leases.cancelled(session, claim)
    assert at(space, made)["state"] == "cancelled"


def test_one_with_its_answer_is_not_tried_again_nor_are_its_parts(space: Workspace) -> None:
    made = ranked(space, posted(space))
    first, second = begin_round(space, made)
    jobs = [space.http.get(f"/v1/verifications/{id}").json()["job_id"] for id in (first, second)]
    space.fail(jobs[0])
    space.finish(jobs[1])
    for refused in (f"/v1/verifications/{first}:retry", f"/v1/searches/{made['id']}:retry"):
        assert space.http.post(refused).status_code == 409, "it is being decided on"
    space.finish(at(space, made)["job_id"])
    for refused in (
        f"/v1/verifications/{first}:retry",
        f"/v1/searches/{made['id']}:retry",
        f"/v1/jobs/{jobs[0]}:retry",
    ):
        answer = space.http.post(refused)
        assert answer.status_code == 409
        assert "answer" in answer.json()["detail"]


def test_what_belongs_to_it_is_deleted_with_it_and_not_alone(space: Workspace) -> None:
    made = ranked(space, posted(space))
    parts = begin_round(space, made)
    assert space.http.delete(f"/v1/searches/{made['id']}").status_code == 409
    space.http.post(f"/v1/searches/{made['id']}:cancel")
    for alone in (f"/v1/rankings/{made['ranking_id']}", f"/v1/verifications/{parts[0]}"):
        assert made["id"] in space.http.delete(alone).json()["detail"]
    assert made["ranking_id"] in space.http.delete(f"/v1/datasets/{made['dataset_id']}").json()["detail"]
    assert space.http.delete(f"/v1/searches/{made['id']}", headers={"If-Match": 'W/"0"'}).status_code == 412
    assert space.http.delete(f"/v1/searches/{made['id']}").status_code == 204
    for gone in (
        f"/v1/searches/{made['id']}",
        f"/v1/rankings/{made['ranking_id']}",
        f"/v1/verifications/{parts[0]}",
    ):
        assert space.http.get(gone).status_code == 404
    assert space.http.delete(f"/v1/datasets/{made['dataset_id']}").status_code == 204


def test_lists_tables_plots_and_polling(space: Workspace, other: Workspace) -> None:
    made = ranked(space, posted(space, name="mine"))
    begin_round(space, made)
    (one,) = space.http.get(f"/v1/searches?dataset_id={made['dataset_id']}&state=running").json()["items"]
    assert (one["id"], one["name"], one["budget_minutes"], one["map"]) == (made["id"], "mine", 30, None)
    assert space.http.get(f"/v1/searches?checkpoint_id={made['checkpoint_ids'][0]}").json()["items"]
    assert space.http.get(f"/v1/searches?checkpoint_id=ckpt_{'0' * 32}").json()["items"] == []
    assert space.http.get(f"/v1/searches?dataset_id=ds_{'0' * 32}").json()["items"] == []
    rows = space.http.get(f"/v1/searches/{made['id']}.csv").text.splitlines()
    assert rows[0].startswith("round,kind,rung,checkpoint_id,name")
    assert len(rows) == 3
    assert space.http.get(f"/v1/searches/{made['id']}/plot.png").status_code == 409
    answer = space.http.get(f"/v1/searches/{made['id']}")
    same = space.http.get(f"/v1/searches/{made['id']}", headers={"If-None-Match": answer.headers["etag"]})
    assert (same.status_code, same.content) == (304, b"")
    assert other.http.get(f"/v1/searches/{made['id']}").status_code == 404
    assert other.http.get("/v1/searches").json()["items"] == []
    assert "GET /v1/searches" in other.http.delete(f"/v1/searches/{made['id']}").json()["detail"]


def test_its_events_tell_of_its_parts(space: Workspace) -> None:
    made = ranked(space, posted(space))
    begin_round(space, made)
    space.http.post(f"/v1/searches/{made['id']}:cancel")
    with space.http.stream("GET", f"/v1/searches/{made['id']}/events") as answer:
        text = "".join(answer.iter_text())
    for word in ('"ranking"', '"verification"', '"stage": "deciding"', "event: end"):
        assert word in text, text


@pytest.mark.parametrize(
    ("fields", "pointers"),
    [
        ({"budget_minutes": None}, ["/budget_minutes"]),
        ({"budget_minutes": 0}, ["/budget_minutes"]),
        ({"budget_minutes": 1e300}, ["/budget_minutes"]),
        ({"eta": 1}, ["/eta"]),
        ({"strategy": "luck"}, ["/strategy"]),
        ({"parallel": 0}, ["/parallel"]),
        ({"min_improvement": -1}, ["/min_improvement"]),
        ({"min_iterations": 0}, ["/min_iterations"]),
        ({"recipe": "quik"}, ["/recipe"]),
        ({"recipe": "detr"}, ["/recipe", "/recipe"]),
        ({"epochs": 1, "iterations": 5}, ["/iterations"]),
        ({"metrics": ["logmee"]}, ["/metrics/0"]),
        ({"rank_by": "nothing"}, ["/rank_by/metric"]),
        ({"shots": 5, "label_fraction": 0.5}, ["/shots"]),
        ({"checkpoint_ids": ["ckpt_" + "0" * 32]}, ["/checkpoint_ids/0"]),
        ({"dataset_id": "ds_" + "0" * 32}, ["/dataset_id"]),
        ({"budget": 3}, ["/budget"]),
    ],
)
def test_wrong_requests_point_at_each_field(space: Workspace, fields: dict, pointers: list[str]) -> None:
    body = (
        {"dataset_id": space.dataset(), "checkpoint_ids": [space.checkpoint(), space.checkpoint()]}
        | BUDGET
        | fields
    )
    answer = space.http.post("/v1/searches", json=body)
    assert answer.status_code == 422
    assert [error["pointer"] for error in answer.json()["errors"]] == pointers
    assert (
        space.http.get("/v1/searches").json()["items"] == space.http.get("/v1/rankings").json()["items"] == []
    )


def test_the_same_key_makes_one_search(space: Workspace) -> None:
    body = {"dataset_id": space.dataset(), "checkpoint_ids": [space.checkpoint()]} | BUDGET
    first, second = (
        space.http.post("/v1/searches", json=body, headers={"Idempotency-Key": "once"}).json()["id"]
        for _ in range(2)
    )
    assert first == second
    with space.service.database.reading() as session:
        assert session.query(Search).filter_by(workspace_id=space.id).count() == 1
        assert session.query(Verification).filter_by(workspace_id=space.id).count() == 0


def test_scoring_takes_its_share_and_no_more(space: Workspace) -> None:
    """Whoever waits when half of the budget is gone is not scored."""
    made = posted(space, 3, budget_minutes=0.0001)
    ranking = space.http.get(f"/v1/rankings/{made['ranking_id']}").json()
    first, *others = made["checkpoint_ids"]
    claim = space.claim(space.job_of(ranking, first))
    time.sleep(0.01)
    with space.service.database.unit_of_work() as session:
        leases.finish(session, claim)
    ranking = space.http.get(f"/v1/rankings/{made['ranking_id']}").json()
    assert [one["state"] for one in ranking["candidates"]] == ["succeeded", "cancelled", "cancelled"]
    assert (ranking["state"], ranking["stage"]) == ("running", "ranking")
    assert "50% of the search's budget" in ranking["candidates"][1]["error"]["detail"]
    assert [one["code"] for one in ranking["left_out"]] == ["cancelled"] * len(others)
    assert all("budget" in one["reason"] for one in ranking["left_out"])
    space.rank(ranking, [(first, 1.0)])
    assert at(space, made)["stage"] == "deciding"
