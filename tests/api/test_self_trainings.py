"""POST /v1/pretrainings with the method self_training, its page, and the same from the command line."""

import json

import pytest
from running import Record, Workspace
from test_pretrainings import dataset as bare
from test_pretrainings import detrank  # noqa: F401  a fixture

from app.db.tables import Checkpoint, Dataset, Pretraining, Verification


def labelled(space: Workspace) -> str:
    """A dataset with boxes of cars and dogs."""
    id = bare(space, supervision="boxes")
    with space.service.database.unit_of_work() as session:
        row = session.get(Dataset, id)
        row.summary = row.summary | {"categories": [{"name": "car"}, {"name": "dog"}]}
    return id


def detector(space: Workspace, *names: str, name: str = "detector") -> str:
    id = space.checkpoint(name=name)
    with space.service.database.unit_of_work() as session:
        session.get(Checkpoint, id).manifest = {"layers": [], "class_names": [*names]}
    return id


def verified(space: Workspace, dataset_id: str, val_map: float, **terms: object) -> tuple[str, str, str]:
    """(what was fine-tuned, what came of it, the verification) with a mAP on validation."""
    start, made = detector(space, name="start"), detector(space, "car", "dog", name=f"tuned to {val_map}")
    body = {"dataset_id": dataset_id, "checkpoint_id": start, "recipe": "quick", **terms}
    id = space.http.post("/v1/verifications", json=body).raise_for_status().json()["id"]
    with space.service.database.unit_of_work() as session:
        row = session.get(Verification, id)
        row.state, row.trained_checkpoint_id = "succeeded", made
        row.result = {
            "val": {"box": {"map": val_map, "ap50": val_map}, "mask": None},
            "test": None,
            "best": {"map": val_map, "iteration": 1},
            "iterations": 1,
            "finished": "completed",
            "warnings": [],
        }
    return start, made, id


def posted(space: Workspace, code: int = 202, **fields: object) -> Record:
    answer = space.http.post("/v1/pretrainings", json={"method": "self_training"} | fields)
    assert answer.status_code == code, answer.text
    return answer.json()


def test_the_best_on_validation_teaches_by_its_own_terms(space: Workspace) -> None:
    target, pictures = labelled(space), bare(space)
    verified(space, target, 0.2)
    start, best, verification = verified(space, target, 0.4, iterations=77, label_fraction=0.1, image_size=96)
    made = posted(space, dataset_id=pictures, labelled_dataset_id=target, ema=0.99, compare={})
    asked = made["request"]
    assert (made["method"], made["proposals"], made["recipe"]) == ("self_training", None, "quick")
    assert (asked["teacher_checkpoint_id"], asked["teacher_verification_id"]) == (best, verification)
    assert (made["start_checkpoint_id"], asked["rounds"]) == (start, 1)
    terms = asked["terms"]
    # all labels, whatever its teacher had
    assert (terms["iterations"], terms["image_size"], terms["label_fraction"]) == (77, 96, None)
    assert terms["ema"] == 0.99
    assert asked["compare"]["label_fractions"] == [1.0]
    assert (asked["compare"]["dataset_id"], asked["compare"]["terms"]) == (target, terms)
    assert asked["mean_teacher"] is False
    mean = posted(space, dataset_id=pictures, labelled_dataset_id=target, mean_teacher=True)["request"]
    assert (mean["mean_teacher"], mean["terms"]["ema"]) == (True, 0.999)
    # a budget of its own replaces the teacher's
    other = posted(space, dataset_id=pictures, labelled_dataset_id=target, epochs=3, teacher_checkpoint=best)
    assert (other["request"]["terms"]["epochs"], other["request"]["terms"]["iterations"]) == (3, None)
    # a teacher that nobody here fine-tuned is what the student begins with
    brought = detector(space, "dog")
    own = posted(space, dataset_id=pictures, labelled_dataset_id=target, teacher_checkpoint=brought)
    assert (own["start_checkpoint_id"], own["request"]["teacher_verification_id"]) == (brought, None)
    assert own["request"]["terms"]["label_fraction"] is None
    jobs = space.http.get("/v1/jobs", params={"resource_id": made["id"]}).json()["items"]
    assert [job["kind"] for job in jobs] == ["pretrain"]
    assert space.http.get(f"/v1/pretrainings/{made['id']}/curves").json() == {"items": []}
    # both datasets and the start are kept
    assert space.http.delete(f"/v1/datasets/{pictures}").status_code == 409
    assert space.http.delete(f"/v1/checkpoints/{start}").status_code == 409


@pytest.mark.parametrize(
    ("fields", "pointer"),
    [
        ({"labelled_dataset_id": None}, "/labelled_dataset_id"),
        ({"labelled_dataset_id": "the same"}, "/labelled_dataset_id"),
        ({"labelled_dataset_id": "ds_" + "9" * 32}, "/labelled_dataset_id"),
        ({"teacher_checkpoint": "ckpt_" + "9" * 32}, "/teacher_checkpoint"),
        ({"architecture": "detr"}, "/architecture"),
        ({"proposals": "random"}, "/proposals"),
        ({"recipe": "detreg_coco"}, "/recipe"),
        ({"recipe": "detr"}, "/recipe"),
        ({"epochs": 3, "iterations": 3}, "/iterations"),
        ({"compare": {"self_training": True}}, "/compare/self_training"),
        ({"compare": {"dataset_id": "ds_" + "9" * 32}}, "/compare/dataset_id"),
        ({"rounds": 0}, "/rounds"),
        ({"mean_teacher": True, "ema": 0}, "/ema"),
        ({"method": "guessing"}, "/method"),
        ({"method": "detreg", "architecture": "detr"}, "/labelled_dataset_id"),
    ],
)
def test_what_is_wrong_with_a_self_training_is_named(space: Workspace, fields: Record, pointer: str) -> None:
    target, pictures = labelled(space), bare(space)
    verified(space, target, 0.3)
    if fields.get("labelled_dataset_id") == "the same":
        fields = fields | {"labelled_dataset_id": pictures}
    body = {"dataset_id": pictures, "labelled_dataset_id": target} | fields
    answer = posted(space, 422, **body)
    assert pointer in [error["pointer"] for error in answer["errors"]], answer
    assert space.http.get("/v1/pretrainings").json()["items"] == []


def test_what_cannot_teach_or_be_learned_from_is_a_conflict(space: Workspace) -> None:
    target, pictures = labelled(space), bare(space)
    body = {"dataset_id": pictures, "labelled_dataset_id": target}
    assert "POST /v1/verifications first" in posted(space, 409, **body)["detail"]
    verified(space, target, 0.3)
    stranger = detector(space, "ship")
    refused = posted(space, 422, **body, teacher_checkpoint=stranger)
    assert "ship" in refused["errors"][0]["message"]
    assert "no boxes" in posted(space, 409, **(body | {"labelled_dataset_id": bare(space)}))["detail"]
    empty = bare(space, pictures=0)
    assert "no training pictures" in posted(space, 409, **(body | {"dataset_id": empty}))["detail"]
    with space.service.database.unit_of_work() as session:
        session.get(Dataset, target).supervision = "pseudo_boxes"
    assert "pseudo boxes" in posted(space, 409, **body)["detail"]


def test_a_self_training_from_the_command_line_and_on_the_page(space: Workspace, detrank) -> None:  # noqa: F811
    target, pictures = labelled(space), bare(space)
    start, best, verification = verified(space, target, 0.3)
    words = ["pretrain", pictures, "--method", "self_training", "--labelled", target, "--rounds", 2]
    words += ["--ema", 0.9, "--mean-teacher", "--compare", "0.5,1", "--no-wait", "--json"]
    made = json.loads(detrank(*words))
    assert (made["request"]["rounds"], made["request"]["terms"]["ema"]) == (2, 0.9)
    assert made["request"]["mean_teacher"] is True
    assert made["request"]["compare"]["label_fractions"] == [0.5, 1.0]
    assert "self_training" in detrank("pretrainings", "list")
    interval = {"n": 3, "mean": 0.05, "low": 0.01, "high": 0.09, "undefined": None, "says": "helped"}
    arm = {"label_fraction": 1.0, "checkpoint_id": start, "name": "start", "by_seed": {}}
    student = {
        "verification_id": verification,
        "teacher_checkpoint_id": best,
        "trained_checkpoint_id": best,
        "confidence": 0.35,
        "f1": 0.61,
        "boxes": 1234,
        "pictures": 40,
        "unlabelled_pictures": 44,
        "equal_content": 2,
        "map": 0.31,
        "ap50": 0.52,
        "split": "test",
    }
    with space.service.database.unit_of_work() as session:
        row = session.get(Pretraining, made["id"])
        row.curves = [{"iteration": n, "loss": 4 / n, "val": {"map": n / 10, "ap50": n / 5}} for n in (1, 2)]
        row.trained_checkpoint_id, row.seconds = best, 12.0
        row.result = {
            "pictures": 80,
            "held_out": {"equal_content": 2},
            "iterations": 9,
            "finished": "completed",
            "warnings": [],
            "cost": {"proposing_s": 0.0, "training_s": 60.0, "comparing_s": 90.0},
            "self_training": {
                "teacher": {"checkpoint_id": best, "verification_id": None},
                "rounds": [student],
            },
            "comparison": {
                "dataset_id": target,
                "measured_on": ["test"],
                "arms": [
                    arm | {"arm": "self_training", "map": 0.31, "ap50": 0.52},
                    arm | {"arm": "start", "map": 0.26, "ap50": 0.47},
                ],
                "gains": [
                    arm | {"against": "start", "map": interval, "ap50": interval},
                ],
                "left_out": [],
                "verdict": ["with all labels: it helped"],
            },
        }
    shown = detrank("pretrainings", "show", made["id"])
    assert "student 1" in shown
    assert "+0.050 (+0.010 to +0.090)" in shown
    assert f"the last student: {best}" in shown
    page = space.http.get(f"/pretrainings/{made['id']}").text
    assert "the student of round 1" in page
    assert "40 of 44" in page
    assert "+5.0 (+1.0 to +9.0)" in page
    assert "mAP on validation" in page
    form = space.http.get("/pretrainings/new", params={"method": "self_training"}).text
    assert '<option value="self_training" selected>' in form
    for field in ("labelled_dataset_id", "teacher_checkpoint", "rounds", "ema", "compare.checkpoint_ids"):
        assert f'name="{field}"' in form, field
