"""Bodies that lie about themselves, end early, or are larger than allowed: refused, and nothing stays"""

import gzip
import io
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from running import Running, running

from app.storage.sniff import archive_kind
from tests.security.conftest import open_settings

ZIP = b"PK\x03\x04" + bytes(100)


def speak(url: str, text: bytes, *, wait_s: float = 0.0) -> bytes:
    """Sends these very bytes, closes its side, and answers what came back."""
    parts = httpx.URL(url)
    with socket.create_connection((parts.host, parts.port), timeout=10) as connection:
        connection.sendall(text)
        time.sleep(wait_s)
        connection.shutdown(socket.SHUT_WR)
        answer = b""
        try:
            while piece := connection.recv(65536):
                answer += piece
        except OSError:
            pass
        return answer


@pytest.fixture(scope="module")
def open_service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """One for all tests: none may leave anything, so each finds it as if it were new."""
    with running(open_settings(tmp_path_factory.mktemp("service"))) as service:
        yield service


def files(home: Path) -> list[str]:
    return sorted(path.name for path in (home / "storage").rglob("*") if path.is_file())


def is_unharmed(url: str, home: Path) -> bool:
    until = time.monotonic() + 5
    while files(home) and time.monotonic() < until:
        time.sleep(0.02)
    empty = not files(home) and httpx.get(f"{url}/v1/datasets").json()["items"] == []
    return empty and httpx.get(f"{url}/v1/jobs").json()["items"] == []


@pytest.mark.parametrize("path", ["/v1/datasets", "/v1/checkpoints"])
def test_a_body_cut_short_leaves_nothing(open_url: str, open_home: Path, path: str) -> None:
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5000\r\n\r\n".encode()
    speak(open_url, head + ZIP, wait_s=0.1)
    assert is_unharmed(open_url, open_home)


def test_chunks_that_never_end_leave_nothing(open_url: str, open_home: Path) -> None:
    head = b"POST /v1/datasets HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
    speak(open_url, head + b"%x\r\n%s\r\n" % (len(ZIP), ZIP), wait_s=0.1)
    assert is_unharmed(open_url, open_home)


def test_chunks_are_counted(open_url: str, open_home: Path) -> None:
    def endless() -> Iterator[bytes]:
        yield ZIP
        for _ in range(40):
            yield bytes(1 << 16)

    try:
        answer = httpx.post(f"{open_url}/v1/datasets", content=endless())
    except httpx.WriteError:
        answer = None  # it hung up on us, which is as good
    assert answer is None or answer.status_code == 413
    assert is_unharmed(open_url, open_home)


@pytest.mark.parametrize("length", ["-1", "abc", "1e3", "99999999999999999999999999", "+5", "0x10"])
def test_lengths_that_are_none(open_url: str, open_home: Path, length: str) -> None:
    head = f"POST /v1/datasets HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n".encode()
    answer = speak(open_url, head + ZIP)
    assert answer.split(b" ")[1] in (b"400", b"413", b"422")
    assert is_unharmed(open_url, open_home)


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        ({"Content-Type": "multipart/form-data; boundary=x"}, b"--x\r\n\r\n" + ZIP + b"\r\n--x--"),
        ({"Content-Encoding": "gzip"}, gzip.compress(ZIP)),
        ({}, gzip.compress(b"not a tar" * 1000)),
        ({}, gzip.compress(bytes(1 << 20))),
        ({}, b"\x1f\x8b broken"),
        ({}, b"<html>" * 100),
        ({}, b"Rar!\x1a\x07\x00" + bytes(600)),
        ({}, b"7z\xbc\xaf\x27\x1c" + bytes(600)),
        ({}, bytes(2000)),
        ({}, b"P"),
    ],
    ids=[
        "form",
        "encoded",
        "gzip of text",
        "gzip of zeros",
        "broken gzip",
        "html",
        "rar",
        "7z",
        "zeros",
        "one byte",
    ],
)
def test_what_is_no_archive(open_url: str, open_home: Path, headers: dict[str, str], body: bytes) -> None:
    answer = httpx.post(f"{open_url}/v1/datasets", content=body, headers=headers)
    assert answer.status_code == 415
    assert "send" in answer.json()["detail"]
    assert is_unharmed(open_url, open_home)


def test_an_empty_body_says_how_to_send_one(open_url: str) -> None:
    for path in ("/v1/datasets", "/v1/checkpoints"):
        answer = httpx.post(f"{open_url}{path}")
        assert answer.status_code == 422
        assert "--data-binary" in answer.json()["detail"]


@pytest.mark.parametrize(
    "path", ["/v1/rankings", "/v1/datasets", "/v1/checkpoints", "/v1/jobs/x:cancel", "/v1/uploads"]
)
def test_json_larger_than_allowed(open_url: str, path: str) -> None:
    headers = {"Content-Type": "application/json", "Tus-Resumable": "1.0.0", "Upload-Length": "4"}
    for content in (b" " * 70_000, io.BytesIO(b" " * 70_000)):
        answer = httpx.post(f"{open_url}{path}", content=content, headers=headers)
        assert answer.status_code == 413
        assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize("path", ["/v1/rankings", "/v1/datasets", "/v1/checkpoints"])
def test_json_made_to_hurt(open_url: str, path: str) -> None:
    headers = {"Content-Type": "application/json"}
    for text in (
        b"[" * 60_000,
        b'{"a":' * 10_000,
        b'{"seed": ' + b"9" * 50_000 + b"}",
        b'{"name": "\\u0000"}',
        b"\x00" * 100,
    ):
        assert httpx.post(f"{open_url}{path}", content=text, headers=headers).status_code in (400, 422)
    assert httpx.get(f"{open_url}/healthz").status_code == 200


def test_names_never_become_paths(open_url: str, open_home: Path) -> None:
    before = {path for path in open_home.parent.rglob("*") if path.name == "evil"}
    for name in ("../../evil", "/tmp/evil", "..\\evil", "a/../../evil"):
        made = httpx.post(f"{open_url}/v1/datasets", params={"name": name}, content=ZIP)
        assert made.json()["name"] == name
        headers = {
            "Tus-Resumable": "1.0.0",
            "Upload-Length": "4",
            "Upload-Metadata": "filename Li4vLi4vZXZpbA==",
        }
        assert httpx.post(f"{open_url}/v1/uploads", headers=headers).json()["filename"] == "../../evil"
    assert {path for path in open_home.parent.rglob("*") if path.name == "evil"} == before
    for path in ("/v1/datasets/..%2f..%2fetc", "/v1/jobs/%2e%2e/events", "/v1/rankings/..%5c..csv"):
        assert httpx.get(f"{open_url}{path}").status_code == 404


@pytest.mark.parametrize(
    ("head", "kind"),
    [
        (b"", None),
        (b"P", None),
        (b"PK", None),
        (b"PK\x03\x04", "zip"),
        (b"PK\x05\x06" + bytes(18), "zip"),
        (b"\x1f\x8b", None),
        (bytes(512), None),
        (b"\xff" * 512, None),
        (b"a" * 148 + b"+0000000" + b"a" * 356, None),
    ],
)
def test_first_bytes(head: bytes, kind: str | None) -> None:
    assert archive_kind(head) == kind
