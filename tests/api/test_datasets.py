"""/v1/datasets"""

import io
import tarfile

import pytest
from running import Workspace, small_zip, stored_files
from sqlalchemy.orm import Session

from app.db.tables import Dataset


def tar(mode: str) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode=mode) as archive:
        entry = tarfile.TarInfo("a.txt")
        entry.size = 5
        archive.addfile(entry, io.BytesIO(b"hello"))
    return out.getvalue()


@pytest.mark.parametrize("body", [small_zip(), tar("w"), tar("w:gz")], ids=["zip", "tar", "tar.gz"])
def test_an_archive_becomes_a_dataset_with_a_job(space: Workspace, body: bytes) -> None:
    answer = space.http.post("/v1/datasets?name=mine&seed=7&val_fraction=0.1", content=body)
    assert answer.status_code == 202
    made = answer.json()
    assert answer.headers["location"] == f"/v1/datasets/{made['id']}"
    assert answer.headers["retry-after"]
    assert (made["state"], made["name"]) == ("processing", "mine")
    assert made["request"] == {
        "format": None,
        "seed": 7,
        "val_fraction": 0.1,
        "test_fraction": 0.0,
        "unlabelled": "leave_out",
    }
    job = space.http.get(f"/v1/jobs/{made['job_id']}").json()
    assert (job["kind"], job["state"], job["resource_id"]) == ("ingest", "queued", made["id"])
    with space.service.store.open(made["source_sha256"]) as stored:
        assert stored.read() == body


def test_curl_sends_an_archive_as_a_form_type(space: Workspace) -> None:
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    assert space.http.post("/v1/datasets", content=small_zip(), headers=headers).status_code == 202


def test_a_ready_dataset_gives_all_it_has(space: Workspace) -> None:
    id = space.dataset(name="mine")
    shown = space.http.get(f"/v1/datasets/{id}").json()
    assert (shown["state"], shown["format"], shown["supervision"]) == ("ready", "coco", "boxes")
    assert shown["previews"] == [f"/v1/datasets/{id}/previews/0"]
    assert space.http.get(f"/v1/datasets/{id}/report").json() == {"counts": {"degenerate_box": 1}}
    assert space.http.get(f"/v1/datasets/{id}/annotations").json() == {"images": []}
    picture = space.http.get(shown["previews"][0])
    assert (picture.headers["content-type"], picture.content[:3]) == ("image/jpeg", b"\xff\xd8\xff")
    archive = space.http.get(f"/v1/datasets/{id}/archive")
    assert archive.content[:2] == b"PK"
    assert "attachment" in archive.headers["content-disposition"]


@pytest.mark.parametrize("part", ["annotations", "archive", "report"])
def test_what_is_not_ready_yet_is_a_conflict_that_says_what_to_do(space: Workspace, part: str) -> None:
    id = space.dataset(ready=False)
    answer = space.http.get(f"/v1/datasets/{id}/{part}")
    assert answer.status_code == 409
    assert "wait" in answer.json()["detail"]


def test_an_invalid_dataset_says_why(space: Workspace) -> None:
    made = space.http.post("/v1/datasets", content=small_zip()).json()
    space.fail(made["job_id"], "nothing usable in it")
    shown = space.http.get(f"/v1/datasets/{made['id']}").json()
    assert (shown["state"], shown["error"]["detail"]) == ("invalid", "nothing usable in it")
    assert "nothing usable" in space.http.get(f"/v1/datasets/{made['id']}/archive").json()["detail"]


@pytest.mark.parametrize("number", ["1", "-1", "99999999999999999999"])
def test_a_preview_that_is_not_there(space: Workspace, number: str) -> None:
    assert space.http.get(f"/v1/datasets/{space.dataset()}/previews/{number}").status_code == 404


@pytest.mark.parametrize(
    ("query", "pointer"),
    [
        ("format=pascal", "/format"),
        ("val_fraction=1", "/val_fraction"),
        ("val_fraction=nan", "/val_fraction"),
        ("val_fraction=0.6&test_fraction=0.5", ""),
        ("seed=-1", "/seed"),
        ("seed=99999999999999999999", "/seed"),
        ("name=", "/name"),
        ("name=" + "x" * 201, "/name"),
        ("name=a%00b", "/name"),
        ("colour=red", "/colour"),
    ],
)
def test_wrong_options_are_refused_with_a_pointer(space: Workspace, query: str, pointer: str) -> None:
    answer = space.http.post(f"/v1/datasets?{query}", content=small_zip())
    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"
    assert [error["pointer"] for error in answer.json()["errors"]] == [pointer]


def test_an_unknown_format_lists_the_known(space: Workspace) -> None:
    assert "coco" in space.http.post("/v1/datasets?format=coko", content=small_zip()).json()["detail"]


def test_what_is_refused_leaves_nothing(space: Workspace) -> None:
    before = stored_files(space.service)
    assert space.http.post("/v1/datasets", content=b"hello, I am a text" * 1000).status_code == 415
    assert space.http.post("/v1/datasets", content=b"").status_code == 422
    assert space.http.post("/v1/datasets", content=small_zip() + b"x" * (1 << 20)).status_code == 413
    assert stored_files(space.service) == before
    assert space.http.get("/v1/datasets").json()["items"] == []


def test_paths_are_refused_unless_allowed(space: Workspace) -> None:
    answer = space.http.post("/v1/datasets", json={"source": "/etc/passwd"})
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["pointer"] == "/source"


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"upload_id": "up_" + "0" * 32, "source": "/x"},
        {"upload_id": "no"},
        {"upload_id": "up_" + "0" * 32},
        {"upload_id": "up_" + "0" * 32, "extra": 1},
        [],
        "text",
        None,
    ],
)
def test_wrong_json_bodies(space: Workspace, body: object) -> None:
    answer = space.http.post("/v1/datasets", json=body)
    assert answer.status_code in (400, 422)
    assert answer.headers["content-type"] == "application/problem+json"


def test_a_dataset_in_use_or_at_work_is_not_deleted(space: Workspace) -> None:
    ranking = space.ranking(1)
    answer = space.http.delete(f"/v1/datasets/{ranking['dataset_id']}")
    assert answer.status_code == 409
    assert ranking["id"] in answer.json()["detail"]
    waiting = space.dataset(ready=False)
    assert "cancel" in space.http.delete(f"/v1/datasets/{waiting}").json()["detail"]


def test_deleting_takes_the_jobs_too(space: Workspace) -> None:
    id = space.dataset()
    answer = space.http.delete(f"/v1/datasets/{id}")
    assert (answer.status_code, answer.content) == (204, b"")
    assert space.http.get(f"/v1/datasets/{id}").status_code == 404
    assert space.http.get("/v1/jobs", params={"resource_id": id}).json()["items"] == []


def test_filters(space: Workspace) -> None:
    ready, waiting = space.dataset(name="Wheat 100%"), space.dataset(name="ships", ready=False)

    def found(**query: str) -> list[str]:
        return [
            one["id"]
            for one in space.http.get("/v1/datasets", params=query).raise_for_status().json()["items"]
        ]

    assert found() == [waiting, ready]
    assert found(sort="created_at") == [ready, waiting]
    assert (
        found(state="ready")
        == found(supervision="boxes")
        == found(name="wheat")
        == found(name="100%")
        == [ready]
    )
    assert found(name="%") == [ready]
    assert found(created_after="2000-01-01T00:00:00Z") == [waiting, ready]
    assert found(created_before="2000-01-01T00:00:00+02:00") == []


def test_single_pictures_of_the_canonical_form(space: Workspace) -> None:
    id = space.dataset()
    content = small_zip({"annotations.json": "{}", "images/000001.png": "\x89PNG", "images/000002.exe": "no"})

    def filled(session: Session) -> None:
        session.get(Dataset, id).archive_sha256 = space.keep(session, content)

    with space.service.database.unit_of_work() as session:
        filled(session)
    answer = space.http.get(f"/v1/datasets/{id}/images/000001.png")
    assert (answer.status_code, answer.headers["content-type"]) == (200, "image/png")
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "sandbox" in answer.headers["content-security-policy"]
    for name in ("000002.exe", "000009.png", "..%2Fannotations.json", "annotations.json"):
        assert space.http.get(f"/v1/datasets/{id}/images/{name}").status_code == 404, name
    with space.service.database.unit_of_work() as session:
        session.get(Dataset, id).stays_at = "https://example.org/set"
    assert "stay at" in space.http.get(f"/v1/datasets/{id}/images/000001.png").json()["detail"]
