"""What is predicted of a ranking's candidates: from the workspace's own verifications, and from nobody else's."""

import json
from typing import Any

from running import Record, Workspace
from typer.testing import CliRunner

from app.cli.main import build
from app.db.tables import Job, Ranking, Verification
from app.queue import ranking_order, ranking_verifications
from worker.beliefs import put, renew

PLAN = {"recipe": {"name": "quick"}, "iterations": 120, "images": 100, "image_size": 256, "batch_size": 4}


def ranked(space: Workspace) -> tuple[Record, list[str]]:
    made = space.ranking(2)
    ids = [one["checkpoint_id"] for one in made["candidates"]]
    for place, id in enumerate(ids):
        space.score(made, id, 1.0 - 0.1 * place)
    space.rank(made, [(id, 1.0 - 0.1 * place) for place, id in enumerate(ids)])
    with space.service.database.unit_of_work() as session:
        put(session, session.get(Ranking, made["id"]))
    return made, ids


def look(space: Workspace, made: Record, **asked: Any) -> Record:
    return space.http.get(f"/v1/rankings/{made['id']}", params=asked).raise_for_status().json()


def verified(space: Workspace, dataset_id: str, checkpoint_id: str, map: float) -> str:
    """A verification that has ended with this mAP."""
    body = {"dataset_id": dataset_id, "checkpoint_id": checkpoint_id, "recipe": "quick"}
    made = space.http.post("/v1/verifications", json=body).raise_for_status().json()

    def write(session: Any) -> None:
        row = session.get(Verification, made["id"])
        row.plan = PLAN
        box = {"map": map, "ap50": map}
        row.result = {"val": None, "test": {"box": box, "images": 9, "objects": 9}, "finished": "completed"}

    space.finish(made["job_id"], write)
    return made["id"]


def settle(space: Workspace) -> None:
    while renew(space.service.database):
        pass


def of(seen: Record, id: str) -> Record:
    return next(one for one in seen["candidates"] if one["checkpoint_id"] == id)


def test_a_ranking_says_what_map_is_to_be_expected(space: Workspace) -> None:
    made, _ids = ranked(space)
    seen = look(space, made)
    assert seen["belief"]["own_verifications"] == 0
    assert seen["order_by"] == "score"
    why = "the score orders: nothing was ever fine-tuned of the architecture of candidate 0, candidate 1;"
    assert [one for one in seen["belief"]["warnings"] if one.startswith(why)]
    assert not [
        one for one in look(space, made, order_by="score")["belief"]["warnings"] if one.startswith(why)
    ]
    for one in seen["candidates"]:
        told = one["predicted_map"]
        assert 0 <= told["low"] < told["mean"] < told["high"] <= 1
        assert told["level"] == 0.8
        assert one["far"], "no study had this architecture"
        sources = {"prior", "target", "candidate", "object_sizes", "scores", "pair"}
        assert sources == one["contributions"].keys()
    assert sum(one["chance_of_best"] for one in seen["candidates"]) == 1
    # of the score alone another chance is told
    assert [one["score_chance_of_highest"] for one in seen["candidates"]] == [1.0, 0.5]
    text = space.http.get(f"/v1/rankings/{made['id']}.csv").text
    header = text.splitlines()[0].split(",")
    assert {"predicted_map", "predicted_map_low", "chance_of_best", "score_chance_of_highest"} <= set(header)


def test_own_verifications_sharpen_it_for_other_rankings_too_and_are_taken_back(space: Workspace) -> None:
    made, ids = ranked(space)
    again = {"dataset_id": made["dataset_id"], "checkpoint_ids": ids}
    other = space.http.post("/v1/rankings", json=again).json()
    for id in ids:
        space.score(other, id, 1.0)
    space.rank(other, [(id, 1.0) for id in ids])
    settle(space)
    before = look(space, other)
    tag = space.http.get(f"/v1/rankings/{other['id']}").headers["ETag"]
    id = verified(space, made["dataset_id"], ids[1], 0.6)
    settle(space)
    after = look(space, other)
    assert after["belief"]["own_verifications"] == 1
    stale = space.http.get(f"/v1/rankings/{other['id']}", headers={"If-None-Match": tag})
    assert stale.status_code == 200
    was, now = of(before, ids[1])["predicted_map"], of(after, ids[1])["predicted_map"]
    assert abs(now["mean"] - 0.6) < 0.06
    assert now["high"] - now["low"] < 0.5 * (was["high"] - was["low"])
    assert of(after, ids[1])["chance_of_best"] > 0.6
    # of an architecture that nothing was learned from only the score orders; a training of one's own changes that
    assert (before["order_by"], before["candidates"][0]["checkpoint_id"]) == ("score", ids[0])
    assert (after["order_by"], after["candidates"][0]["checkpoint_id"]) == ("predicted_map", ids[1])
    by_score = look(space, other, order_by="score")
    assert (by_score["order_by"], by_score["candidates"][0]["checkpoint_id"]) == ("score", ids[0])
    early = look(space, made, order_by="predicted_map")
    assert (early["order_by"], early["candidates"][0]["checkpoint_id"]) == ("predicted_map", ids[1])
    assert space.http.get(f"/v1/rankings/{other['id']}", params={"order_by": "luck"}).status_code == 422
    space.http.delete(f"/v1/verifications/{id}").raise_for_status()
    gone = look(space, other)
    assert of(gone, ids[1])["predicted_map"] is None, "it stands on what was deleted"
    assert gone["order_by"] == "score"
    settle(space)
    assert of(look(space, other), ids[1])["predicted_map"] == was


def test_what_orders_by_itself_is_what_is_verified_first(space: Workspace) -> None:
    made, ids = ranked(space)
    by_name = space.ranking(2, dataset_id=made["dataset_id"], checkpoint_ids=ids, rank_by="tlogme")
    for id in ids:
        space.score(by_name, id, 1.0)
    space.rank(by_name, [(id, 1.0 - 0.1 * place) for place, id in enumerate(ids)])
    verified(space, made["dataset_id"], ids[1], 0.6)
    settle(space)
    assert look(space, made)["order_by"] == "predicted_map"
    assert "most probably reaches the highest mAP" in look(space, made)["summary"]
    page = space.http.get(f"/rankings/{made['id']}").raise_for_status().text
    assert "Ordered by the mAP that fine-tuning is predicted to reach" in page
    assert "chance of best" in page
    assert "as good as" in space.http.get(f"/rankings/{made['id']}?order_by=score").text
    # who names a score gets its order
    assert look(space, by_name)["order_by"] == "score"
    assert look(space, by_name)["candidates"][0]["checkpoint_id"] == ids[0]
    root = build()
    for words, order_by, first in (("predicted", "predicted_map", ids[1]), ("scored", "score", ids[0])):
        call = ["--url", space.service.url, "--key", space.key, "rankings", words, made["id"], "--json"]
        told = json.loads(CliRunner().invoke(root, call).output)
        assert (told["order_by"], told["candidates"][0]["checkpoint_id"]) == (order_by, first)
    for asked, first in ((made, ids[1]), (by_name, ids[0])):
        body = {"top_k": 1, "recipe": "quick", "seeds": [7]}
        shown = space.http.post(f"/v1/rankings/{asked['id']}/verifications", json=body).raise_for_status()
        trained = [one["checkpoint_id"] for one in shown.json()["candidates"] if one["verifications"]]
        assert trained == [first]


def test_the_best_by_prediction_are_fine_tuned_and_nobody_else_when_that_changes(space: Workspace) -> None:
    made, ids = ranked(space)
    verified(space, made["dataset_id"], ids[1], 0.6)
    body = {"dataset_id": made["dataset_id"], "checkpoint_ids": ids, "verify": {"top_k": 1, "seeds": [7]}}
    asked = space.http.post("/v1/rankings", json=body).raise_for_status().json()
    for id in ids:
        space.score(asked, id, 1.0)
    with space.service.database.unit_of_work() as session:
        put(session, session.get(Ranking, asked["id"]))
    space.rank(asked, [(id, 1.0 - 0.1 * place) for place, id in enumerate(ids)])

    def trained() -> list[str]:
        found = space.http.get("/v1/verifications", params={"ranking_id": asked["id"]}).json()["items"]
        return [each["checkpoint_id"] for each in found]

    assert trained() == [ids[1]]
    verified(space, made["dataset_id"], ids[0], 0.9)
    with space.service.database.unit_of_work() as session:
        row = session.get(Ranking, asked["id"])
        put(session, row)
        assert ranking_order.ordered(row) == ids
        # as the ranking's job does when it orders once more
        ranking_verifications.add_wanted(session, row, session.get(Job, row.job_id))
    assert trained() == [ids[1]]


def test_a_workspace_may_not_want_it_and_nothing_crosses_workspaces(
    space: Workspace, other: Workspace
) -> None:
    made, ids = ranked(space)
    theirs, _their_ids = ranked(other)
    settle(space)
    before = look(space, made), look(other, theirs)
    verified(space, made["dataset_id"], ids[0], 0.6)
    settle(space)
    assert look(space, made)["candidates"] != before[0]["candidates"]
    assert look(other, theirs)["candidates"] == before[1]["candidates"]
    assert space.http.get("/v1/workspace").json()["learns"] is True
    changed = space.http.patch("/v1/workspace", json={"learns": False})
    assert changed.json()["learns"] is False
    assert of(look(space, made), ids[0])["predicted_map"] is None, "it stands on what may not be used"
    settle(space)
    assert look(space, made)["candidates"][0]["predicted_map"] == before[0]["candidates"][0]["predicted_map"]
    assert look(space, made)["belief"]["own_verifications"] == 0
    assert other.http.get("/v1/workspace").json()["learns"] is True
    space.http.patch("/v1/workspace", json={"learns": True}).raise_for_status()
    settle(space)
    assert look(space, made)["belief"]["own_verifications"] == 1
    assert space.http.patch("/v1/workspace", json={"learn": True}).status_code == 422
