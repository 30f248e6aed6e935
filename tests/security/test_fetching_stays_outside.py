"""Fetching leads to the internet alone: not to a private network by a redirect, a link of an index, or a name whose answer changes.

Servers of this machine stand for both sides: one is named by the environment, as an operator names a mirror, and may be
anywhere; the other one is where it must not lead.
"""

import contextlib
import hashlib
import importlib
import json
import socket
import threading
import zipfile
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import pytest
import s3fs
import torch
from huggingface_hub import constants

from models_store import Unusable, fetch, reach
from outbound import addresses
from worker.data.sources.base import Bounds, Pin, SourceError
from worker.data.sources.hub import HubSource
from worker.data.sources.places import source_at

COMMIT = "b" * 40
CONTENT = b"weights" * 50
Answer = tuple[int, dict[str, str], bytes]


@contextlib.contextmanager
def serving(
    answer: Callable[[str], Answer], host: str = "127.0.0.1", port: int = 0
) -> Iterator[SimpleNamespace]:
    """A server with its `url`, and in `asked` the paths that it was asked for."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            status, headers, body = answer(self.path)
            self.send_response(status)
            for name, value in ({"Content-Length": str(len(body))} | headers).items():
                self.send_header(name, value)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        do_HEAD = do_GET

        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer((host, port), Handler)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    try:
        yield SimpleNamespace(url=f"http://{host}:{server.server_port}", port=server.server_port, asked=asked)
    finally:
        server.shutdown()
        server.server_close()


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(reach, "_known", {})


@pytest.fixture
def inside() -> Iterator[SimpleNamespace]:
    """A server of the private network, which has what is asked for."""
    with serving(lambda _: (200, {"ETag": f'"{COMMIT}"', "X-Repo-Commit": COMMIT}, CONTENT)) as made:
        yield made


@pytest.fixture
def hub(
    inside: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Iterator[SimpleNamespace]:
    """A hub that the environment names, whose files lie at `inside`; it says so by redirects, as the public one does."""

    def answer(path: str) -> Answer:
        if "/resolve/" in path:
            about = {"X-Repo-Commit": COMMIT, "X-Linked-Etag": '"1"', "X-Linked-Size": str(len(CONTENT))}
            return 302, about | {"ETag": '"1"', "Location": f"{inside.url}/file"}, b""
        if "/tree/" in path:
            oid = hashlib.sha256(CONTENT).hexdigest()
            lfs = {"oid": oid, "size": len(CONTENT), "pointerSize": 130}
            entry = {"type": "file", "path": "a.txt", "size": len(CONTENT), "oid": "c" * 40, "lfs": lfs}
            return 200, {}, json.dumps([entry]).encode()
        return 404, {}, b"{}"

    with serving(answer) as made:
        template = constants.HUGGINGFACE_CO_URL_TEMPLATE.replace(constants.ENDPOINT, made.url)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "ENDPOINT", made.url)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        yield made


def test_a_hub_does_not_lead_a_checkpoint_inside(
    hub: SimpleNamespace, inside: SimpleNamespace, tmp_path: Path
) -> None:
    with pytest.raises(Unusable, match="private network") as refusal:
        fetch("hf://org/repo@main/model.safetensors", tmp_path / "in")
    assert refusal.value.code == "private_address"
    assert "DETRANK_FETCH_FROM_PRIVATE" in refusal.value.detail
    assert hub.asked, "the hub itself is one that the environment names"
    assert inside.asked == []
    found = fetch("hf://org/repo@main/model.safetensors", tmp_path / "in", private=True)
    assert found.path.read_bytes() == CONTENT


def test_a_hub_does_not_lead_a_dataset_inside(
    hub: SimpleNamespace, inside: SimpleNamespace, tmp_path: Path
) -> None:
    url = f"hf://datasets/org/one@{COMMIT}"
    pin = Pin(len(CONTENT), f"sha256:{hashlib.sha256(CONTENT).hexdigest()}")
    with pytest.raises(SourceError, match="private network") as refusal:
        source_at(url).tree(tmp_path / "a", Bounds(), lambda *_: None, lambda: None)
    assert refusal.value.code == "private_address"
    with pytest.raises(SourceError, match="private network"):
        HubSource(url).read("a.txt", pin)
    assert inside.asked == []
    assert source_at(url, private=True).read("a.txt", pin) == CONTENT


def test_an_index_does_not_lead_pip_inside(
    inside: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    wheel = "some_weights-1.2-py3-none-any.whl"
    page = f'<a href="{inside.url}/{wheel}">{wheel}</a>'.encode()
    with serving(lambda _: (200, {"Content-Type": "text/html"}, page)) as index:
        monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
        for name in ("PIP_FIND_LINKS", "PIP_EXTRA_INDEX_URL", "PIP_NO_INDEX"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("PIP_INDEX_URL", f"{index.url}/simple")
        with pytest.raises(Unusable, match="private network") as refusal:
            fetch("pypi://some-weights==1.2/a.pth", tmp_path / "in")
        assert refusal.value.code == "private_address"
        assert index.asked == ["/simple/some-weights/"]
        assert inside.asked == []


@pytest.mark.slow
def test_pip_takes_a_wheel_from_the_index_that_its_settings_name(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    wheel = tmp_path / "some_weights-1.2-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("some_weights/a.pth", CONTENT)
        archive.writestr(
            "some_weights-1.2.dist-info/METADATA", "Metadata-Version: 2.1\nName: some-weights\nVersion: 1.2\n"
        )
        archive.writestr("some_weights-1.2.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
    page = f'<a href="/files/{wheel.name}">{wheel.name}</a>'.encode()

    def answer(path: str) -> Answer:
        return 200, {"Content-Type": "text/html"}, wheel.read_bytes() if path.endswith(".whl") else page

    with serving(answer) as index:
        monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
        for name in ("PIP_FIND_LINKS", "PIP_EXTRA_INDEX_URL", "PIP_NO_INDEX"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("PIP_INDEX_URL", f"{index.url}/simple")
        found = fetch("pypi://some-weights==1.2/some_weights/a.pth", tmp_path / "in")
        assert found.path.read_bytes() == CONTENT


@pytest.mark.parametrize(
    "answers", [[False], [True, False], [True, True]], ids=["inside", "changing", "outside"]
)
def test_what_was_looked_up_and_found_outside_is_what_is_connected_to(
    answers: list[bool], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """One address of this machine stands for the internet. A name that is answered differently the next time leads nowhere."""
    outside, hidden = "127.0.0.1", "127.0.0.2"
    monkeypatch.setattr(addresses, "is_public", lambda address: address == outside)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    looked: list[int] = []

    def look_up(host: str, port: int, *_: object, **__: object) -> list[tuple]:
        assert host == "changing.example"
        looked.append(1)
        found = outside if answers[min(len(looked), len(answers)) - 1] else hidden
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (found, port))]

    with (
        serving(lambda _: (200, {}, CONTENT), outside) as public,
        serving(lambda _: (200, {}, b"secret"), hidden, public.port) as private,
    ):
        # once to see whether anybody is there, once to fetch: each goes where its own look-up led
        monkeypatch.setattr(socket, "getaddrinfo", look_up)
        entry = SimpleNamespace(url=f"http://changing.example:{public.port}/w.pth")
        known = importlib.import_module("models_store.known")
        facts = SimpleNamespace(
            options={}, class_names=(), input={}, provenance={}, licence=None, architecture="a", backbone=None
        )
        monkeypatch.setattr(known, "torchvision_entry", lambda _: entry)
        monkeypatch.setattr(known, "facts_of", lambda _: facts)
        if all(answers):
            assert fetch("torchvision://x", tmp_path / "in").path.read_bytes() == CONTENT
        else:
            with pytest.raises(Unusable, match=hidden) as refusal:
                fetch("torchvision://x", tmp_path / "in")
            assert refusal.value.code == "private_address"
            assert public.asked == []
        assert private.asked == []
        assert len(looked) == len(answers)


def test_a_redirect_of_the_internet_does_not_lead_inside(
    inside: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The first name is public, the redirect names the private address itself."""
    real = socket.getaddrinfo
    monkeypatch.setattr(addresses, "is_public", lambda address: address == "127.0.0.1" and not seen)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    seen: list[str] = []

    def answer(path: str) -> Answer:
        seen.append(path)
        return 302, {"Location": f"{inside.url}/secret"}, b""

    with serving(answer) as public:
        named = {"public.example": "127.0.0.1"}
        monkeypatch.setattr(
            socket,
            "getaddrinfo",
            lambda host, *more, **options: real(named.get(host, host), *more, **options),
        )
        entry = SimpleNamespace(url=f"http://public.example:{public.port}/w.pth")
        known = importlib.import_module("models_store.known")
        monkeypatch.setattr(known, "torchvision_entry", lambda _: entry)
        with pytest.raises(Unusable, match=r"127\.0\.0\.1, which is in a private network") as refusal:
            fetch("torchvision://x", tmp_path / "in")
    assert refusal.value.code == "private_address"
    assert seen
    assert inside.asked == []


@pytest.mark.parametrize("status", [301, 307])
def test_a_store_does_not_lead_inside(
    status: int, inside: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Its client follows redirects by itself."""
    with serving(lambda _: (status, {"Location": f"{inside.url}/secret"}, b"")) as store:
        monkeypatch.setenv("AWS_ENDPOINT_URL", store.url)
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            monkeypatch.setenv(name, "test")
        monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        s3fs.S3FileSystem.clear_instance_cache()
        with pytest.raises(SourceError, match="private network") as refusal:
            source_at("s3://bucket/set").tree(tmp_path / "a", Bounds(), lambda *_: None, lambda: None)
        assert refusal.value.code == "private_address"
        s3fs.S3FileSystem.clear_instance_cache()
        assert store.asked
    assert inside.asked == []
