"""POST /v1/verifications and what can be done to a verification, alone and as a part of a ranking"""

import io
import json
import zipfile
from typing import Any

import pytest
from running import Record, Workspace
from sqlalchemy.orm import Session

from app.db.tables import Checkpoint, Dataset, Subset, Verification
from app.queue import events, leases
from app.services.catalogue import catalogue, names

NONE_THERE = {"dataset_id": "ds_" + "0" * 32, "checkpoint_id": "ckpt_" + "0" * 32}


def evaluation(value: float) -> Record:
    return {
        "box": {"map": value, "ap50": value + 0.1, "ap75": value},
        "mask": None,
        "per_class": [],
        "images": 3,
    }


def asked(space: Workspace, **fields: Any) -> Record:
    body = {"dataset_id": space.dataset(), "checkpoint_id": space.checkpoint()} | fields
    return space.http.post("/v1/verifications", json=body).raise_for_status().json()


def _image(id: int) -> Record:
    box = [1.0, 2.0, 30.0, 40.0]
    return {
        "image_id": id,
        "file_name": f"{id:06d}.png",
        "width": 64,
        "height": 48,
        "split": "test",
        "f1": 0.5,
        "hits": 1,
        "false": 2,
        "missed": 0,
        "objects": [{"box": box, "category": 0, "ignored": False}],
        "detections": [{"box": box, "category": 0, "score": 0.9, "outcome": "hit", "object": 0}],
    }


FOUND = {"threshold": 0.4, "categories": ["head"], "images": [_image(id) for id in (3, 1, 2)]}


def train(space: Workspace, record: Record, value: float = 0.5, *, test: bool = True) -> None:
    """Ends the verification as its job would, with a checkpoint."""

    def write(session: Session) -> None:
        row = session.get(Verification, record["id"])
        row.result = {
            "val": evaluation(value / 2),
            "test": evaluation(value) if test else None,
            "best": {"iteration": 4},
            "iterations": 5,
            "finished": "completed",
            "warnings": ["few"],
        }
        row.curves = [
            {"iteration": 5, "loss": 1.0, "losses": {"box": 0.5, "class": 0.5}, "val": {"map": value}}
        ]
        row.seconds = 2.5
        picture = space.keep(session, b"\xff\xd8\xff jpg")
        row.pictures = [
            {
                "sha256": picture,
                "file_name": "best-1.jpg",
                "media_type": "image/jpeg",
                "title": "best",
                "about": {"image_id": 1},
            },
            {
                "sha256": space.keep(session, json.dumps(FOUND).encode()),
                "file_name": "predictions.json",
                "media_type": "application/json",
                "title": "found",
                "about": {},
            },
        ]
        row.plots = [
            {
                "sha256": space.keep(session, b"\x89PNG"),
                "file_name": "curves.png",
                "media_type": "image/png",
                "title": "c",
                "about": {},
            }
        ]
        parent = session.get(Checkpoint, row.checkpoint_id)
        made = Checkpoint(
            id="ckpt_" + row.id.removeprefix("vf_"),
            workspace_id=row.workspace_id,
            name="made",
            state="ready",
            request={},
            kind="detector",
            weights_sha256=parent.weights_sha256,
            created_at=parent.created_at,
            updated_at=parent.updated_at,
            plain={
                "library": "torchvision",
                "weights": "weights.safetensors",
                "texts": {"use.py": "model = 1\n"},
            },
        )
        session.add(made)
        session.flush()
        row.trained_checkpoint_id = made.id

    space.finish(record["job_id"], write)


def test_a_verification_has_a_job_and_every_default_filled_in(space: Workspace) -> None:
    dataset, checkpoint = space.dataset(), space.checkpoint()
    answer = space.http.post("/v1/verifications", json={"dataset_id": dataset, "checkpoint_id": checkpoint})
    assert answer.status_code == 202
    made = answer.json()
    assert answer.headers["location"] == f"/v1/verifications/{made['id']}"
    assert made["job_id"] in answer.headers["link"]
    recipe = next(one for one in catalogue()["recipes"] if one["name"] == "frcnn_full")
    assert made["request"] == {
        "dataset_id": dataset,
        "checkpoint_id": checkpoint,
        "name": None,
        "seed": 0,
        "recipe": "frcnn_full",
        "epochs": recipe["epochs"],
        "iterations": None,
        "budget_minutes": None,
        "label_fraction": None,
        "shots": None,
        "subset_seed": 0,
        "freeze": None,
        "image_size": recipe["image_size"],
        "batch_size": recipe["batch_size"],
        "precision": "auto",
        "patience": recipe["patience"],
        "evaluations": recipe["evaluations"],
        "ema": recipe["ema"],
        "lr_factor": None,
        "data_dependent_init": True,
    }
    assert (made["state"], made["map"], made["curves" if "curves" in made else "val"]) == (
        "queued",
        None,
        None,
    )
    job = space.http.get(f"/v1/jobs/{made['job_id']}").json()
    assert (job["kind"], job["queue"], job["resource_id"]) == ("verify", "gpu", made["id"])


def test_what_is_asked_for_is_echoed(space: Workspace) -> None:
    fields = {
        "name": "mine",
        "recipe": "sgd_2x",
        "iterations": 7,
        "label_fraction": 0.25,
        "subset_seed": 5,
        "freeze": "backbone",
        "seed": 3,
        "image_size": 320,
        "batch_size": 2,
        "precision": "float32",
        "patience": 4,
        "evaluations": 3,
        "ema": 0.9,
        "lr_factor": 0.5,
        "data_dependent_init": False,
    }
    made = asked(space, **fields)
    assert {name: made["request"][name] for name in fields} == fields
    assert (made["request"]["epochs"], made["name"], made["recipe"]) == (None, "mine", "sgd_2x")
    assert (made["subset"]["kind"], made["subset"]["value"], made["subset"]["seed"]) == ("fraction", 0.25, 5)


@pytest.mark.parametrize(
    ("fields", "pointers"),
    [
        ({"recipe": "frcnn_ful"}, ["/recipe"]),
        ({"recipe": "detr"}, ["/recipe"]),
        ({"epochs": 1, "iterations": 5}, ["/iterations"]),
        ({"epochs": 1, "iterations": 5, "budget_minutes": 2}, ["/iterations", "/budget_minutes"]),
        ({"epochs": 0}, ["/epochs"]),
        ({"iterations": 1.5}, ["/iterations"]),
        ({"budget_minutes": 1e9}, ["/budget_minutes"]),
        ({"label_fraction": 0}, ["/label_fraction"]),
        ({"label_fraction": 1.1}, ["/label_fraction"]),
        ({"label_fraction": 0.1, "shots": 3}, ["/shots"]),
        ({"shots": 0}, ["/shots"]),
        ({"freeze": "everything"}, ["/freeze"]),
        ({"precision": "int8"}, ["/precision"]),
        ({"seed": -1}, ["/seed"]),
        ({"ema": 1}, ["/ema"]),
        ({"lr_factor": 0}, ["/lr_factor"]),
        ({"name": "a\x00"}, ["/name"]),
        ({"colour": 1}, ["/colour"]),
        ({"dataset_id": "ds_x"}, ["/dataset_id"]),
        (NONE_THERE, ["/dataset_id", "/checkpoint_id"]),
        (NONE_THERE | {"freeze": "x"}, ["/freeze", "/dataset_id", "/checkpoint_id"]),
    ],
)
def test_wrong_requests_point_at_each_field(space: Workspace, fields: dict, pointers: list[str]) -> None:
    body = {"dataset_id": space.dataset(), "checkpoint_id": space.checkpoint()} | fields
    answer = space.http.post("/v1/verifications", json=body)
    assert answer.status_code == 422
    assert [error["pointer"] for error in answer.json()["errors"]] == pointers


def test_an_unknown_recipe_lists_the_known_and_a_misfit_those_that_fit(space: Workspace) -> None:
    body = {"dataset_id": space.dataset(), "checkpoint_id": space.checkpoint()}
    unknown = space.http.post("/v1/verifications", json=body | {"recipe": "frcnn_ful"}).json()["detail"]
    assert all(name in unknown for name in names("recipes"))
    assert "did you mean frcnn_full" in unknown
    misfit = space.http.post("/v1/verifications", json=body | {"recipe": "deformable_detr"}).json()["detail"]
    assert "torchvision/fasterrcnn_resnet50_fpn" in misfit
    assert "frcnn_full" in misfit


def test_recipes_are_listed_with_what_can_be_changed(space: Workspace) -> None:
    found = space.http.get("/v1/recipes").json()
    assert [one["name"] for one in found["items"]] == names("recipes")
    assert all(one["title"] and one["source"] and one["help"] for one in found["items"])
    assert "backbone" in found["freeze"]
    assert "auto" in found["precisions"]


def test_what_cannot_be_used_is_a_conflict_that_says_why(space: Workspace) -> None:
    dataset, checkpoint = space.dataset(), space.checkpoint()
    waiting, unread = space.dataset(ready=False), space.checkpoint(ready=False)
    for body, word in (
        ({"dataset_id": waiting, "checkpoint_id": checkpoint}, "still being read"),
        ({"dataset_id": dataset, "checkpoint_id": unread}, "still being read"),
    ):
        answer = space.http.post("/v1/verifications", json=body)
        assert (answer.status_code, word in answer.json()["detail"]) == (409, True)
    with space.service.database.unit_of_work() as session:
        session.get(Dataset, dataset).supervision = "image_labels"
    answer = space.http.post("/v1/verifications", json={"dataset_id": dataset, "checkpoint_id": checkpoint})
    assert (answer.status_code, "no boxes" in answer.json()["detail"]) == (409, True)


def test_things_of_another_workspace_are_as_unknown_as_none(space: Workspace, other: Workspace) -> None:
    body = {"dataset_id": other.dataset(), "checkpoint_id": other.checkpoint()}
    answer = space.http.post("/v1/verifications", json=body)
    assert [error["pointer"] for error in answer.json()["errors"]] == ["/dataset_id", "/checkpoint_id"]
    theirs = asked(other)
    for path in ("", "/events", "/curves", "/curves.csv", "/pictures/x", "/predictions"):
        assert space.http.get(f"/v1/verifications/{theirs['id']}{path}").status_code == 404
    assert space.http.get(f"/v1/subsets/{theirs['subset_id']}").status_code == 404
    for deed in (":cancel", ":retry"):
        assert space.http.post(f"/v1/verifications/{theirs['id']}{deed}").status_code == 404
    assert space.http.delete(f"/v1/verifications/{theirs['id']}").status_code == 404


def test_the_same_key_makes_one(space: Workspace) -> None:
    body = {"dataset_id": space.dataset(), "checkpoint_id": space.checkpoint()}
    headers = {"Idempotency-Key": "verify-once"}
    first, second = (space.http.post("/v1/verifications", json=body, headers=headers) for _ in range(2))
    assert first.json()["id"] == second.json()["id"]
    assert second.headers["idempotent-replayed"] == "true"
    assert len(space.http.get("/v1/verifications").json()["items"]) == 1


def test_all_of_one_dataset_share_a_subset_that_fills_when_it_is_drawn(space: Workspace) -> None:
    dataset = space.dataset()
    one = asked(space, dataset_id=dataset, shots=2)
    two = asked(space, dataset_id=dataset, shots=2, seed=1, recipe="quick")
    other = asked(space, dataset_id=dataset, shots=2, subset_seed=1)
    assert one["subset_id"] == two["subset_id"] != other["subset_id"]
    path = f"/v1/subsets/{one['subset_id']}"
    answer = space.http.get(path)
    assert (answer.json()["image_ids"], answer.json()["images"], answer.json()["missing"]) == (
        None,
        None,
        None,
    )
    with space.service.database.unit_of_work() as session:
        row = session.get(Subset, one["subset_id"])
        row.images, row.image_ids, row.annotation_ids, row.coverage = 2, [1, 4], [7, 8, 9], {"a": 3, "b": 0}
        row.drawn_at = row.created_at
    drawn = space.http.get(path, headers={"If-None-Match": answer.headers["etag"]}).json()
    assert (drawn["image_ids"], drawn["annotation_ids"]) == ([1, 4], [7, 8, 9])
    assert (drawn["images"], drawn["objects"], drawn["missing"]) == (2, 3, ["b"])
    assert space.http.get(f"/v1/verifications/{two['id']}").json()["subset"]["missing"] == ["b"]
    found = space.http.get("/v1/subsets", params={"dataset_id": dataset}).json()["items"]
    assert [one["id"] for one in found] == [other["subset_id"], one["subset_id"]]
    assert "image_ids" not in found[0]


def test_what_came_of_it(space: Workspace) -> None:
    made = asked(space)
    path = f"/v1/verifications/{made['id']}"
    assert space.http.get(f"{path}/pictures/best-1.jpg").status_code == 404
    train(space, made, 0.5)
    done = space.http.get(path).json()
    assert (done["state"], done["map"], done["ap50"], done["split"]) == ("succeeded", 0.5, 0.6, "test")
    assert (done["val"]["box"]["map"], done["iterations"], done["finished"], done["warnings"]) == (
        0.25,
        5,
        "completed",
        ["few"],
    )
    assert (done["seconds"], done["resumable_at"]) == (2.5, None)
    picture = done["pictures"][0]
    assert picture["about"] == {"image_id": 1}
    answer = space.http.get(picture["url"])
    assert (answer.headers["content-type"], answer.content) == ("image/jpeg", b"\xff\xd8\xff jpg")
    assert space.http.get(done["plots"][0]["url"]).content == b"\x89PNG"
    assert space.http.get(f"{path}/plots/no.png").status_code == 404
    assert space.http.get(f"{path}/curves").json()["items"][0]["losses"] == {"box": 0.5, "class": 0.5}
    table = space.http.get(f"{path}/curves.csv").text.split("\r\n")
    assert table[:2] == ["iteration,loss,losses.box,losses.class,val.map", "5,1.0,0.5,0.5,0.5"]
    checkpoint = space.http.get(f"/v1/checkpoints/{done['trained_checkpoint_id']}").json()
    assert (checkpoint["state"], checkpoint["kind"]) == ("ready", "detector")


def test_what_was_found_on_each_image_the_worst_first(space: Workspace) -> None:
    made = asked(space)
    path = f"/v1/verifications/{made['id']}/predictions"
    early = space.http.get(path)
    assert (early.status_code, "is queued and has no predictions" in early.json()["detail"]) == (404, True)
    train(space, made, 0.5)
    first = space.http.get(path, params={"limit": 2}).json()
    assert [image["image_id"] for image in first["items"]] == [3, 1]
    assert (first["threshold"], first["categories"], first["images"]) == (0.4, ["head"], 3)
    assert first["items"][0]["url"] == f"/v1/datasets/{made['dataset_id']}/images/000003.png"
    assert first["items"][0]["detections"][0]["outcome"] == "hit"
    rest = space.http.get(path, params={"cursor": first["next_cursor"]}).json()
    assert ([image["image_id"] for image in rest["items"]], rest["next_cursor"]) == ([2], None)
    named = space.http.get(path, params={"image_id": [2, 3]}).json()
    assert [image["image_id"] for image in named["items"]] == [2, 3]
    assert "image 9" in space.http.get(path, params={"image_id": 9}).json()["detail"]
    assert space.http.get(path, params={"cursor": "x"}).status_code == 422
    assert space.http.get(f"/v1/verifications/{made['id']}/pictures/predictions.json").status_code == 404
    shown = space.http.get(f"/v1/verifications/{made['id']}").json()
    assert [file["title"] for file in shown["pictures"]] == ["best"]
    with space.service.database.unit_of_work() as session:
        session.get(Dataset, made["dataset_id"]).archive_sha256 = None
    assert space.http.get(path).json()["items"][0]["url"] is None


def test_its_weights_come_in_a_zip_that_needs_nothing_of_ours(space: Workspace) -> None:
    made = asked(space)
    path = f"/v1/checkpoints/{made['checkpoint_id']}/weights"
    kept = space.http.get(path).content
    assert "not fine-tuned here" in space.http.get(path, params={"as": "plain"}).json()["detail"]
    assert space.http.get(path, params={"as": "pickle"}).status_code == 422
    train(space, made)
    trained = space.http.get(f"/v1/verifications/{made['id']}").json()["trained_checkpoint_id"]
    answer = space.http.get(f"/v1/checkpoints/{trained}/weights", params={"as": "plain"})
    assert answer.headers["content-type"] == "application/zip"
    assert f"{trained}-torchvision.zip" in answer.headers["content-disposition"]
    assert int(answer.headers["content-length"]) == len(answer.content)
    with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
        assert archive.testzip() is None
        assert archive.namelist() == ["use.py", "weights.safetensors"]
        assert archive.read("weights.safetensors") == kept
        assert archive.read("use.py") == b"model = 1\n"


def test_without_test_images_the_map_is_that_of_validation(space: Workspace) -> None:
    made = asked(space)
    train(space, made, 0.5, test=False)
    done = space.http.get(f"/v1/verifications/{made['id']}").json()
    assert (done["map"], done["split"], done["test"]) == (0.25, "val", None)


def test_curves_and_events_while_it_works(space: Workspace) -> None:
    made = asked(space)
    path = f"/v1/verifications/{made['id']}"
    claim = space.claim(made["job_id"])
    points = [{"iteration": 1, "loss": 3.0}, {"iteration": 2, "loss": 2.0}, {"iteration": 1, "loss": 2.5}]
    with space.service.database.unit_of_work() as session:
        row = session.get(Verification, made["id"])
        for point in points:
            events.append(session, row, "curve", point)
    assert space.http.get(f"{path}/curves").json()["items"] == [points[2], points[1]], (
        "told again by a later attempt"
    )
    with space.service.database.unit_of_work() as session:
        leases.fail(
            session,
            claim,
            {"code": "training_diverged", "title": "x", "status": 422, "detail": "lower the rate"},
        )
    with space.http.stream("GET", f"{path}/events", params={"kind": "curve"}) as answer:
        told = [line for line in answer.iter_lines() if line.startswith("data")]
    assert [json.loads(line[5:]).get("loss") for line in told] == [3.0, 2.0, 2.5, None]
    failed = space.http.get(path).json()
    assert (failed["state"], failed["error"]["detail"]) == ("failed", "lower the rate")


def test_polling_what_has_not_changed_costs_no_body(space: Workspace) -> None:
    made = asked(space)
    path = f"/v1/verifications/{made['id']}"
    answer = space.http.get(path)
    headers = {"If-None-Match": answer.headers["etag"]}
    assert space.http.get(path, headers=headers).status_code == 304
    space.claim(made["job_id"])
    changed = space.http.get(path, params={"wait": 5}, headers=headers)
    assert changed.json()["state"] == "running"
    assert space.http.get(f"{path}?wait=61").status_code == 422


def test_cancel_and_retry(space: Workspace) -> None:
    made = asked(space)
    path = f"/v1/verifications/{made['id']}"
    assert space.http.post(f"{path}:retry").status_code == 409
    first = space.http.post(f"{path}:cancel")
    assert (first.status_code, first.json()["state"]) == (200, "cancelled")
    assert space.http.post(f"{path}:cancel").json()["state"] == "cancelled"
    again = space.http.post(f"{path}:retry")
    assert (again.status_code, again.json()["state"], again.json()["job_id"]) == (
        202,
        "queued",
        made["job_id"],
    )
    space.claim(made["job_id"])
    running = space.http.post(f"{path}:cancel")
    assert (running.status_code, running.json()["state"]) == (202, "cancelling")
    assert running.json()["cancel_requested_at"] is not None


def test_deleting_waits_for_the_end_and_leaves_the_checkpoint(space: Workspace) -> None:
    made = asked(space)
    path = f"/v1/verifications/{made['id']}"
    assert "cancel" in space.http.delete(path).json()["detail"]
    for used in (f"/v1/datasets/{made['dataset_id']}", f"/v1/checkpoints/{made['checkpoint_id']}"):
        answer = space.http.delete(used)
        assert answer.status_code == 409
        assert answer.json()["errors"][0]["message"] == f"used by {path}"
    train(space, made)
    trained = space.http.get(path).json()["trained_checkpoint_id"]
    assert space.http.delete(path, headers={"If-Match": 'W/"1"'}).status_code == 412
    assert space.http.delete(path).status_code == 204
    assert space.http.get(path).status_code == 404
    assert space.http.get("/v1/jobs", params={"resource_id": made["id"]}).json()["items"] == []
    assert space.http.get(f"/v1/checkpoints/{trained}").status_code == 200
    for used in (f"/v1/datasets/{made['dataset_id']}", f"/v1/checkpoints/{made['checkpoint_id']}"):
        assert space.http.delete(used).status_code == 204
    assert space.http.get(f"/v1/subsets/{made['subset_id']}").status_code == 404


def test_a_fine_tuned_checkpoint_may_go_and_its_map_stays(space: Workspace) -> None:
    made = asked(space)
    train(space, made, 0.5)
    path = f"/v1/verifications/{made['id']}"
    trained = space.http.get(path).json()["trained_checkpoint_id"]
    assert space.http.delete(f"/v1/checkpoints/{trained}").status_code == 204
    done = space.http.get(path).json()
    assert (done["trained_checkpoint_id"], done["map"]) == (None, 0.5)


def test_filters_of_the_list(space: Workspace) -> None:
    one, two = asked(space), asked(space)
    space.http.post(f"/v1/verifications/{two['id']}:cancel")

    def found(**query: str) -> list[str]:
        items = space.http.get("/v1/verifications", params=query).raise_for_status().json()["items"]
        return [each["id"] for each in items]

    assert found() == [two["id"], one["id"]]
    assert found(state="queued") == found(dataset_id=one["dataset_id"]) == [one["id"]]
    assert found(checkpoint_id=two["checkpoint_id"]) == [two["id"]]
    assert found(ranking_id="rk_" + "0" * 32) == []


# as a part of a ranking
