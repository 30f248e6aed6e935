"""POST /v1/studies and what can be done to a study"""

import pytest
from running import Record, Workspace
from sqlalchemy.orm import Session

from app.db.tables import Study, Verification

MEASURED = {
    "dataset": "a",
    "kind": "metric",
    "metric": "logme",
    "layer": "backbone.c4",
    "level": "local",
    "measure": "weighted_tau",
    "value": 0.5,
    "low": None,
    "high": None,
    "n": 3,
    "undefined": None,
    "excluded": {},
}


def posted(space: Workspace, datasets: int = 2, checkpoints: int = 2, **fields) -> Record:
    body = {
        "dataset_ids": [space.dataset(name=f"set {n}") for n in range(datasets)],
        "checkpoint_ids": [space.checkpoint(name=f"candidate {n}") for n in range(checkpoints)],
    } | fields
    return space.http.post("/v1/studies", json=body).raise_for_status().json()


def at(space: Workspace, study: Record) -> Record:
    return space.http.get(f"/v1/studies/{study['id']}").raise_for_status().json()


def rank_all(space: Workspace, study: Record) -> None:
    for one in study["rankings"]:
        ranking = space.http.get(f"/v1/rankings/{one['id']}").json()
        for id in study["checkpoint_ids"]:
            space.score(ranking, id, 1.0)
        space.rank(ranking, [(id, 1.0) for id in study["checkpoint_ids"]])


def job_of(space: Workspace, training: Record) -> str:
    return space.http.get(f"/v1/verifications/{training['verification_id']}").json()["job_id"]


def train(space: Workspace, training: Record, value: float | None) -> None:
    def write(session: Session) -> None:
        row = session.get(Verification, training["verification_id"])
        box = {"map": value, "ap50": value}
        row.result, row.seconds = (
            {"val": {"box": box, "images": 3}, "test": None, "iterations": 9, "finished": "completed"},
            4.0,
        )

    space.finish(job_of(space, training), write)


def conclude(space: Workspace, study: Record) -> None:
    def write(session: Session) -> None:
        row = session.get(Study, study["id"])
        row.result = {
            "correlations": {"measures": ["weighted_tau"], "rows": [MEASURED], "ahead": []},
            "verdict": ["nothing beats the baselines"],
            "names": dict.fromkeys((*study["dataset_ids"], *study["checkpoint_ids"]), "one"),
            "left_out": [
                {
                    "dataset_id": study["dataset_ids"][0],
                    "dataset": "a",
                    "checkpoint_id": None,
                    "candidate": None,
                    "reason": "it broke",
                }
            ],
            "warnings": [],
            "spent": {"scoring_s": 1.0, "training_s": 2.0, "reused": 0, "reused_s": 0.0},
        }
        kinds = {
            "report.html": ("text/html", "report"),
            "correlations.csv": ("text/csv", "table"),
            "a.png": ("image/png", "plot"),
        }
        row.files = [
            {
                "sha256": space.keep(session, name.encode()),
                "file_name": name,
                "media_type": media_type,
                "title": name,
                "about": {"kind": kind},
            }
            for name, (media_type, kind) in kinds.items()
        ]

    space.finish(at(space, study)["job_id"], write)


def whole(space: Workspace, **fields) -> Record:
    made = posted(space, **fields)
    rank_all(space, made)
    for one in made["trainings"]:
        train(space, one, 0.4)
    return at(space, made)


def test_every_pair_is_ranked_and_trained_once_for_each_seed(space: Workspace) -> None:
    made = posted(space, seeds=[5, 6], iterations=20, metrics=["logme"], score_image_size=64)
    assert (made["state"], made["progress"]) == ("queued", {"done": 0, "total": 10, "fraction": 0.0})
    assert [one["dataset_id"] for one in made["rankings"]] == made["dataset_ids"]
    assert [(one["seed"], one["dataset_id"], one["checkpoint_id"]) for one in made["trainings"]] == [
        (seed, dataset, checkpoint)
        for seed in (5, 6)
        for dataset in made["dataset_ids"]
        for checkpoint in made["checkpoint_ids"]
    ]
    asked = made["request"]
    assert (
        asked["recipe"],
        asked["iterations"],
        asked["reuse"],
        asked["keep_weights"],
        asked["score_image_size"],
    ) == ("quick", 20, True, False, 64)
    requests = [
        space.http.get(f"/v1/verifications/{one['verification_id']}").json()["request"]
        for one in made["trainings"]
    ]
    assert {(one["recipe"], one["iterations"], one["reuse"]) for one in requests} == {("quick", 20, True)}
    assert space.http.get(f"/v1/rankings/{made['rankings'][1]['id']}").json()["request"]["image_size"] == 64
    listed = space.http.get(f"/v1/verifications?study_id={made['id']}").json()["items"]
    assert len(listed) == 8


def test_the_last_part_has_the_report_written_whatever_failed(space: Workspace) -> None:
    made = posted(space)
    *others, last = made["trainings"]
    space.fail(job_of(space, others[0]), "it diverged")
    for one in others[1:]:
        train(space, one, 0.3)
    rank_all(space, made)
    now = at(space, made)
    assert (now["state"], now["stage"], now["progress"]["done"]) == ("running", "working", 5)
    train(space, last, None)
    now = at(space, made)
    assert now["stage"] == "concluding"
    job = space.http.get(f"/v1/jobs/{now['job_id']}").json()
    assert (job["kind"], job["queue"]) == ("study", "cpu")
    shown = {one["verification_id"]: one for one in now["trainings"]}
    assert shown[others[0]["verification_id"]]["error"]["detail"] == "it diverged"
    assert [(one["map"], one["split"]) for one in shown.values()] == [
        (None, None),
        (0.3, "val"),
        (0.3, "val"),
        (None, "val"),
    ]
    conclude(space, made)
    now = at(space, made)
    assert (now["state"], now["verdict"]) == ("succeeded", ["nothing beats the baselines"])
    assert now["correlations"]["rows"][0]["value"] == 0.5


def test_its_report_tables_and_plots(space: Workspace, other: Workspace) -> None:
    made = whole(space, name="mine")
    assert space.http.get(f"/v1/studies/{made['id']}.html").status_code == 404
    conclude(space, made)
    now = at(space, made)
    page = space.http.get(now["report"])
    assert (page.text, page.headers["content-type"]) == ("report.html", "text/html; charset=utf-8")
    assert "img-src data:" in page.headers["content-security-policy"]
    assert "sandbox" in page.headers["content-security-policy"]
    assert "script-src" not in page.headers["content-security-policy"]
    assert page.headers["content-disposition"].startswith("inline")
    assert space.http.get(f"/v1/studies/{made['id']}.csv").text == "correlations.csv"
    for file in now["files"]:
        answer = space.http.get(file["url"])
        assert (answer.status_code, answer.text) == (200, file["title"])
        assert other.http.get(file["url"]).status_code == 404
    missing = space.http.get(f"/v1/studies/{made['id']}/plots/b.png")
    assert missing.status_code == 404
    assert "correlations.csv" in missing.json()["detail"]
    (one,) = space.http.get(f"/v1/studies?dataset_id={made['dataset_ids'][1]}&state=succeeded").json()[
        "items"
    ]
    assert (one["id"], one["name"], one["seeds"]) == (made["id"], "mine", [0])
    answer = space.http.get(f"/v1/studies/{made['id']}")
    same = space.http.get(f"/v1/studies/{made['id']}", headers={"If-None-Match": answer.headers["etag"]})
    assert same.status_code == 304
    with space.http.stream("GET", f"/v1/studies/{made['id']}/events") as stream:
        text = "".join(stream.iter_text())
    for word in ('"ranking"', '"verification"', '"unit": "parts"', "event: end"):
        assert word in text


def test_a_failed_part_is_tried_again_and_the_report_written_anew(space: Workspace) -> None:
    made = posted(space, datasets=1)
    rank_all(space, made)
    first, second = made["trainings"]
    space.fail(job_of(space, first))
    train(space, second, 0.3)
    for refused in (f"/v1/studies/{made['id']}:retry", f"/v1/verifications/{first['verification_id']}:retry"):
        assert space.http.post(refused).status_code == 409, "it is being concluded"
    conclude(space, made)
    again = space.http.post(f"/v1/studies/{made['id']}:retry")
    assert (again.status_code, again.json()["state"], again.json()["stage"]) == (202, "running", "working")
    assert again.json()["verdict"], "what was said stays until it is said anew"
    train(space, first, 0.5)
    before = at(space, made)
    assert before["stage"] == "concluding"
    conclude(space, made)
    assert at(space, made)["state"] == "succeeded"
    assert space.http.post(f"/v1/studies/{made['id']}:retry").status_code == 409


def test_a_study_that_cannot_be_concluded_fails_and_is_tried_again(space: Workspace) -> None:
    made = whole(space, datasets=1)
    space.fail(made["job_id"], "nothing to correlate")
    now = at(space, made)
    assert (now["state"], now["error"]["detail"]) == ("failed", "nothing to correlate")
    again = space.http.post(f"/v1/studies/{made['id']}:retry").json()
    assert (again["state"], again["stage"]) == ("running", "concluding")
    conclude(space, made)
    assert at(space, made)["state"] == "succeeded"


def test_it_is_cancelled_with_everything_and_deleted_with_everything(space: Workspace) -> None:
    made = posted(space)
    train(space, made["trainings"][0], 0.4)
    assert space.http.delete(f"/v1/studies/{made['id']}").status_code == 409
    answer = space.http.post(f"/v1/studies/{made['id']}:cancel")
    assert (answer.status_code, answer.json()["state"]) == (200, "cancelled")
    assert space.http.get("/v1/jobs?state=queued").json()["items"] == []
    assert {one["state"] for one in answer.json()["rankings"]} == {"cancelled"}
    again = space.http.post(f"/v1/studies/{made['id']}:retry").json()
    assert (again["state"], again["progress"]["done"]) == ("running", 1)
    assert len(space.http.get("/v1/jobs?state=queued").json()["items"]) == 4 + 3
    space.http.post(f"/v1/studies/{made['id']}:cancel")
    part, ranking = made["trainings"][1]["verification_id"], made["rankings"][0]["id"]
    for alone in (f"/v1/verifications/{part}", f"/v1/rankings/{ranking}"):
        assert made["id"] in space.http.delete(alone).json()["detail"]
    assert space.http.delete(f"/v1/studies/{made['id']}").status_code == 204
    for gone in (f"/v1/studies/{made['id']}", f"/v1/verifications/{part}", f"/v1/rankings/{ranking}"):
        assert space.http.get(gone).status_code == 404
    assert space.http.delete(f"/v1/datasets/{made['dataset_ids'][0]}").status_code == 204


@pytest.mark.parametrize(
    ("fields", "pointers"),
    [
        ({"dataset_ids": []}, ["/dataset_ids"]),
        ({"dataset_ids": ["ds_" + "0" * 32]}, ["/dataset_ids/0"]),
        ({"checkpoint_ids": ["ckpt_" + "0" * 32]}, ["/checkpoint_ids/0"]),
        ({"seeds": [1, 1]}, ["/seeds/1"]),
        ({"seeds": []}, ["/seeds"]),
        ({"recipe": "detr"}, ["/recipe"]),
        ({"epochs": 1, "budget_minutes": 5}, ["/budget_minutes"]),
        ({"metrics": ["logmee"]}, ["/metrics/0"]),
        ({"colour": 1}, ["/colour"]),
    ],
)
def test_wrong_requests_point_at_each_field(space: Workspace, fields: dict, pointers: list[str]) -> None:
    body = {"dataset_ids": [space.dataset()], "checkpoint_ids": [space.checkpoint()]} | fields
    answer = space.http.post("/v1/studies", json=body)
    assert answer.status_code == 422
    assert [error["pointer"] for error in answer.json()["errors"]] == pointers
    assert (
        space.http.get("/v1/studies").json()["items"] == space.http.get("/v1/rankings").json()["items"] == []
    )


def test_what_is_not_ready_is_pointed_at(space: Workspace) -> None:
    body = {
        "dataset_ids": [space.dataset(), space.dataset(ready=False)],
        "checkpoint_ids": [space.checkpoint()],
    }
    assert space.http.post("/v1/studies", json=body).status_code == 409
    same = body["dataset_ids"][0]
    answer = space.http.post("/v1/studies", json=body | {"dataset_ids": [same, same]})
    assert [error["pointer"] for error in answer.json()["errors"]] == ["/dataset_ids/1"]


def test_a_study_has_a_limit(space: Workspace) -> None:
    many = {
        "dataset_ids": [space.dataset()],
        "checkpoint_ids": ["ckpt_" + f"{n:032x}" for n in range(200)],
        "seeds": list(range(6)),
    }
    answer = space.http.post("/v1/studies", json=many)
    assert answer.status_code == 422
    assert "1200 trainings" in answer.json()["detail"]
