"""POST /v1/rankings and what can be done to a ranking"""

import pytest
from running import Workspace

from app.services.catalogue import default, default_names, names, region_metrics


def test_a_ranking_has_a_job_for_each_candidate_and_every_default_filled_in(space: Workspace) -> None:
    dataset, first, second = space.dataset(), space.checkpoint(name="first"), space.checkpoint(name="second")
    answer = space.http.post("/v1/rankings", json={"dataset_id": dataset, "checkpoint_ids": [second, first]})
    assert answer.status_code == 202
    made = answer.json()
    assert answer.headers["location"] == f"/v1/rankings/{made['id']}"
    assert made["state"] == "queued"
    asked = made["request"]
    assert (asked["dataset_id"], asked["checkpoint_ids"]) == (dataset, [second, first])
    assert (asked["metrics"], asked["layers"]) == (default_names("metrics"), default_names("layers"))
    assert asked["layers_by_default"] is True
    assert (asked["level"], asked["seed"], asked["calibrate"]) == ("local", 0, None)
    assert set(asked) >= {"max_images", "image_size", "rank_by", "filters", "name"}
    assert [one["name"] for one in made["candidates"]] == ["second", "first"]
    for one in made["candidates"]:
        job = space.http.get(f"/v1/jobs/{one['job_id']}").json()
        assert (job["kind"], job["queue"], job["state"]) == ("score", "gpu", "queued")
        assert (job["resource_id"], job["checkpoint_id"]) == (made["id"], one["checkpoint_id"])


def test_what_is_asked_for_is_echoed(space: Workspace) -> None:
    asked = {
        "name": "mine",
        "metrics": ["logme", "transrate"],
        "layers": ["backbone.c5", "neck.roi"],
        "level": "both",
        "max_images": 10,
        "image_size": 320,
        "seed": 3,
        "calibrate": False,
        "rank_by": {"metric": "logme", "layer": "neck.roi", "level": "global", "quantity": "gain"},
        "measure_training": True,
        "filters": {
            "max_parameters": 5,
            "max_memory_bytes": None,
            "max_ms_per_image": 1.5,
            "max_inference_ms": 20.0,
            "max_inference_memory_bytes": None,
            "max_training_s": None,
            "max_training_memory_bytes": 2**33,
            "fits": True,
            "licences": ["MIT"],
        },
    }
    made = space.ranking(1, **asked)
    assert {name: made["request"][name] for name in asked} == asked
    assert made["request"]["layers_by_default"] is False
    assert made["name"] == "mine"


def test_the_zero_point_is_read_unless_it_is_not_wanted(space: Workspace) -> None:
    assert space.ranking(1)["request"]["zero_point"] is True
    assert space.ranking(1, zero_point=False)["request"]["zero_point"] is False


def test_regions_are_drawn_exactly_where_a_metric_reads_them(space: Workspace) -> None:
    usual = default("regions")
    assert usual["jittered"] > 0
    assert space.ranking(1, metrics=["logme", "tlogme"])["request"]["regions"] is None
    assert space.ranking(1, metrics=["logme", "detection_evidence"])["request"]["regions"] == usual
    asked = space.ranking(1, metrics=["logme_deltas"], regions={"jittered": 2, "hard": 0.5})
    assert asked["request"]["regions"] == usual | {"jittered": 2, "hard": 0.5}
    # where nobody names metrics, the level has those that it can
    whole = space.ranking(1, level="global")["request"]
    assert set(whole["metrics"]) == set(default_names("metrics")) - set(region_metrics())
    assert whole["regions"] is None


def test_the_maps_that_sizes_choose_from_are_read_where_no_layers_are_named(space: Workspace) -> None:
    by_size = {"metric": "logme", "layer": "size_matched", "level": None, "quantity": None}
    made = space.ranking(1, rank_by=by_size)["request"]
    assert made["rank_by"] == by_size
    assert made["layers"] == ["backbone.c3", "backbone.c4"]
    assert space.ranking(1)["request"]["layers"] == made["layers"], "it is the default"
    assert made["layers_by_default"] is True
    named = space.ranking(1, rank_by=by_size, layers=["backbone.c3", "neck.p4"])["request"]
    assert (named["layers"], named["layers_by_default"]) == (["backbone.c3", "neck.p4"], False)
    assert space.ranking(1, rank_by=by_size, layers=["all"])["request"]["layers"] == ["all"]


def test_null_is_an_answer_and_not_the_default(space: Workspace) -> None:
    left_out, null = space.ranking(1), space.ranking(1, max_images=None, image_size=None)
    assert (left_out["request"]["max_images"], left_out["request"]["image_size"]) == (
        default("max_images"),
        default("image_size"),
    )
    assert (null["request"]["max_images"], null["request"]["image_size"]) == (None, None)


def test_a_metric_alone_is_something_to_rank_by(space: Workspace) -> None:
    made = space.ranking(1, rank_by="transrate")
    assert made["request"]["rank_by"] == {
        "metric": "transrate",
        "layer": None,
        "level": None,
        "quantity": None,
    }


@pytest.mark.parametrize(
    ("fields", "pointers"),
    [
        ({"metrics": ["logme", "logmee"]}, ["/metrics/1"]),
        ({"metrics": ["logme", "logme"]}, ["/metrics/1"]),
        ({"metrics": []}, ["/metrics"]),
        ({"metrics": "logme"}, ["/metrics"]),
        ({"layers": ["backbone.c9"]}, ["/layers/0"]),
        ({"layers": ["backbone.c4", "backbone.c9"], "metrics": ["x"]}, ["/metrics/0", "/layers/1"]),
        ({"level": "nearby"}, ["/level"]),
        ({"calibrate": "perhaps"}, ["/calibrate"]),
        ({"max_images": 0}, ["/max_images"]),
        ({"max_images": 1.5}, ["/max_images"]),
        ({"image_size": 7}, ["/image_size"]),
        ({"seed": -1}, ["/seed"]),
        ({"seed": 10**30}, ["/seed"]),
        ({"rank_by": "nothing"}, ["/rank_by/metric"]),
        ({"metrics": ["logme"], "rank_by": "transrate"}, ["/rank_by/metric"]),
        ({"rank_by": {"layer": "neck.p6"}}, ["/rank_by/layer"]),
        ({"rank_by": {"level": "global"}}, ["/rank_by/level"]),
        ({"rank_by": {"colour": "red"}}, ["/rank_by/colour"]),
        ({"layers": ["head.class_probabilities"], "metrics": ["leep"]}, ["/layers/0"]),
        ({"metrics": ["logme"], "rank_by": {"layer": "head.class_probabilities"}}, ["/rank_by/layer"]),
        (
            {
                "metrics": ["logme", "leep"],
                "rank_by": {"metric": "logme", "layer": "head.class_probabilities"},
            },
            ["/rank_by/layer"],
        ),
        ({"metrics": ["leep"], "rank_by": {"metric": "leep", "layer": "backbone.c4"}}, ["/rank_by/layer"]),
        (
            {"metrics": ["leep"], "level": "global", "rank_by": {"metric": "leep", "level": "global"}},
            ["/rank_by/level"],
        ),
        ({"zero_point": "perhaps"}, ["/zero_point"]),
        ({"rank_by": {"quantity": "loss"}}, ["/rank_by/quantity"]),
        ({"zero_point": False, "rank_by": {"quantity": "gain"}}, ["/rank_by/quantity"]),
        ({"metrics": ["leep"], "rank_by": {"metric": "leep", "quantity": "gain"}}, ["/rank_by/quantity"]),
        (
            {"metrics": ["det_logme_like"], "rank_by": {"metric": "det_logme_like", "quantity": "gain"}},
            ["/rank_by/quantity"],
        ),
        ({"metrics": ["logme"], "regions": {}}, ["/regions"]),
        ({"metrics": ["logme_regions"], "regions": {"jittered": 0}}, ["/regions/jittered"]),
        ({"metrics": ["logme_regions"], "regions": {"background": 65}}, ["/regions/background"]),
        ({"metrics": ["logme_regions"], "regions": {"hard": 1.5}}, ["/regions/hard"]),
        ({"metrics": ["logme_regions"], "regions": {"shift": 0, "scale": 0}}, ["/regions/shift"]),
        ({"metrics": ["logme_regions"], "regions": {"colour": 1}}, ["/regions/colour"]),
        ({"metrics": ["logme", "logme_regions"], "level": "global"}, ["/metrics/1"]),
        (
            {
                "metrics": ["logme", "logme_regions"],
                "level": "both",
                "rank_by": {"metric": "logme_regions", "level": "global"},
            },
            ["/rank_by/level"],
        ),
        ({"layers": ["neck.roi"], "rank_by": {"layer": "size_matched"}}, ["/rank_by/layer"]),
        ({"metrics": ["leep"], "rank_by": {"metric": "leep", "layer": "size_matched"}}, ["/rank_by/layer"]),
        ({"layers": ["size_matched"]}, ["/layers/0"]),
        ({"filters": {"max_parameters": -1}}, ["/filters/max_parameters"]),
        ({"filters": {"colour": 1}}, ["/filters/colour"]),
        ({"name": "a\x00"}, ["/name"]),
        ({"metrix": []}, ["/metrix"]),
        ({"checkpoint_ids": []}, ["/checkpoint_ids"]),
        ({"checkpoint_ids": ["no"]}, ["/checkpoint_ids/0"]),
        ({"checkpoint_ids": ["ckpt_" + "0" * 32]}, ["/checkpoint_ids/0"]),
        ({"dataset_id": "ds_" + "0" * 32}, ["/dataset_id"]),
        ({"dataset_id": None}, ["/dataset_id"]),
        (
            {"dataset_id": "ds_" + "0" * 32, "checkpoint_ids": ["ckpt_" + "0" * 32]},
            ["/dataset_id", "/checkpoint_ids/0"],
        ),
    ],
)
def test_wrong_requests_point_at_each_field(space: Workspace, fields: dict, pointers: list[str]) -> None:
    body = {"dataset_id": space.dataset(), "checkpoint_ids": [space.checkpoint()]} | fields
    answer = space.http.post("/v1/rankings", json=body)
    assert answer.status_code == 422
    assert [error["pointer"] for error in answer.json()["errors"]] == pointers
    assert space.http.get("/v1/rankings").json()["items"] == []
    assert space.http.get("/v1/jobs?kind=score").json()["items"] == []


@pytest.mark.parametrize(
    "rank_by",
    [
        {"metric": "leep"},
        {"metric": "leep", "layer": "head.class_probabilities", "level": "local"},
        {"layer": "head.class_probabilities"},
        {"metric": "logme", "layer": "backbone.c4", "level": "global"},
    ],
)
def test_metrics_of_a_detectors_own_classes_have_their_place(space: Workspace, rank_by: dict) -> None:
    made = space.ranking(
        1, metrics=["logme", "leep"], layers=["backbone.c4"], level="global", rank_by=rank_by
    )
    assert (
        made["request"]["rank_by"]
        == {"metric": None, "layer": None, "level": None, "quantity": None} | rank_by
    )
    assert made["request"]["layers"] == ["backbone.c4"]


def test_the_place_of_a_detectors_own_classes_is_no_layer_to_ask_for(space: Workspace) -> None:
    body = {
        "dataset_id": space.dataset(),
        "checkpoint_ids": [space.checkpoint()],
        "layers": ["head.class_probabilities"],
    }
    answer = space.http.post("/v1/rankings", json=body).json()
    assert "leep and nce" in answer["errors"][0]["message"]
    (entry,) = (
        e for e in space.http.get("/v1/layers").json()["items"] if e["name"] == "head.class_probabilities"
    )
    assert entry["metrics"] == ["leep", "nce"]


def test_an_unknown_metric_lists_the_known(space: Workspace) -> None:
    body = {"dataset_id": space.dataset(), "checkpoint_ids": [space.checkpoint()], "metrics": ["logmee"]}
    detail = space.http.post("/v1/rankings", json=body).json()["detail"]
    assert all(name in detail for name in names("metrics"))
    assert "did you mean logme" in detail


def test_the_same_candidate_twice_is_refused(space: Workspace) -> None:
    one = space.checkpoint()
    answer = space.http.post(
        "/v1/rankings", json={"dataset_id": space.dataset(), "checkpoint_ids": [one, one]}
    )
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["pointer"] == "/checkpoint_ids/1"


def test_what_is_not_ready_is_a_conflict_that_says_what_to_do(space: Workspace) -> None:
    waiting, ready = space.dataset(ready=False), space.dataset()
    candidate, unread = space.checkpoint(), space.checkpoint(ready=False)
    answer = space.http.post("/v1/rankings", json={"dataset_id": waiting, "checkpoint_ids": [candidate]})
    assert answer.status_code == 409
    assert f"/v1/datasets/{waiting}" in answer.json()["detail"]
    answer = space.http.post(
        "/v1/rankings", json={"dataset_id": ready, "checkpoint_ids": [candidate, unread]}
    )
    assert answer.status_code == 409
    assert [error["pointer"] for error in answer.json()["errors"]] == ["/checkpoint_ids/1"]


def test_invalid_things_are_a_conflict_with_their_reason(space: Workspace) -> None:
    made = space.http.post("/v1/checkpoints", content=b"pickle").json()
    space.fail(made["job_id"], "it holds os.system")
    body = {"dataset_id": space.dataset(), "checkpoint_ids": [made["id"]]}
    answer = space.http.post("/v1/rankings", json=body)
    assert (answer.status_code, "os.system" in answer.json()["detail"]) == (409, True)


def test_things_of_another_workspace_are_as_unknown_as_none(space: Workspace, other: Workspace) -> None:
    mine, theirs = space.checkpoint(), other.checkpoint()
    body = {"dataset_id": other.dataset(), "checkpoint_ids": [mine, theirs]}
    answer = space.http.post("/v1/rankings", json=body)
    assert answer.status_code == 422
    assert [error["pointer"] for error in answer.json()["errors"]] == ["/dataset_id", "/checkpoint_ids/1"]


def test_more_candidates_than_allowed(space: Workspace) -> None:
    body = {"dataset_id": space.dataset(), "checkpoint_ids": [f"ckpt_{n:032x}" for n in range(201)]}
    answer = space.http.post("/v1/rankings", json=body)
    assert (answer.status_code, "200 allowed" in answer.json()["detail"]) == (422, True)


def test_cancel_ends_what_is_queued_and_repeats_without_harm(space: Workspace) -> None:
    made = space.ranking(2)
    first = space.http.post(f"/v1/rankings/{made['id']}:cancel")
    assert first.json()["state"] == "cancelled"
    assert {one["state"] for one in first.json()["candidates"]} == {"cancelled"}
    assert {one["code"] for one in first.json()["left_out"]} == {"cancelled"}
    again = space.http.post(f"/v1/rankings/{made['id']}:cancel")
    assert (again.status_code, again.json()["state"]) == (200, "cancelled")


def test_cancel_waits_for_what_is_running(space: Workspace) -> None:
    made = space.ranking(1)
    space.claim(made["candidates"][0]["job_id"])
    answer = space.http.post(f"/v1/rankings/{made['id']}:cancel")
    assert (answer.status_code, answer.json()["state"]) == (202, "cancelling")


def test_retry_tries_only_what_failed(space: Workspace) -> None:
    made = space.ranking(2)
    good, bad = (one["checkpoint_id"] for one in made["candidates"])
    assert space.http.post(f"/v1/rankings/{made['id']}:retry").status_code == 409
    space.score(made, good, 1.0)
    space.fail(space.job_of(made, bad))
    space.rank(made, [(good, 1.0)])
    answer = space.http.post(f"/v1/rankings/{made['id']}:retry")
    assert answer.status_code == 202
    states = {one["checkpoint_id"]: one["state"] for one in answer.json()["candidates"]}
    assert states == {good: "succeeded", bad: "queued"}
    space.score(made, bad, 2.0)
    space.rank(made, [(bad, 2.0), (good, 1.0)])
    shown = space.http.get(f"/v1/rankings/{made['id']}").json()
    assert [one["checkpoint_id"] for one in shown["candidates"]] == [bad, good]
    assert shown["left_out"] == []
    assert space.http.post(f"/v1/rankings/{made['id']}:retry").status_code == 409


def test_deleting_waits_for_the_end_and_takes_everything(space: Workspace) -> None:
    made = space.ranking(1)
    assert "cancel" in space.http.delete(f"/v1/rankings/{made['id']}").json()["detail"]
    space.score(made, made["candidates"][0]["checkpoint_id"], 1.0)
    space.rank(made, [(made["candidates"][0]["checkpoint_id"], 1.0)])
    assert space.http.delete(f"/v1/rankings/{made['id']}").status_code == 204
    assert space.http.get(f"/v1/rankings/{made['id']}").status_code == 404
    assert space.http.get("/v1/jobs", params={"resource_id": made["id"]}).json()["items"] == []
    assert space.http.delete(f"/v1/datasets/{made['dataset_id']}").status_code == 204


def test_filters_of_the_list(space: Workspace) -> None:
    one, two = space.ranking(1), space.ranking(1)
    space.http.post(f"/v1/rankings/{two['id']}:cancel")

    def found(**query: str) -> list[str]:
        return [
            each["id"]
            for each in space.http.get("/v1/rankings", params=query).raise_for_status().json()["items"]
        ]

    assert found() == [two["id"], one["id"]]
    assert found(state="queued") == found(dataset_id=one["dataset_id"]) == [one["id"]]
    assert found(checkpoint_id=two["candidates"][0]["checkpoint_id"]) == [two["id"]]
