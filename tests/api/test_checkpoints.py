"""/v1/checkpoints"""

import hashlib

import pytest
from running import Workspace


def test_a_file_becomes_a_checkpoint_with_a_job(space: Workspace) -> None:
    query = "name=mine&licence=MIT&mean=0.4&mean=0.5&mean=0.6&class_names=cat&class_names=dog"
    answer = space.http.post(f"/v1/checkpoints?{query}", content=b"weights")
    assert answer.status_code == 202
    made = answer.json()
    assert answer.headers["location"] == f"/v1/checkpoints/{made['id']}"
    assert (made["state"], made["name"], made["licence"]) == ("processing", "mine", "MIT")
    assert made["request"] == {"licence": "MIT", "mean": [0.4, 0.5, 0.6], "class_names": ["cat", "dog"]}
    job = space.http.get(f"/v1/jobs/{made['job_id']}").json()
    assert (job["kind"], job["queue"]) == ("inspect", "cpu")


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("torchvision://fasterrcnn_resnet50_fpn/COCO_V1", "COCO_V1"),
        ("timm://mobilenetv2_100", "mobilenetv2_100"),
        ("hf://org/repo@main/model.safetensors", "model.safetensors"),
        ("pypi://package==1.0/weights/a.pth", "a.pth"),
    ],
)
def test_a_source_is_fetched_by_the_job(space: Workspace, source: str, name: str) -> None:
    body = {"source": source, "provenance": {"from": "a zoo", "nested": [1, None, "é"]}}
    made = space.http.post("/v1/checkpoints", json=body).raise_for_status().json()
    assert (made["name"], made["request"]["source"]) == (name, source)
    assert made["provenance"] == body["provenance"]
    assert space.http.get(f"/v1/jobs/{made['job_id']}").json()["queue"] == "long"


def test_the_digest_is_checked(space: Workspace) -> None:
    right = hashlib.sha256(b"weights").hexdigest()
    assert space.http.post("/v1/checkpoints", params={"sha256": right}, content=b"weights").status_code == 202
    answer = space.http.post("/v1/checkpoints", params={"sha256": "0" * 64}, content=b"weights")
    assert answer.status_code == 422
    assert right in answer.json()["detail"]
    assert len(space.http.get("/v1/checkpoints").json()["items"]) == 1


@pytest.mark.parametrize(
    "body",
    [
        {"source": "ftp://somewhere/x"},
        {"source": "file:///etc/passwd"},
        {"source": "http://169.254.169.254/latest"},
        {"source": "timm://"},
        {"source": "/etc/passwd"},
        {"source": "../x"},
        {"source": ""},
        {"source": "timm://a", "sha256": "xyz"},
        {"source": "timm://a", "mean": [1, 2]},
        {"source": "timm://a", "mean": [1, 2, "x"]},
        {"source": "timm://a", "name": "a\x00b"},
        {"source": "timm://a", "provenance": {"a\x00": 1}},
        {"source": "timm://a", "provenance": ["list"]},
        {"source": "timm://a", "sorce": 1},
        {"name": "no source"},
    ],
)
def test_wrong_bodies_are_refused(space: Workspace, body: dict) -> None:
    answer = space.http.post("/v1/checkpoints", json=body)
    assert answer.status_code == 422
    assert answer.json()["errors"]
    assert space.http.get("/v1/checkpoints").json()["items"] == []


def test_numbers_that_are_none_are_refused(space: Workspace) -> None:
    headers = {"Content-Type": "application/json"}
    for text in (b'{"source": "timm://a", "provenance": {"a": NaN}}', b'{"source": "timm://\\ud800"}'):
        assert space.http.post("/v1/checkpoints", content=text, headers=headers).status_code in (400, 422)


def test_an_empty_body_and_a_form_are_refused(space: Workspace) -> None:
    assert space.http.post("/v1/checkpoints", content=b"").status_code == 422
    answer = space.http.post("/v1/checkpoints", files={"file": b"weights"})
    assert answer.status_code == 415
    assert "--data-binary" in answer.json()["detail"]


def test_weights_once_it_is_ready(space: Workspace) -> None:
    waiting = space.checkpoint(ready=False)
    assert space.http.get(f"/v1/checkpoints/{waiting}/weights").status_code == 409
    id = space.checkpoint()
    answer = space.http.get(f"/v1/checkpoints/{id}/weights", headers={"Range": "bytes=0-3"})
    assert (answer.status_code, answer.content) == (206, b"safe")
    assert f"{id}.safetensors" in answer.headers["content-disposition"]
    assert answer.headers["etag"] == f'"{space.http.get(f"/v1/checkpoints/{id}").json()["weights_sha256"]}"'


def test_filters(space: Workspace) -> None:
    big = space.checkpoint(name="big", parameters=10**9, licence="Apache-2.0")
    small = space.checkpoint(name="small", parameters=5, licence="MIT")
    waiting = space.checkpoint(name="waiting", ready=False)

    def found(**query: object) -> list[str]:
        return [
            one["id"]
            for one in space.http.get("/v1/checkpoints", params=query).raise_for_status().json()["items"]
        ]

    assert found() == [waiting, small, big]
    assert found(state="ready") == found(kind="detector") == [small, big]
    assert found(licence="apache-2.0") == found(name="BIG") == [big]
    assert found(max_parameters=100) == [small]
    assert found(architecture="torchvision/fasterrcnn_resnet50_fpn") == [small, big]
    assert found(architecture="x") == []


def test_a_candidate_is_not_deleted(space: Workspace) -> None:
    ranking = space.ranking(1)
    id = ranking["candidates"][0]["checkpoint_id"]
    answer = space.http.delete(f"/v1/checkpoints/{id}")
    assert answer.status_code == 409
    assert answer.json()["errors"] == [{"pointer": "", "message": f"used by /v1/rankings/{ranking['id']}"}]
    free = space.checkpoint(name="free")
    assert space.http.delete(f"/v1/checkpoints/{free}").status_code == 204
    assert space.http.get(f"/v1/checkpoints/{free}").status_code == 404


def test_options_of_the_architecture_reach_the_request(space: Workspace) -> None:
    options = {"norm": "frozen"}
    body = {"source": "timm://resnet18.a1_in1k", "architecture": "detrank/maskrcnn_fpn", "options": options}
    made = space.http.post("/v1/checkpoints", json=body).raise_for_status().json()
    assert made["request"]["options"] == options
    query = {"architecture": "detrank/maskrcnn_fpn", "options": '{"norm": "frozen"}'}
    made = space.http.post("/v1/checkpoints", params=query, content=b"weights").raise_for_status().json()
    assert made["request"]["options"] == options
    for wrong in ("norm=frozen", "[]", "3"):
        assert (
            space.http.post("/v1/checkpoints", params={"options": wrong}, content=b"weights").status_code
            == 422
        )


def test_shelf_is_filtered_and_refuses_what_it_does_not_know(space: Workspace) -> None:
    asked = {"licence": "permissive", "max_parameters": 30_000_000, "families": ["d_fine"], "count": 2}
    items = space.http.get("/v1/shelf", params=asked).json()["items"]
    assert [item["family"] for item in items] == ["d_fine", "d_fine"]
    assert all(item["parameters"] <= 30_000_000 for item in items)
    assert items[0]["coco_ap"] >= items[1]["coco_ap"]
    for wrong in ({"gigabytes": -1}, {"colour": "red"}, {"count": 0}):
        answer = space.http.get("/v1/shelf", params=wrong)
        assert answer.status_code == 422
        assert answer.headers["content-type"] == "application/problem+json"
