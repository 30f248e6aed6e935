"""POST /v1/pretrainings, what can be done to a pretraining, and the same from the command line."""

import json
from collections.abc import Callable

import pytest
from running import Record, Workspace
from typer.testing import CliRunner

from app.cli.main import build
from app.db.tables import Checkpoint, Dataset
from detrank import Client

LAYERS = [
    {"name": f"backbone.{name}", "kind": "map", "stride": 8, "channels": 8, "trained": True}
    for name in ("c3", "c4")
]


def dataset(space: Workspace, pictures: int = 40, supervision: str = "none") -> str:
    id = space.dataset()
    with space.service.database.unit_of_work() as session:
        row = session.get_one(Dataset, id)
        row.supervision = supervision
        row.summary = {
            "splits": {
                "train": {"images": pictures, "annotations": 0},
                "val": {"images": 5, "annotations": 0},
            }
        }
    return id


def checkpoint(space: Workspace, architecture: str = "detrank/fasterrcnn_fpn") -> str:
    id = space.checkpoint(name="body")
    with space.service.database.unit_of_work() as session:
        row = session.get_one(Checkpoint, id)
        row.architecture, row.manifest = architecture, {"layers": LAYERS, "backbone": "torchvision/resnet18"}
    return id


def posted(space: Workspace, **fields: object) -> Record:
    body = {
        "dataset_id": dataset(space),
        "architecture": "deformable_detr",
        "encoder_checkpoint": checkpoint(space),
    }
    answer = space.http.post("/v1/pretrainings", json=body | fields)
    assert answer.status_code == 202, answer.text
    return answer.json()


def test_every_default_is_filled_in_and_its_first_jobs_wait(space: Workspace) -> None:
    made = posted(space, name="mine")
    asked = made["request"]
    assert (asked["recipe"], asked["proposals"], asked["max_proposals"]) == (
        "detreg_quick",
        "selective_search",
        30,
    )
    assert (asked["epochs"], asked["batch_size"], asked["image_size"]) == (50, 8, 320)
    assert asked["embedding_layer"] == "backbone.c3"
    assert asked["compare"] is None
    assert (made["state"], made["name"], made["trained_checkpoint_id"]) == ("queued", "mine", None)
    jobs = space.http.get("/v1/jobs", params={"resource_id": made["id"]}).json()["items"]
    assert sorted(job["kind"] for job in jobs) == ["pretrain", "propose"]
    assert space.http.get(f"/v1/pretrainings/{made['id']}/curves").json() == {"items": []}
    listed = space.http.get("/v1/pretrainings").json()["items"]
    assert [one["id"] for one in listed] == [made["id"]]


def test_random_regions_wait_for_nothing(space: Workspace) -> None:
    made = posted(space, proposals="random")
    jobs = space.http.get("/v1/jobs", params={"resource_id": made["id"]}).json()["items"]
    assert [(job["kind"], job["state"]) for job in jobs] == [("pretrain", "queued")]


def test_it_can_be_cancelled_tried_again_and_deleted_and_holds_what_it_needs(space: Workspace) -> None:
    made = posted(space)
    path = f"/v1/pretrainings/{made['id']}"
    refused = space.http.delete(f"/v1/datasets/{made['dataset_id']}")
    assert (refused.status_code, refused.json()["code"]) == (409, "conflict")
    assert made["id"] in refused.text
    assert space.http.delete(f"/v1/checkpoints/{made['encoder_checkpoint_id']}").status_code == 409
    cancelled = space.http.post(f"{path}:cancel")
    assert cancelled.json()["state"] == "cancelled", cancelled.text
    assert space.http.post(f"{path}:retry").json()["state"] == "running"
    space.http.post(f"{path}:cancel")
    assert space.http.delete(path).status_code == 204
    assert space.http.get(path).status_code == 404
    assert space.http.delete(f"/v1/datasets/{made['dataset_id']}").status_code == 204


@pytest.mark.parametrize(
    ("fields", "pointer"),
    [
        ({"proposals": "guess"}, "/proposals"),
        ({"recipe": "nothing"}, "/recipe"),
        ({"epochs": 3, "iterations": 3}, "/iterations"),
        ({"encoder_checkpoint": None}, "/encoder_checkpoint"),
        ({"embedding_layer": "neck.p9"}, "/embedding_layer"),
        ({"architecture": None}, "/from_checkpoint"),
        ({"compare": {"label_fractions": [0.1], "shots": 3}}, "/compare/label_fraction"),
        (
            {"compare": {"label_fractions": [0.1], "checkpoint_ids": ["ckpt_" + "0" * 32]}},
            "/compare/checkpoint_ids/0",
        ),
    ],
)
def test_what_is_wrong_is_named_with_what_to_change(space: Workspace, fields: Record, pointer: str) -> None:
    body = {
        "dataset_id": dataset(space),
        "architecture": "deformable_detr",
        "encoder_checkpoint": checkpoint(space),
    }
    answer = space.http.post("/v1/pretrainings", json=body | fields)
    assert answer.status_code == 422, answer.text
    assert pointer in [error["pointer"] for error in answer.json()["errors"]]
    assert space.http.get("/v1/pretrainings").json()["items"] == []


def test_too_few_pictures_and_comparing_without_boxes_are_conflicts(space: Workspace) -> None:
    body = {"architecture": "detr", "encoder_checkpoint": checkpoint(space)}
    few = space.http.post("/v1/pretrainings", json=body | {"dataset_id": dataset(space, pictures=5)})
    assert (few.status_code, "at least 8" in few.json()["detail"]) == (409, True)
    compare = {"compare": {"label_fractions": [0.1]}, "dataset_id": dataset(space)}
    boxes = space.http.post("/v1/pretrainings", json=body | compare)
    assert (boxes.status_code, "no boxes" in boxes.json()["detail"]) == (409, True)
    assert space.http.get("/v1/pretrainings").json()["items"] == []


def test_recipes(space: Workspace) -> None:
    found = space.http.get("/v1/pretraining-recipes").json()
    assert {"detreg_imagenet", "detreg_coco", "detreg_quick"} <= {one["name"] for one in found["items"]}
    assert found["proposals"] == ["selective_search", "objectness", "random"]


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


def test_the_command_line_and_the_client(space: Workspace, detrank: Callable[..., str]) -> None:
    pictures, body = dataset(space, supervision="boxes"), checkpoint(space)
    words = ["pretrain", pictures, "--architecture", "deformable_detr", "--encoder", body, "--iterations", 9]
    words += [
        "--config",
        '{"num_queries": 20}',
        "--compare",
        "0.05,0.5",
        "--compare-seeds",
        2,
        "--no-wait",
        "--json",
    ]
    made = json.loads(detrank(*words))
    asked = made["request"]
    assert (asked["iterations"], asked["epochs"], asked["config"]) == (9, None, {"num_queries": 20})
    assert asked["compare"]["label_fractions"] == [0.05, 0.5]
    assert (asked["compare"]["seeds"], asked["compare"]["terms"]["recipe"]) == (2, "quick")
    assert made["id"] in detrank("pretrainings", "list")
    assert "queued" in detrank("pretrainings", "show", made["id"])
    assert "detreg_imagenet" in detrank("pretrainings", "recipes")
    assert "cancelled" in detrank("pretrainings", "cancel", made["id"])
    assert "give a detector to go on with" in detrank("pretrain", pictures, "--no-wait", code=1)
    with Client(space.service.url, space.key) as client:
        assert client.pretrainings.get(made["id"])["state"] == "cancelled"
        assert client.pretrainings.curves(made["id"]) == []
        client.pretrainings.delete(made["id"])
