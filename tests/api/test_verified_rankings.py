"""Verifications as parts of a ranking: its best few, asked for at once or later"""

from typing import Any

import pytest
from running import Record, Workspace
from test_verifications import train


def ranked(space: Workspace, checkpoints: int = 3, **verify: Any) -> Record:
    """A ranking whose order is known: the candidates as asked for."""
    made = space.ranking(checkpoints, verify=verify or None)
    ids = [one["checkpoint_id"] for one in made["candidates"]]
    for place, id in enumerate(ids):
        space.score(made, id, 0.9 - place / 10)
    space.rank(made, [(id, 0.9 - place / 10) for place, id in enumerate(ids)])
    return space.http.get(f"/v1/rankings/{made['id']}").json()


def test_a_ranking_verifies_its_best_and_ends_when_they_have(space: Workspace) -> None:
    ranking = ranked(space, top_k=2, recipe="quick", seeds=[0, 1])
    assert (ranking["state"], ranking["stage"]) == ("running", "verifying")
    first, second, third = ranking["candidates"]
    assert ([len(one["verifications"]) for one in ranking["candidates"]], third["map"]) == ([2, 2, 0], None)
    rows = space.http.get("/v1/verifications", params={"ranking_id": ranking["id"]}).json()["items"]
    assert len(rows) == 4
    assert {row["recipe"] for row in rows} == {"quick"}
    for value, row in zip(
        (0.4, 0.6), [row for row in rows if row["checkpoint_id"] == first["checkpoint_id"]], strict=True
    ):
        train(space, row, value)
    shown = space.http.get(f"/v1/rankings/{ranking['id']}").json()
    assert shown["candidates"][0]["map"] == pytest.approx(0.5)
    for row in rows:
        if row["checkpoint_id"] == second["checkpoint_id"]:
            space.fail(row["job_id"])
    shown = space.http.get(f"/v1/rankings/{ranking['id']}").json()
    assert (shown["state"], shown["stage"]) == ("running", "concluding")
    table = space.http.get(f"/v1/rankings/{ranking['id']}.csv").text.split("\r\n")
    place = table[0].split(",").index("map")
    assert [line.split(",")[place] for line in table[1:4]] == ["0.5", "", ""]


def test_what_is_wrong_with_verify_is_said_when_the_ranking_is_asked_for(space: Workspace) -> None:
    body = {"dataset_id": space.dataset(), "checkpoint_ids": [space.checkpoint()]}
    for verify, pointer in (
        ({"top_k": 0}, "/verify/top_k"),
        ({"top_k": "some"}, "/verify/top_k"),
        ({"seeds": []}, "/verify/seeds"),
        ({"seeds": [1, 1]}, "/verify/seeds/1"),
        ({"recipe": "detr"}, "/verify/recipe"),
        ({"recipe": "nothing"}, "/verify/recipe"),
        ({"epochs": 1, "budget_minutes": 1}, "/verify/budget_minutes"),
        ({"colour": 1}, "/verify/colour"),
    ):
        answer = space.http.post("/v1/rankings", json=body | {"verify": verify})
        assert answer.status_code == 422, verify
        assert answer.json()["errors"][0]["pointer"].startswith(pointer), verify


def test_a_finished_ranking_can_be_verified_later(space: Workspace) -> None:
    ranking = ranked(space)
    assert ranking["state"] == "succeeded"
    path = f"/v1/rankings/{ranking['id']}/verifications"
    stranger = space.checkpoint()
    answer = space.http.post(path, json={"checkpoint_ids": [stranger]})
    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, "/checkpoint_ids/0")
    headers = {"Idempotency-Key": "later"}
    answer = space.http.post(path, json={"top_k": 1, "iterations": 5}, headers=headers)
    assert answer.status_code == 202
    assert (answer.json()["state"], answer.json()["stage"]) == ("running", "verifying")
    assert [len(one["verifications"]) for one in answer.json()["candidates"]] == [1, 0, 0]
    assert space.http.post(path, json={"top_k": 1, "iterations": 5}, headers=headers).status_code == 202
    assert space.http.post(path, json={"top_k": 2}).status_code == 409, "it is at work"
    (row,) = space.http.get("/v1/verifications", params={"ranking_id": ranking["id"]}).json()["items"]
    assert "verification" in space.http.delete(f"/v1/verifications/{row['id']}").json()["detail"]
    train(space, row)
    assert space.http.get(f"/v1/rankings/{ranking['id']}").json()["stage"] == "concluding"


def test_a_ranking_shows_at_once_that_what_its_verifications_made_is_gone(space: Workspace) -> None:
    ranking = ranked(space, top_k=1, iterations=5)
    (row,) = space.http.get("/v1/verifications", params={"ranking_id": ranking["id"]}).json()["items"]
    train(space, row)
    space.finish(ranking["job_id"])
    path = f"/v1/rankings/{ranking['id']}"

    def look(tag: str | None = None) -> tuple[list[Record], str]:
        answer = space.http.get(path, headers={"If-None-Match": tag} if tag else {})
        assert answer.status_code == 200, "it is not what it was"
        shown = [each for one in answer.json()["candidates"] for each in one["verifications"]]
        return shown, answer.headers["ETag"]

    ((before,), tag) = look()
    assert space.http.delete(f"/v1/checkpoints/{before['trained_checkpoint_id']}").status_code == 204
    ((after,), tag) = look(tag)
    assert after == before | {"trained_checkpoint_id": None}
    assert space.http.delete(f"/v1/verifications/{row['id']}").status_code == 204
    assert look(tag)[0] == []


def test_a_ranking_without_an_order_has_nothing_to_verify(space: Workspace) -> None:
    ranking = space.ranking(1)
    answer = space.http.post(f"/v1/rankings/{ranking['id']}/verifications", json={})
    assert (answer.status_code, "no order" in answer.json()["detail"]) == (409, True)


def test_cancelling_and_deleting_a_ranking_takes_its_verifications(space: Workspace) -> None:
    ranking = ranked(space, top_k="all", iterations=3)
    answer = space.http.post(f"/v1/rankings/{ranking['id']}:cancel").json()
    assert answer["state"] == "cancelled"
    assert {each["state"] for one in answer["candidates"] for each in one["verifications"]} == {"cancelled"}
    again = space.http.post(f"/v1/rankings/{ranking['id']}:retry").json()
    assert (again["state"], again["stage"]) == ("running", "verifying")
    space.http.post(f"/v1/rankings/{ranking['id']}:cancel")
    assert space.http.delete(f"/v1/rankings/{ranking['id']}").status_code == 204
    assert space.http.get("/v1/verifications", params={"ranking_id": ranking["id"]}).json()["items"] == []
