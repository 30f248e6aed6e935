"""POST /v1/datasets with a source: what may be named, and how the rest is refused"""

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from running import Workspace, running

from app.services.dataset_sources import allowed
from app.settings import Settings

ALLOWED = "file://{data}, s3://our-bucket/pub,hf://datasets/org , s3://whole-bucket/"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """data/ with a set of a name with odd signs and links, and database/ and secret/ beside it."""
    folder = tmp_path_factory.mktemp("sources").resolve()
    for name in ("data/a set #1", "database", "secret"):
        (folder / name).mkdir(parents=True)
    (folder / "data/out").symlink_to(folder / "secret")
    (folder / "data/in").symlink_to(folder / "data/a set #1")
    (folder / "data/file.zip").write_bytes(b"x")
    return folder


@pytest.fixture(scope="module")
def settings(folder: Path) -> Settings:
    return Settings(
        data_dir=folder / "home", allowed_sources=ALLOWED.format(data=folder / "data"), min_free_disk_bytes=0
    )


@pytest.fixture(scope="module")
def url(settings: Settings) -> Iterator[str]:
    with running(settings) as service:
        yield f"{service.url}/v1/datasets"


def test_nothing_may_stay_anywhere_by_default(space: Workspace, folder: Path) -> None:
    for source in (folder.as_uri(), "s3://our-bucket/pub", "hf://datasets/org/name@main"):
        answer = space.http.post("/v1/datasets", json={"source": source})
        assert answer.status_code == 422
        assert "DETRANK_ALLOWED_SOURCES is empty" in answer.json()["detail"]
        assert answer.json()["errors"][0]["pointer"] == "/source"
    assert space.http.get("/v1/datasets").json()["items"] == []


@pytest.mark.parametrize(
    ("source", "kept"),
    [
        ("file://{root}/data", "file://{root}/data"),
        ("file://localhost{root}/data/", "file://{root}/data"),
        ("file://{root}/data/a%20set%20%231", "file://{root}/data/a%20set%20%231"),
        ("file://{root}/data/in", "file://{root}/data/a%20set%20%231"),
        ("s3://our-bucket/pub", "s3://our-bucket/pub"),
        ("s3://our-bucket//pub/x%20y/", "s3://our-bucket/pub/x y"),
        ("s3://whole-bucket", "s3://whole-bucket"),
        ("hf://datasets/org/name", "hf://datasets/org/name"),
        ("hf://datasets/org/name@refs%2Fpr%2F1/folder", "hf://datasets/org/name@refs%2Fpr%2F1/folder"),
    ],
)
def test_what_lies_under_an_allowed_place_is_kept_by_its_own_name(
    url: str, folder: Path, source: str, kept: str
) -> None:
    answer = httpx.post(url, json={"source": source.format(root=folder), "name": "mine"})
    assert answer.status_code == 202, answer.text
    made = answer.json()
    assert made["stays_at"] == made["request"]["source"] == kept.format(root=folder)
    assert httpx.get(f"{url.removesuffix('datasets')}jobs/{made['job_id']}").json()["queue"] == "long"
    assert made["source_sha256"] is None
    assert httpx.get(f"{url}/{made['id']}").json()["stays_at"] == made["stays_at"]


@pytest.mark.parametrize(
    ("source", "why"),
    [
        ("file://{root}/database", "DETRANK_ALLOWED_SOURCES"),
        ("file://{root}/secret", "DETRANK_ALLOWED_SOURCES"),
        ("file://{root}/nothing", "DETRANK_ALLOWED_SOURCES"),
        ("file://{root}/data/out", "DETRANK_ALLOWED_SOURCES"),
        ("file://{root}/data/nothing", "there is no folder"),
        ("file://{root}/data/file.zip", "there is no folder"),
        ("file://{root}/data/../secret", "'..' is refused"),
        ("file://{root}/data/%2e%2E/secret", "'..' is refused"),
        ("file://{root}/data%00", "control characters"),
        ("file://10.0.0.1/share", "names the host"),
        ("file://{root}/data?x", "queries"),
        ("s3://our-bucket", "DETRANK_ALLOWED_SOURCES"),
        ("s3://our-bucket/public", "DETRANK_ALLOWED_SOURCES"),
        ("s3://our-bucket/pub/../other", "'..' is refused"),
        ("s3://other/pub", "DETRANK_ALLOWED_SOURCES"),
        ("s3://169.254.169.254/latest", "no name of a bucket"),
        ("s3://127.0.0.1:9000/x", "no name of a bucket"),
        ("s3://key:secret@our-bucket/pub", "no name of a bucket"),
        ("s3://arn:aws:s3:us-east-1:1:accesspoint/x", "no name of a bucket"),
        ("hf://datasets/organisation/name", "DETRANK_ALLOWED_SOURCES"),
        ("hf://org/name", "hf://datasets/org/name@revision"),
        ("hf://datasets/org/../name", "'..' is refused"),
        ("http://127.0.0.1/x", "no place where a dataset can stay"),
        ("gs://bucket/x", "no place where a dataset can stay"),
        ("file://", "DETRANK_ALLOWED_SOURCES"),
    ],
)
def test_what_does_not_is_refused(url: str, folder: Path, source: str, why: str) -> None:
    answer = httpx.post(url, json={"source": source.format(root=folder)})
    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"
    assert why in answer.json()["detail"]
    assert answer.json()["errors"][0]["pointer"] == "/source"


def test_a_service_that_takes_paths_takes_folders_too(folder: Path) -> None:
    settings = Settings(data_dir=folder / "other", allow_local_paths=True)
    assert allowed(settings, (folder / "secret").as_uri()) == (folder / "secret").as_uri()


def test_annotations_in_pixels_are_not_to_be_had(space: Workspace) -> None:
    id = space.dataset()
    with space.service.database.unit_of_work() as session:
        from app.db.tables import Dataset

        session.get(Dataset, id).stays_at = "s3://our-bucket/pub"
    answer = space.http.get(f"/v1/datasets/{id}/annotations")
    assert answer.status_code == 404
    assert "s3://our-bucket/pub" in answer.json()["detail"]
