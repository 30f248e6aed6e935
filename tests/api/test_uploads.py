"""/v1/uploads: tus 1.0.0"""

import base64
import hashlib
import socket
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import httpx
import pytest
from running import Workspace, small_zip, stored_files
from sqlalchemy import func, select

from app.db.tables import Upload

TUS = {"Tus-Resumable": "1.0.0"}
PART = TUS | {"Content-Type": "application/offset+octet-stream"}


def begin(space: Workspace, length: int, filename: str = "set.zip") -> str:
    metadata = f"filename {base64.b64encode(filename.encode()).decode()},relativePath bnVsbA=="
    headers = TUS | {"Upload-Length": str(length), "Upload-Metadata": metadata}
    answer = space.http.post("/v1/uploads", headers=headers)
    assert answer.status_code == 201
    assert answer.headers["tus-resumable"] == "1.0.0"
    return answer.headers["location"]


def append(space: Workspace, path: str, offset: int, data: bytes, **headers: str) -> httpx.Response:
    return space.http.patch(path, content=data, headers=PART | {"Upload-Offset": str(offset)} | headers)


def offset_of(space: Workspace, path: str) -> int:
    answer = space.http.head(path, headers=TUS)
    assert answer.status_code == 200
    assert answer.headers["cache-control"] == "no-store"
    return int(answer.headers["upload-offset"])


def test_it_says_what_it_speaks(space: Workspace) -> None:
    answer = space.http.options("/v1/uploads")
    assert answer.status_code == 204
    assert answer.headers["tus-version"] == "1.0.0"
    assert set(answer.headers["tus-extension"].split(",")) == {
        "creation",
        "expiration",
        "termination",
        "checksum",
    }
    assert answer.headers["tus-checksum-algorithm"] == "sha256,sha1"
    assert answer.headers["tus-max-size"] == str(1 << 20)


def test_a_file_in_three_parts_becomes_a_dataset(space: Workspace) -> None:
    body = small_zip({"a.txt": "hello" * 100})
    path = begin(space, len(body))
    for start, end in ((0, 10), (10, 50), (50, len(body))):
        assert offset_of(space, path) == start
        answer = append(space, path, start, body[start:end])
        assert (answer.status_code, answer.headers["upload-offset"]) == (204, str(end))
        assert answer.headers["upload-expires"].endswith("GMT")
    shown = space.http.get(path).json()
    assert (shown["state"], shown["filename"]) == ("complete", "set.zip")
    assert shown["sha256"] == hashlib.sha256(body).hexdigest()
    assert not [name for name in stored_files(space.service) if name.startswith("uploads/")]
    made = space.http.post("/v1/datasets", json={"upload_id": shown["id"], "name": "mine"})
    assert made.status_code == 202
    assert made.json()["source_sha256"] == shown["sha256"]


def test_a_checkpoint_is_named_after_its_upload(space: Workspace) -> None:
    path = begin(space, 4, "mobilenet v2.pth")
    append(space, path, 0, b"abcd")
    made = space.http.post("/v1/checkpoints", json={"upload_id": path.rsplit("/", 1)[-1]}).json()
    assert made["name"] == "mobilenet v2"


def test_an_unfinished_upload_is_no_dataset_yet(space: Workspace) -> None:
    path = begin(space, 100)
    append(space, path, 0, b"0123")
    answer = space.http.post("/v1/datasets", json={"upload_id": path.rsplit("/", 1)[-1]})
    assert answer.status_code == 409
    assert "4 of 100" in answer.json()["detail"]


def test_an_upload_that_is_no_archive_is_no_dataset(space: Workspace) -> None:
    path = begin(space, 5)
    append(space, path, 0, b"hello")
    answer = space.http.post("/v1/datasets", json={"upload_id": path.rsplit("/", 1)[-1]})
    assert answer.status_code == 415
    assert space.http.get("/v1/datasets").json()["items"] == []


@pytest.mark.parametrize("offset", [0, 3, 9])
def test_a_part_that_begins_elsewhere_is_a_conflict(space: Workspace, offset: int) -> None:
    path = begin(space, 10)
    append(space, path, 0, b"0123")
    assert append(space, path, offset, b"x").status_code == 409
    assert offset_of(space, path) == 4


def test_more_than_announced_is_refused(space: Workspace) -> None:
    path = begin(space, 4)
    assert append(space, path, 0, b"01234").status_code == 413
    assert offset_of(space, path) == 0


def test_a_finished_upload_takes_an_empty_part(space: Workspace) -> None:
    path = begin(space, 4)
    append(space, path, 0, b"0123")
    assert append(space, path, 4, b"").headers["upload-offset"] == "4"


def test_a_damaged_part_is_refused_and_forgotten(space: Workspace) -> None:
    path = begin(space, 4)
    digest = base64.b64encode(hashlib.sha256(b"0123").digest()).decode()
    answer = append(space, path, 0, b"0x23", **{"Upload-Checksum": f"sha256 {digest}"})
    assert answer.status_code == 460
    assert offset_of(space, path) == 0
    assert append(space, path, 0, b"0123", **{"Upload-Checksum": f"sha256 {digest}"}).status_code == 204


@pytest.mark.parametrize("checksum", ["md5 AAAA", "sha256 ***", "sha256 AAAA", "sha256"])
def test_checksums_that_are_none(space: Workspace, checksum: str) -> None:
    path = begin(space, 4)
    assert append(space, path, 0, b"0123", **{"Upload-Checksum": checksum}).status_code in (400, 422)


def test_what_arrived_before_the_connection_broke_is_kept(space: Workspace) -> None:
    path = begin(space, 1000)
    host, port = httpx.URL(space.service.url).host, httpx.URL(space.service.url).port
    head = (
        f"PATCH {path} HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {space.key}\r\nTus-Resumable: 1.0.0\r\n"
        "Content-Type: application/offset+octet-stream\r\nUpload-Offset: 0\r\nContent-Length: 1000\r\n\r\n"
    )
    with socket.create_connection((host, port)) as connection:
        connection.sendall(head.encode() + b"a" * 300)
        time.sleep(0.3)
    until = time.monotonic() + 10
    while offset_of(space, path) == 0 and time.monotonic() < until:
        time.sleep(0.02)
    assert offset_of(space, path) == 300
    append(space, path, 300, b"b" * 700)
    assert space.http.get(path).json()["sha256"] == hashlib.sha256(b"a" * 300 + b"b" * 700).hexdigest()


def test_an_upload_whose_last_step_was_lost_is_finished_when_asked_for(space: Workspace) -> None:
    path = begin(space, 4)
    append(space, path, 0, b"01")
    part = space.service.store.writer()
    part.write(b"23")
    id = path.rsplit("/", 1)[-1]
    part.commit_as(f"uploads/{id}/{2:020d}")
    with space.service.database.unit_of_work() as session:
        session.get(Upload, id).offset_bytes = 4
    assert space.http.get(path).json()["sha256"] == hashlib.sha256(b"0123").hexdigest()


def test_large_parts_are_kept_piece_by_piece(space: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.api.uploads.PART_BYTES", 1000)
    monkeypatch.setattr("app.api.bodies._PIECE", 700)
    body = bytes(range(256)) * 20
    path = begin(space, len(body))
    assert append(space, path, 0, body).headers["upload-offset"] == str(len(body))
    assert space.http.get(path).json()["sha256"] == hashlib.sha256(body).hexdigest()


def test_expired_and_deleted_uploads_are_gone(space: Workspace) -> None:
    path = begin(space, 4)
    append(space, path, 0, b"01")
    assert space.http.delete(path, headers=TUS).status_code == 204
    assert space.http.head(path, headers=TUS).status_code == 404
    assert append(space, path, 2, b"23").status_code == 404
    path = begin(space, 4)
    with space.service.database.unit_of_work() as session:
        session.get(Upload, path.rsplit("/", 1)[-1]).expires_at = datetime.now(UTC) - timedelta(seconds=1)
    assert "expired" in space.http.get(path).json()["detail"]


def test_another_workspace_sees_no_upload(space: Workspace, other: Workspace) -> None:
    path = begin(space, 4)
    assert other.http.head(path, headers=TUS).status_code == 404
    assert append(other, path, 0, b"0123").status_code == 404
    assert other.http.delete(path, headers=TUS).status_code == 404
    append(space, path, 0, b"0123")
    assert other.http.post("/v1/checkpoints", json={"upload_id": path.rsplit("/", 1)[-1]}).status_code == 422


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Upload-Length": "4"}, 412),
        ({"Tus-Resumable": "0.2.2", "Upload-Length": "4"}, 412),
        (TUS, 422),
        (TUS | {"Upload-Length": "-1"}, 422),
        (TUS | {"Upload-Length": "x"}, 422),
        (TUS | {"Upload-Length": "0"}, 422),
        (TUS | {"Upload-Length": str(1 << 40)}, 413),
        (TUS | {"Upload-Length": "9" * 30}, 422),
        (TUS | {"Upload-Length": "4", "Upload-Metadata": "filename ***"}, 400),
    ],
)
def test_wrong_beginnings(space: Workspace, headers: dict[str, str], status: int) -> None:
    answer = space.http.post("/v1/uploads", headers=headers)
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"


def test_a_part_needs_its_headers(space: Workspace) -> None:
    path = begin(space, 4)
    assert space.http.patch(path, content=b"x", headers=PART).status_code == 422
    assert space.http.patch(path, content=b"x", headers=TUS | {"Upload-Offset": "0"}).status_code == 415
    assert space.http.patch(path, content=b"x", headers={"Upload-Offset": "0"}).status_code == 412


def test_what_cannot_fit_beside_running_uploads_is_refused_when_it_begins(
    space: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = space.service.store
    with space.service.database.reading() as session:
        waits = select(func.coalesce(func.sum(Upload.length_bytes - Upload.offset_bytes), 0))
        running = session.scalar(waits.where(Upload.sha256.is_(None), Upload.expires_at > datetime.now(UTC)))
    free = 1000 + running  # other tests left uploads behind, for which there is room
    monkeypatch.setattr("app.storage.blobs.shutil.disk_usage", lambda _: SimpleNamespace(free=free))
    monkeypatch.setattr(store, "_min_free", 100)
    first = begin(space, 600)
    refused = space.http.post("/v1/uploads", headers=TUS | {"Upload-Length": "400"})
    assert refused.status_code == 507
    assert f"{free:,} bytes are free" in refused.json()["detail"]
    begin(space, 200)
    assert space.http.delete(first, headers=TUS).status_code == 204
    begin(space, 600)


def test_parts_become_one_file_without_a_second_copy(space: Workspace) -> None:
    """The first part grows, and is the file in the end; killed in the middle of it and asked again, it is the same."""
    path, data = begin(space, 90), bytes(range(90))
    assert append(space, path, 0, data[:40]).status_code == 204
    assert append(space, path, 40, data[40:70]).status_code == 204
    folder = Path(space.service.store.root) / "uploads" / path.rsplit("/", 1)[-1]
    # as a process leaves it that died while it appended the second part
    (folder / f"{0:020d}").rename(folder / "whole")
    with (folder / "whole").open("ab") as file:
        file.write(data[40:50])
    first = (folder / "whole").stat().st_ino
    assert append(space, path, 70, data[70:]).status_code == 204
    assert space.http.get(path).json()["sha256"] == hashlib.sha256(data).hexdigest()
    assert not folder.exists()
    kept = space.service.store.local_path(hashlib.sha256(data).hexdigest())
    assert kept.read_bytes() == data
    assert kept.stat().st_ino == first
