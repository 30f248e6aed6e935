"""The page: datasets, checkpoints, forms and what was found on pictures"""

import json

import pytest
from page_shape import Shape, look
from running import Workspace
from sqlalchemy.orm import Session
from test_page import FORMS

from app.db.tables import Checkpoint, Dataset, Verification

# what is under the page is tested with both databases
pytestmark = pytest.mark.parametrize("service", ["sqlite"], indirect=True)


def test_a_dataset_with_its_report(space: Workspace) -> None:
    id = space.dataset(name="<b>bold</b> & co")

    def fill(session: Session) -> None:
        row = session.get(Dataset, id)
        row.summary = {
            "images": 12,
            "annotations": 30,
            "images_without_boxes": 2,
            "categories": [{"id": 1, "name": "</svg><script>", "annotations": 30, "images": 10}],
            "splits": {"train": {"images": 10, "annotations": 25}, "val": {"images": 2, "annotations": 5}},
            "splits_from": "drawn",
            "objects": {
                "by_area": {"small": 10, "medium": 15, "large": 5},
                "side": {"edges": [0, 8, 16], "counts": [0, 10, 20]},
            },
            "notes": ["one class was renamed"],
        }
        fault = {"code": "degenerate_box", "action": "dropped", "file": "a.xml", "reason": "it has no area"}
        row.report = {"counts": {"degenerate_box": 1}, "faults": [fault]}

    with space.service.database.unit_of_work() as session:
        fill(session)
    text = look(space, f"/datasets/{id}")
    assert "&lt;b&gt;bold&lt;/b&gt; &amp; co" in text
    assert "&lt;/svg&gt;&lt;script&gt;" in text
    for said in (
        "degenerate box",
        "it has no area",
        "10 pictures, 25 objects",
        "≥ 16",
        "one class was renamed",
    ):
        assert said in text
    assert f"/v1/datasets/{id}/previews/0" in text


def test_a_dataset_of_image_labels_speaks_of_labels(space: Workspace) -> None:
    id = space.dataset()
    with space.service.database.unit_of_work() as session:
        row = session.get_one(Dataset, id)
        row.supervision = "image_labels"
        row.summary = {
            "images": 3,
            "annotations": 4,
            "images_without_boxes": 1,
            "categories": [{"id": 1, "name": "cat", "annotations": 4, "images": 2}],
            "splits": {"train": {"images": 3, "annotations": 4}},
            "objects": {
                "side": {"edges": [0, 8], "counts": [0, 4]},
                "by_area": {"small": 0, "medium": 0, "large": 4},
            },
        }
    text = space.http.get(f"/datasets/{id}").text
    assert "4 labels" in text
    assert "1 of them without a label" in text
    assert "Pictures with their labels" in text
    assert "Size of objects" not in text
    assert f"/pseudo-labellings/new?dataset={id}" in text
    assert f"/rankings/new?dataset={id}" not in text


def test_forms_carry_what_the_api_takes(space: Workspace) -> None:
    ranking = space.ranking(1)
    (id,) = ranking["checkpoint_ids"]
    space.score(ranking, id, 0.5)
    space.rank(ranking, [(id, 0.5)])
    schemas = space.http.get("/openapi.json").json()["components"]["schemas"]
    # `priority` is asked for where work is steered, lists of layers and regions by who knows the API
    left = {"priority", "regions", "filters", "rank_by", "verify"}
    for page, schema in (("rankings", "RankingCreate"), ("verifications", "VerificationCreate")):
        fields = {
            field["name"] for field in Shape(space.http.get(f"/{page}/new").text).fields if "name" in field
        }
        assert set(schemas[schema]["properties"]) - left <= fields, page
    assert {"verify.top_k", "filters.max_inference_ms", "rank_by.quantity"} <= {
        field.get("name") for field in Shape(space.http.get("/rankings/new").text).fields
    }


def test_what_is_being_read_follows_its_job(space: Workspace) -> None:
    for kind, id in (
        ("datasets", space.dataset(ready=False)),
        ("checkpoints", space.checkpoint(ready=False)),
    ):
        job = space.http.get(f"/v1/{kind}/{id}").json()["job_id"]
        assert f'data-follow="/v1/jobs/{job}/events"' in look(space, f"/{kind}/{id}")


def test_a_checkpoint_says_what_it_is_and_where_it_comes_from(space: Workspace) -> None:
    id = space.checkpoint(name="mine")
    with space.service.database.unit_of_work() as session:
        row = session.get(Checkpoint, id)
        row.manifest = {
            "backbone": "resnet50",
            "layers": [{"name": "backbone.c4"}, {"name": "neck.roi", "trained": False}],
            "input": {"min_size": 800, "mean": [0.1, 0.2, 0.3]},
            "notes": ["the norm was guessed"],
            "warnings": ["weights are of another shape"],
            "dropped_keys": ["fc.weight"],
        }
        row.provenance = {
            "verification_id": "vf_1",
            "parent": {"checkpoint_id": "ckpt_1", "name": "its parent"},
            "dataset": {"id": "ds_1", "name": "wheat"},
            "recipe": "quick",
            "seed": 0,
        }
    text = look(space, f"/checkpoints/{id}")
    for said in (
        "resnet50",
        "the norm was guessed",
        "another shape",
        "fc.weight",
        "its parent",
        "0.1, 0.2, 0.3",
    ):
        assert said in text


def test_a_checkpoint_says_what_it_cost_and_whom_it_descends_from(space: Workspace) -> None:
    ranking = space.ranking(1)
    (id,) = ranking["checkpoint_ids"]
    assert "Known once a ranking has read it" in look(space, f"/checkpoints/{id}")
    space.score(ranking, id, 0.5, ms_per_image=12.25)
    space.rank(ranking, [(id, 0.5)])
    text = look(space, f"/checkpoints/{id}")
    assert "12 ms a picture on cpu" in text
    assert "1.5 s" in text
    child, grandchild = space.checkpoint(name="child"), space.checkpoint(name="grandchild")
    about = {"dataset": {"id": "ds_1", "name": "wheat"}, "recipe": "quick", "seed": 0, "map": {"val": 0.25}}
    with space.service.database.unit_of_work() as session:
        for one, parent in ((child, id), (grandchild, child)):
            row = session.get(Checkpoint, one)
            row.provenance = about | {"verification_id": "vf_1", "parent": {"checkpoint_id": parent}}
    text = look(space, f"/checkpoints/{grandchild}")
    order = [text.index(f'href="/checkpoints/{id}"'), text.index(f'href="/checkpoints/{child}"')]
    assert order == sorted(order)
    assert "mAP 25.0" in text


def test_a_new_ranking_is_foretold_from_earlier_ones(space: Workspace) -> None:
    assert 'data-takes=""' in look(space, "/rankings/new") or "There is no dataset" in look(
        space, "/rankings/new"
    )
    ranking = space.ranking(1, max_images=100)
    (id,) = ranking["checkpoint_ids"]
    space.score(ranking, id, 0.5)
    space.rank(ranking, [(id, 0.5)])
    text = look(space, "/rankings/new")
    assert f'value="{id}" data-pace="0.015"' in text  # 1.5 s for 100 pictures
    assert 'data-takes="0.015"' in text


def test_forms_offer_what_is_ready(space: Workspace) -> None:
    dataset, checkpoint = space.dataset(name="wheat"), space.checkpoint(name="mine")
    for at in [form for form in FORMS if form not in ("datasets/new", "checkpoints/new")]:
        text = look(space, f"/{at}")
        assert dataset in text
        assert checkpoint in text
    assert f'value="{checkpoint}" checked' in look(space, f"/rankings/new?checkpoint={checkpoint}")


def _boxes_kept(space: Workspace, id: str, scores: list[float]) -> None:
    """Ends the verification with a document of boxes on one picture."""
    box = [1.0, 2.0, 30.0, 40.0]
    image = {"image_id": 7, "file_name": "000007.jpg", "width": 64, "height": 48, "split": "val"}
    image |= {"f1": 0.5, "hits": 1, "false": 0, "missed": 1}
    image["objects"] = [{"box": box, "category": 0, "ignored": False}] * 2
    image["detections"] = [
        {"box": box, "category": 0, "score": score, "outcome": "hit", "object": n}
        for n, score in enumerate(scores)
    ]
    document = {"threshold": 0.4, "categories": ["<head>"], "images": [image]}

    def write(session: Session) -> None:
        row = session.get(Verification, id)
        evaluation = {"box": {"map": 0.25, "ap50": 0.5}, "per_class": [{"category": "<head>", "ap": 0.25}]}
        row.result = {"val": evaluation, "test": None, "best": {}, "iterations": 5, "finished": "completed"}
        row.result = row.result | {"warnings": []}
        row.curves = [{"iteration": 5, "loss": 1.0}, {"iteration": 9, "loss": 0.5}]
        kept = space.keep(session, json.dumps(document).encode())
        about = {"media_type": "application/json", "title": "found", "about": {}}
        row.pictures = [{"sha256": kept, "file_name": "predictions.json"} | about]

    space.finish(space.http.get(f"/v1/verifications/{id}").json()["job_id"], write)


def test_what_was_found_beside_the_truth_alone_and_two_beside_each_other(space: Workspace) -> None:
    dataset = space.dataset()
    ids = []
    for name in ("one", "two"):
        body = {"dataset_id": dataset, "checkpoint_id": space.checkpoint(name=name)}
        ids.append(space.http.post("/v1/verifications", json=body).raise_for_status().json()["id"])
    assert "Boxes come when the training has ended" in look(space, f"/verifications/{ids[0]}/pictures")
    _boxes_kept(space, ids[0], [0.9, 0.3])
    _boxes_kept(space, ids[1], [0.8])
    alone = look(space, f"/verifications/{ids[0]}/pictures")
    assert f"/v1/datasets/{dataset}/images/000007.jpg" in alone
    assert "&lt;head&gt; 0.90" in alone
    assert alone.count('data-score="0.3" data-outcome="hit" data-object="1" hidden') == 1
    assert 'value="0.40"' in alone
    assert alone.count("data-cut=") == 1
    two = look(space, f"/verifications/{ids[0]}/pictures?beside={ids[1]}")
    assert two.count("data-cut=") == 2
    assert "A: one" in two
    assert "B: two" in two
    assert two.count("<polyline") == 2
    look(space, f"/verifications/{ids[0]}/pictures?beside=vf_{'0' * 32}", 404)
