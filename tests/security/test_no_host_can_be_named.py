"""No name that a caller may give leads to a host of the caller's choice: what could is refused before anything is connected."""

import socket
from pathlib import Path

import pytest

from app.errors import InvalidRequest
from app.services.dataset_sources import allowed
from app.settings import Settings
from models_store.errors import Unusable
from models_store.fetch import fetch

HOSTS = (
    "127.0.0.1",
    "localhost",
    "169.254.169.254",
    "[::1]",
    "[::ffff:10.0.0.1]",
    "2130706433",
    "0x7f000001",
    "10.0.0.1:6379",
)
CHECKPOINTS = [
    f"{scheme}://{host}/x"
    for scheme in ("http", "https", "ftp", "file", "gopher", "dict", "s3")
    for host in HOSTS
]
CHECKPOINTS += [f"pypi://{host}==1.0/x" for host in HOSTS if not host.replace(".", "").isalnum()]
CHECKPOINTS += [
    "pypi://a==1.0 --index-url http://127.0.0.1/x",
    "pypi://-r==1/x",
    "pypi://a==1.0/../x",
    "pypi://a@http://127.0.0.1/x",
]
CHECKPOINTS += [f"hf://{host}:80/x" for host in HOSTS] + [
    "hf://user@127.0.0.1/a/b",
    "hf://a/b@main/../../x",
    "hf:///x",
]
DATASETS = [f"{scheme}://{host}/x" for scheme in ("http", "https", "ftp", "gopher", "s3") for host in HOSTS]
DATASETS += [f"file://{host}/etc" for host in HOSTS if host != "localhost"]
DATASETS += [
    "hf://127.0.0.1/x",
    "hf://datasets/http://127.0.0.1",
    "hf://datasets/a/b?endpoint=http://127.0.0.1",
    "s3://a/b#x",
]


@pytest.fixture(autouse=True)
def no_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object, **__: object) -> None:
        raise AssertionError("something was connected or looked up")

    monkeypatch.setattr(socket.socket, "connect", refused)
    monkeypatch.setattr(socket, "getaddrinfo", refused)


@pytest.mark.parametrize("uri", CHECKPOINTS)
def test_a_checkpoint_cannot_be_fetched_from_a_host(uri: str, tmp_path: Path) -> None:
    with pytest.raises(Unusable) as refusal:
        fetch(uri, tmp_path / "into")
    assert refusal.value.code == "bad_uri"
    assert not list(tmp_path.rglob("*.*"))


@pytest.mark.parametrize("source", DATASETS)
def test_a_dataset_cannot_stay_at_a_host(source: str) -> None:
    settings = Settings(allowed_sources="s3://pictures,hf://datasets/a/b,/srv/pictures")
    with pytest.raises(InvalidRequest):
        allowed(settings, source)
