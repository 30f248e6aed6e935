"""POST /v1/pseudo-labellings, what can be done to a pseudo-labelling, and the same from the command line."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from running import Record, Workspace
from typer.testing import CliRunner

from app.cli.main import build
from app.db.tables import Checkpoint, Dataset, PseudoLabelling
from detrank import Client


def dataset(space: Workspace, supervision: str = "none", classes: tuple[str, ...] = ()) -> str:
    id = space.dataset()
    with space.service.database.unit_of_work() as session:
        row = session.get_one(Dataset, id)
        row.supervision = supervision
        row.summary = {
            "categories": [{"name": name} for name in classes],
            "splits": {"train": {"images": 600, "annotations": 0}, "val": {"images": 5, "annotations": 0}},
        }
    return id


def detector(space: Workspace, classes: tuple[str, ...] = ("Person", "wine_glass")) -> str:
    id = space.checkpoint(name="verified")
    with space.service.database.unit_of_work() as session:
        session.get_one(Checkpoint, id).manifest = {"class_names": list(classes)}
    return id


def posted(space: Workspace, **fields: object) -> Record:
    body = {"dataset_id": dataset(space), "teacher": "detector", "detector_checkpoint": detector(space)}
    answer = space.http.post("/v1/pseudo-labellings", json=body | fields)
    assert answer.status_code == 202, answer.text
    return answer.json()


def test_every_default_is_filled_in_and_its_first_jobs_wait(space: Workspace) -> None:
    made = posted(space, name="mine")
    asked = made["request"]
    assert (asked["splits"], asked["parts"]) == (["train", "val"], 3)
    assert asked["categories"] == ["Person", "wine_glass"]
    assert (made["state"], made["name"], made["made_dataset_id"], made["quality"]) == (
        "queued",
        "mine",
        None,
        None,
    )
    jobs = space.http.get("/v1/jobs", params={"resource_id": made["id"]}).json()["items"]
    assert sorted(job["kind"] for job in jobs) == ["look", "look", "look", "pseudo_label"]
    assert space.http.get(f"/v1/pseudo-labellings/{made['id']}/curves").json() == {"items": []}


def test_classes_go_by_name_in_any_writing_and_only_train_where_there_are_boxes(space: Workspace) -> None:
    own = dataset(space, "boxes", ("person", "Wine-Glass", "cat"))
    asked = posted(space, dataset_id=own)["request"]
    assert asked["classes"] == {"Person": "person", "wine_glass": "Wine-Glass"}
    assert asked["categories"] == ["person", "Wine-Glass", "cat"]
    assert asked["splits"] == ["train"]


@pytest.mark.parametrize(
    ("fields", "pointer"),
    [
        ({"teacher": "nobody"}, "/teacher"),
        ({"splits": []}, "/splits"),
        ({"confidence": 2}, "/confidence"),
        ({"detector_checkpoint": None}, "/detector_checkpoint"),
        ({"dataset_id": "ds_" + "9" * 32}, "/dataset_id"),
        ({"truth_dataset_id": "ds_" + "9" * 32}, "/truth_dataset_id"),
        ({"surprise": 1}, "/surprise"),
    ],
)
def test_bad_requests_name_the_field(space: Workspace, fields: Record, pointer: str) -> None:
    body = {"dataset_id": dataset(space), "teacher": "detector", "detector_checkpoint": detector(space)}
    answer = space.http.post("/v1/pseudo-labellings", json=body | fields)
    assert answer.status_code == 422, answer.text
    assert answer.json()["errors"][0]["pointer"] == pointer
    assert space.http.get("/v1/pseudo-labellings").json()["items"] == []


def test_a_truth_without_boxes_is_none(space: Workspace) -> None:
    body = {"dataset_id": dataset(space), "teacher": "detector", "detector_checkpoint": detector(space)}
    answer = space.http.post("/v1/pseudo-labellings", json=body | {"truth_dataset_id": dataset(space)})
    assert answer.status_code == 409
    assert answer.json()["errors"][0]["pointer"] == "/truth_dataset_id"


def test_what_it_needs_stays_as_long_as_it_does(space: Workspace) -> None:
    made = posted(space)
    path = f"/v1/pseudo-labellings/{made['id']}"
    for held in (f"/v1/datasets/{made['dataset_id']}", f"/v1/checkpoints/{made['checkpoint_id']}"):
        answer = space.http.delete(held)
        assert answer.status_code == 409
        assert made["id"] in answer.json()["detail"]
    assert space.http.post(f"{path}:cancel").status_code == 200
    assert space.http.delete(path).status_code == 204
    assert space.http.delete(f"/v1/datasets/{made['dataset_id']}").status_code == 204


REVIEW: Record = {
    "items": [
        {
            "number": number,
            "stratum": number - 1,
            "image_id": 1,
            "annotation_id": 10 + number,
            "category": "cat",
            "bbox": [10.0 * number, 5.0, 20.0, 20.0],
            "score": 0.25 * number,
        }
        for number in (1, 2, 3)
    ],
    "pictures": [{"image_id": 1, "boxes": []}, {"image_id": 2, "boxes": []}],
    "strata": [{"boxes": 1, "low": score, "high": score} for score in (0.25, 0.5, 0.75)],
    "all_pictures": 2,
    "categories": ["cat", "dog"],
    "images": [{"id": id, "file_name": f"images/00000{id}.png", "width": 64, "height": 64} for id in (1, 2)],
}


def with_review(space: Workspace) -> str:
    made = posted(space)
    with space.service.database.unit_of_work() as session:
        row = session.get_one(PseudoLabelling, made["id"])
        row.review, row.made_dataset_id = REVIEW, made["dataset_id"]
    return f"/v1/pseudo-labellings/{made['id']}/review"


def test_a_review_is_decided_bit_by_bit_and_says_what_is_known(space: Workspace) -> None:
    path = with_review(space)
    found = space.http.get(path).json()
    assert [each["number"] for each in found["items"]] == [1, 2, 3]
    assert found["items"][0]["image_url"].endswith("/images/000001.png")
    assert (found["decided"], found["estimates"]["precision"]["value"]) == (0, None)
    assert "decide on one" in found["summary"][0]
    first = [{"number": 1, "decision": "reject"}, {"number": 3, "decision": "accept"}]
    assert space.http.put(path, json={"items": first}).json()["decided"] == 2
    corrected = {"category": "cat", "bbox": [21, 5, 20, 20]}
    body = {
        "items": [{"number": 2, "decision": "correct", "corrected": corrected}],
        "pictures": [{"image_id": 1, "missed": 2}, {"image_id": 2, "missed": 0}],
    }
    found = space.http.put(path, json=body).json()
    assert [each["right"] for each in found["items"]] == [False, True, True]
    told = found["estimates"]
    assert told["precision"] == {
        "n": 3,
        "value": pytest.approx(2 / 3),
        "low": pytest.approx(2 / 3),
        "high": pytest.approx(2 / 3),
        "undefined": None,
    }
    assert (told["right"]["value"], told["missed"]["value"]) == (pytest.approx(2), pytest.approx(2))
    assert told["recall"]["value"] == pytest.approx(0.5)
    assert told["recall"]["low"] < 0.5 < told["recall"]["high"]
    assert "true boxes" in found["summary"][-1]
    again = space.http.put(path, json={"items": [{"number": 1, "decision": None}]}).json()
    assert again["decided"] == 2


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"items": [{"number": 9, "decision": "accept"}]}, "/items/0/number"),
        ({"items": [{"number": 1, "decision": "correct"}]}, "/items/0"),
        ({"items": [{"number": 1, "decision": "perhaps"}]}, "/items/0/decision"),
        (
            {
                "items": [
                    {
                        "number": 1,
                        "decision": "correct",
                        "corrected": {"category": "cow", "bbox": [1, 1, 2, 2]},
                    }
                ]
            },
            "/items/0/corrected/category",
        ),
        ({"pictures": [{"image_id": 7, "missed": 1}]}, "/pictures/0/image_id"),
    ],
)
def test_what_is_not_to_be_reviewed_is_refused_and_nothing_is_written(
    space: Workspace, body: Record, pointer: str
) -> None:
    path = with_review(space)
    answer = space.http.put(
        path, json=body | {"pictures": [*body.get("pictures", []), {"image_id": 1, "missed": 5}]}
    )
    assert answer.status_code == 422, answer.text
    assert answer.json()["errors"][0]["pointer"].startswith(pointer)
    assert all(each["missed"] is None for each in space.http.get(path).json()["pictures"])


def test_a_labelling_tool_decides_by_what_it_left_moved_deleted_and_drew(space: Workspace) -> None:
    path = with_review(space)
    document = space.http.get(f"{path}/coco").json()
    assert [each["id"] for each in document["annotations"]] == [11, 12, 13]
    left, moved, _ = document["annotations"]
    moved["bbox"][0] += 4
    drawn = {"id": 99, "image_id": 2, "category_id": 2, "bbox": [1, 1, 5, 5]}
    changed = document | {"annotations": [left, moved, drawn]}
    found = space.http.put(f"{path}/coco", json=changed).json()
    assert [each["decision"] for each in found["items"]] == ["accept", "correct", "reject"]
    assert found["items"][1]["corrected"]["bbox"] == moved["bbox"]
    assert [each["missed"] for each in found["pictures"]] == [0, 1]
    broken = document | {"annotations": [left | {"category_id": 7}]}
    answer = space.http.put(f"{path}/coco", json=broken)
    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, "/annotations/0")


def test_corrections_leave_as_boxes(space: Workspace) -> None:
    path = with_review(space)
    corrected = {"category": "dog", "bbox": [21.0, 5.0, 20.0, 20.0]}
    items = [
        {"number": 1, "decision": "reject"},
        {"number": 2, "decision": "correct", "corrected": corrected},
        {"number": 3, "decision": "accept"},
    ]
    assert space.http.post(f"{path}/dataset", json={}).status_code == 409
    space.http.put(path, json={"items": items[:2]}).raise_for_status()
    left = space.http.get(f"{path}/coco").json()["annotations"]
    assert [(each["id"], each["category_id"], each["bbox"], each.get("score")) for each in left] == [
        (12, 2, corrected["bbox"], None),
        (13, 1, [30.0, 5.0, 20.0, 20.0], 0.75),
    ]
    answer = space.http.put(f"{path}/coco", json=space.http.get(f"{path}/coco").json()).json()
    assert [each["decision"] for each in answer["items"]] == ["reject", "correct", "accept"]
    key = {"Idempotency-Key": "once"}
    made = space.http.post(f"{path}/dataset", json={"name": "better"}, headers=key)
    assert (made.status_code, made.json()["name"], made.json()["state"]) == (202, "better", "processing")
    assert space.http.post(f"{path}/dataset", json={"name": "better"}, headers=key).json() == made.json()
    asked = made.json()["request"]["reviewed"]
    assert asked["changes"] == {
        "11": None,
        "12": corrected,
        "13": {"bbox": [30.0, 5.0, 20.0, 20.0], "category": "cat"},
    }


def test_another_workspace_makes_no_dataset_of_it(space: Workspace, other: Workspace) -> None:
    assert other.http.post(f"{with_review(space)}/dataset", json={}).status_code == 404


def test_before_it_has_boxes_there_is_nothing_to_review(space: Workspace) -> None:
    made = posted(space)
    answer = space.http.get(f"/v1/pseudo-labellings/{made['id']}/review")
    assert (answer.status_code, "has succeeded" in answer.json()["detail"]) == (409, True)


def body_of(space: Workspace, architecture: str, backbone: str | None) -> str:
    id = space.checkpoint(name="body")
    with space.service.database.unit_of_work() as session:
        row = session.get_one(Checkpoint, id)
        row.architecture, row.manifest = architecture, {"backbone": backbone}
    return id


def test_the_form_detr_and_what_it_can_be_made_of(space: Workspace) -> None:
    labelled = dataset(space, "image_labels", ("cat", "dog"))
    plain = body_of(space, "timm/resnet18", "timm/resnet18")
    body = {"dataset_id": labelled, "teacher": "image_labels", "backbone_checkpoint": plain}
    made = space.http.post("/v1/pseudo-labellings", json=body).json()["request"]
    assert (made["form"], made["architecture"]) == ("regions", None)
    wanted = {"form": "detr", "architecture": "detr", "config": {"num_queries": 9}, "batch_size": 2}
    made = space.http.post("/v1/pseudo-labellings", json=body | wanted).json()["request"]
    assert {name: made[name] for name in wanted} == wanted
    itself = body | {"form": "detr", "backbone_checkpoint": body_of(space, "transformers/detr", None)}
    assert space.http.post("/v1/pseudo-labellings", json=itself).status_code == 202
    for fields, pointer in (
        (body | {"form": "yolo"}, "/form"),
        (body | {"batch_size": 2}, "/batch_size"),
        (body | {"form": "detr", "layers": ["backbone.c3"]}, "/layers"),
        (itself | {"config": {"num_queries": 9}}, "/config"),
        (itself | {"architecture": "detr"}, "/backbone_checkpoint"),
    ):
        answer = space.http.post("/v1/pseudo-labellings", json=fields)
        assert answer.status_code == 422, fields
        assert answer.json()["errors"][0]["pointer"].startswith(pointer)


def test_labels_that_are_too_few_are_refused_before_anybody_looks(space: Workspace) -> None:
    labelled, body = dataset(space, "image_labels"), body_of(space, "timm/resnet18", "timm/resnet18")

    def answered(cat: int, dog: int, **fields: object) -> tuple[int, str]:
        counts = {"cat": cat, "dog": dog}
        with space.service.database.unit_of_work() as session:
            row = session.get_one(Dataset, labelled)
            categories = [{"name": name, "images": count} for name, count in counts.items()]
            row.summary = (row.summary or {}) | {"categories": categories}
        asked = {"dataset_id": labelled, "teacher": "image_labels", "backbone_checkpoint": body} | fields
        answer = space.http.post("/v1/pseudo-labellings", json=asked)
        return answer.status_code, answer.json().get("detail", "")

    assert answered(9, 9)[0] == 202
    assert answered(9, 0)[0] == 202  # it occurs nowhere, so nothing is asked of it
    status, why = answered(9, 1)
    assert (status, "dog (1)" in why, "least_pictures" in why) == (409, True, True)
    assert answered(9, 1, least_pictures=1)[0] == 202
    assert answered(9, 9, least_pictures=10)[0] == 409
    status, why = answered(0, 0)
    assert (status, "has a label" in why) == (409, True)
    # how many of them are in a part only the worker knows
    assert answered(9, 1, splits=["train"])[0] == 202


def test_an_empty_map_of_classes_is_no_map(space: Workspace) -> None:
    for own in (dataset(space), dataset(space, "boxes", ("Person",))):
        body = {"dataset_id": own, "teacher": "detector", "detector_checkpoint": detector(space)}
        answer = space.http.post("/v1/pseudo-labellings", json=body | {"classes": {}})
        assert answer.status_code == 422, answer.text
        assert answer.json()["errors"][0]["pointer"] == "/classes"
        assert "Person, wine_glass" in answer.json()["errors"][0]["message"]


@pytest.fixture
def detrank(space: Workspace, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Runs a command in this process; its output, errors after it."""
    monkeypatch.setenv("COLUMNS", "200")
    root = build()

    def run(*words: object, code: int = 0) -> str:
        done = CliRunner().invoke(root, ["--url", space.service.url, "--key", space.key, *map(str, words)])
        assert done.exit_code == code, done.output
        return done.output

    return run


def test_the_command_line_and_the_client(
    space: Workspace, detrank: Callable[..., str], tmp_path: Path
) -> None:
    own, teacher = dataset(space, "image_labels", ("human", "glass")), detector(space)
    words = ["pseudo-label", own, "--detector", teacher, "--class", "Person=human", "--no-wait", "--json"]
    made = json.loads(detrank(*words))
    assert made["request"]["classes"] == {"Person": "human"}
    words = ["--teacher", "image_labels", "--form", "detr", "--backbone", body_of(space, "a/b", "a/b")]
    words += ["--config", '{"num_queries": 9}', "--batch-size", 2, "--no-wait", "--json"]
    asked = json.loads(detrank("pseudo-label", own, *words))["request"]
    assert (asked["form"], asked["config"], asked["batch_size"]) == ("detr", {"num_queries": 9}, 2)
    assert "write JSON" in detrank("pseudo-label", own, "--config", "9", "--no-wait", code=2)
    assert made["id"] in detrank("pseudo-labellings", "list")
    assert "queued" in detrank("pseudo-labellings", "show", made["id"])
    assert "cancelled" in detrank("pseudo-labellings", "cancel", made["id"])
    assert "write --class person=pedestrian" in detrank(
        "pseudo-label", own, "--detector", teacher, "--class", "Person", "--no-wait", code=2
    )
    reviewed = with_review(space).split("/")[3]
    assert "decide on one" in detrank("pseudo-labellings", "review", reviewed)
    words = ["review", reviewed, "--accept", "2,3", "--reject", 1, "--missed", "1=1", "--missed", "2=0"]
    assert "precision 0.67" in detrank("pseudo-labellings", *words)
    file = tmp_path / "review.json"
    detrank("pseudo-labellings", "review", reviewed, "--export", file)
    # what was rejected is not in the file, and is rejected by it again
    assert "precision 0.67" in detrank("pseudo-labellings", "review", reviewed, "--import", file)
    assert "processing" in detrank("pseudo-labellings", "review", reviewed, "--dataset", "better")
    with Client(space.service.url, space.key) as client:
        assert client.pseudo_labellings.curves(made["id"]) == []
        client.pseudo_labellings.delete(made["id"])
        fields = {"detector_checkpoint": teacher, "classes": {"Person": "human"}}
        assert client.pseudo_labellings.create(own, "detector", **fields)["state"] == "queued"
