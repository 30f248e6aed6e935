"""Datasets that stay in an object store or on a hub: an S3 server and a hub of our own on this machine."""

import hashlib
import json
import logging
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

import boto3
import pytest
import s3fs
from hand_made import picture, text
from huggingface_hub import constants
from moto.server import ThreadedMotoServer

from worker.data.dataset import open_dataset
from worker.data.ingest import Ingested
from worker.data.sources.base import Bounds, SourceError
from worker.data.sources.kept import KeptPictures
from worker.data.sources.pinned import Pinned
from worker.data.sources.pinning import Means, pin_dataset
from worker.data.sources.places import source_at
from worker.data.sources.sample import fetch_sample, look_again

COMMIT = "a" * 40


def made(folder: Path, count: int = 20) -> Path:
    for number in range(count):
        picture(folder / f"images/{number:03d}.png", 32 + number, 40, number)
        text(folder / f"labels/{number:03d}.txt", f"{number % 2} 0.5 0.5 0.5 0.25\n")
    text(folder / "data.yaml", "names: [cat, dog]\n")
    return folder


def pinned(url: str, at: Path, **options: object) -> tuple[Ingested, Pinned]:
    (at / "out").mkdir(parents=True)
    (at / "scratch").mkdir()
    kept = KeptPictures(at / "kept", 1 << 30)
    found = pin_dataset(source_at(url), at / "out", at / "scratch", Means(kept), **options)
    return found, Pinned.load(at / "out")


def fetched(dataset: Pinned, ids: range, at: Path) -> Path:
    at.mkdir()
    fetch_sample(dataset, source_at(dataset.url), ids, at, kept=KeptPictures(at.with_name("none"), 1 << 30))
    return at


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[object]:
    """An S3 server, with the credentials and the address that storage would have."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        patch.setenv("AWS_ACCESS_KEY_ID", "test")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "test")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        s3fs.S3FileSystem.clear_instance_cache()
        client = boto3.client("s3")
        client.create_bucket(Bucket="pictures")
        folder = made(tmp_path_factory.mktemp("made"))
        for path in folder.rglob("*"):
            if path.is_file():
                key = f"sets/one/{path.relative_to(folder).as_posix()}"
                client.put_object(Bucket="pictures", Key=key, Body=path.read_bytes())
        yield client
    server.stop()
    s3fs.S3FileSystem.clear_instance_cache()


def test_a_prefix_of_a_bucket(s3, tmp_path: Path) -> None:
    found, dataset = pinned("s3://pictures/sets/one", tmp_path / "a")
    assert (found.format, found.summary["images"], found.summary["annotations"]) == ("yolo", 20, 20)
    opened = open_dataset(fetched(dataset, range(3, 6), tmp_path / "sample"))
    assert [image.id for image in opened.images] == [3, 4, 5]
    assert [(image.width, image.height) for image in opened.images] == [(34, 40), (35, 40), (36, 40)]
    again, _ = pinned("s3://pictures/sets/one/", tmp_path / "b")
    assert again.digest == found.digest


def test_more_names_than_one_answer_holds_and_names_that_no_disk_can_have(
    s3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.data.sources.s3.PAGE", 7)
    for number in range(20):
        body = picture(tmp_path / "one.png", 20, 20, number).read_bytes()
        s3.put_object(Bucket="pictures", Key=f"many/images/{number}.png", Body=body)
        s3.put_object(Bucket="pictures", Key=f"many/copies/{number}.png", Body=body)
        s3.put_object(Bucket="pictures", Key=f"many/images/{number}.txt", Body=b"0 0.5 0.5 0.5 0.5\n")
    for odd in ("many//a.txt", "many/../b.txt", "many/.DS_Store", f"many/{'x' * 300}.txt", "many/a\\b.txt"):
        s3.put_object(Bucket="pictures", Key=odd, Body=b"0 0.5 0.5 0.1 0.1")
    s3.put_object(Bucket="pictures", Key="many/classes.txt", Body=b"cat\n")
    found, _ = pinned("s3://pictures/many", tmp_path / "a")
    assert (found.summary["images"], found.summary["annotations"]) == (20, 20)
    written = [path.relative_to(tmp_path / "a/scratch/mirror") for path in (tmp_path / "a").rglob("*.txt")]
    assert len(written) == 21
    with pytest.raises(SourceError, match="more than 60 files"):
        source_at("s3://pictures/many").tree(tmp_path / "b", Bounds(files=60), lambda *_: None, lambda: None)


def test_an_object_that_changed_or_is_gone(s3, tmp_path: Path) -> None:
    _, dataset = pinned("s3://pictures/sets/one", tmp_path / "a")
    body = s3.get_object(Bucket="pictures", Key="sets/one/images/004.png")["Body"].read()
    ids = range(1, 21)
    look_again(dataset, source_at(dataset.url), ids)
    s3.put_object(Bucket="pictures", Key="sets/one/images/004.png", Body=bytes(len(body)))
    for step, meet in enumerate(
        (
            lambda: fetched(dataset, ids, tmp_path / "1"),
            lambda: look_again(dataset, source_at(dataset.url), ids),
        )
    ):
        with pytest.raises(SourceError, match=r"004\.png") as refusal:
            meet()
        assert refusal.value.code == "changed", step
    s3.delete_object(Bucket="pictures", Key="sets/one/images/004.png")
    with pytest.raises(SourceError, match="it is gone") as refusal:
        look_again(dataset, source_at(dataset.url), ids)
    assert refusal.value.code == "changed"
    s3.put_object(Bucket="pictures", Key="sets/one/images/004.png", Body=body)
    assert len(open_dataset(fetched(dataset, ids, tmp_path / "2")).images) == 20


def test_what_is_not_there(s3, tmp_path: Path) -> None:
    for url in ("s3://no-such-bucket/x", "s3://pictures/nothing"):
        with pytest.raises(SourceError) as refusal:
            source_at(url).tree(tmp_path / "x", Bounds(), lambda *_: None, lambda: None)
        assert refusal.value.code == "not_found"


def test_annotations_that_are_too_large_are_not_fetched(s3, tmp_path: Path) -> None:
    s3.put_object(Bucket="pictures", Key="large/film.bin", Body=bytes(2 << 20))
    s3.put_object(Bucket="pictures", Key="large/boxes.json", Body=bytes(5000))
    source = source_at("s3://pictures/large")
    with pytest.raises(SourceError, match=r"boxes\.json") as refusal:
        source.tree(tmp_path / "x", Bounds(annotation_file_bytes=4000), lambda *_: None, lambda: None)
    assert refusal.value.code == "too_large"
    tree = source.tree(tmp_path / "y", Bounds(), lambda *_: None, lambda: None)
    assert tree.files == ("boxes.json", "film.bin")
    assert [path.name for path in (tmp_path / "y").iterdir()] == ["boxes.json"]


def test_a_reader_may_look_at_some_pictures(s3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("worker.data.sources.mirror.LOOKED_AT", 3)
    tree = source_at("s3://pictures/sets/one").tree(tmp_path / "x", Bounds(), lambda *_: None, lambda: None)
    there = [tree.absolute(path).exists() for path in (*tree.images[:4], tree.images[0])]
    assert there == [True, True, True, False, True]


@pytest.mark.parametrize("url", ["s3://pictures/sets/one", "hf://datasets/org/one@main"])
def test_what_does_not_answer_is_said_in_seconds(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    s3fs.S3FileSystem.clear_instance_cache()
    began = time.monotonic()
    with pytest.raises(SourceError, match=r"127\.0\.0\.1:9 cannot be reached") as refusal:
        source_at(url)
    assert refusal.value.code == "offline"
    assert time.monotonic() - began < 30
    s3fs.S3FileSystem.clear_instance_cache()


class Hub:
    """As much of a hub's interface as listing and fetching take; `files`: what is at the only commit."""

    def __init__(self, files: dict[str, bytes]) -> None:
        self.files = files
        self.asked: list[str] = []
        hub = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                hub.asked.append(self.path)
                parts = urlsplit(self.path)
                status, body = hub.answer(unquote(parts.path), parse_qs(parts.query))
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"

    def answer(self, path: str, query: dict[str, list[str]]) -> tuple[int, bytes]:
        if path == "/api/datasets/org/one/revision/main":
            return 200, json.dumps({"id": "org/one", "sha": COMMIT}).encode()
        tree = f"/api/datasets/org/one/tree/{COMMIT}"
        if path == tree or path.startswith(f"{tree}/"):
            below = path.removeprefix(tree).lstrip("/")
            return 200, json.dumps(
                [self.entry(name) for name in self.files if name.startswith(f"{below}/" if below else "")]
            ).encode()
        resolved = f"/datasets/org/one/resolve/{COMMIT}/"
        if path.startswith(resolved) and (name := path.removeprefix(resolved)) in self.files:
            return 200, self.files[name]
        return 404, b"{}"

    def entry(self, name: str) -> dict:
        data = self.files[name]
        git = hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
        entry = {"type": "file", "path": name, "size": len(data), "oid": git}
        if name.endswith(".png"):
            entry["lfs"] = {"oid": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 130}
        return entry


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    folder = made(tmp_path / "made")
    paths = [path for path in folder.rglob("*") if path.is_file()]
    one = Hub({f"data/{path.relative_to(folder).as_posix()}": path.read_bytes() for path in paths})
    one.files["README.md"] = b"# one"
    template = constants.HUGGINGFACE_CO_URL_TEMPLATE.replace(constants.ENDPOINT, one.url)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "ENDPOINT", one.url)
    yield one
    one.server.shutdown()
    one.server.server_close()


@pytest.mark.parametrize(("folder", "prefix"), [("", "data/"), ("/data", "")])
def test_a_dataset_of_the_hub_is_pinned_at_its_commit(
    hub: Hub, tmp_path: Path, folder: str, prefix: str
) -> None:
    found, dataset = pinned(f"hf://datasets/org/one@main{folder}", tmp_path / "a")
    assert (found.format, found.summary["images"], found.summary["annotations"]) == ("yolo", 20, 20)
    assert dataset.url == f"hf://datasets/org/one@{COMMIT}{folder}"
    assert dataset.paths[0] == f"{prefix}images/000.png"
    hub.asked.clear()
    assert len(open_dataset(fetched(dataset, range(1, 4), tmp_path / "sample")).images) == 3
    # the commit is known: nothing is asked for but the pictures
    assert len(hub.asked) == 3


def test_what_the_hub_sends_is_held_against_its_digest(hub: Hub, tmp_path: Path) -> None:
    _, dataset = pinned("hf://datasets/org/one@main", tmp_path / "a")
    size = len(hub.files["data/images/002.png"])
    for wrong in (bytes(size), bytes(size + 1), b""):
        hub.files["data/images/002.png"] = wrong
        with pytest.raises(SourceError, match="another digest") as refusal:
            source_at(dataset.url).read("data/images/002.png", dataset.pin(3))
        assert refusal.value.code == "changed"


@pytest.mark.parametrize("url", ["hf://datasets/org/other@main", "hf://datasets/org/one@no-branch"])
def test_what_the_hub_does_not_have(hub: Hub, url: str) -> None:
    with pytest.raises(SourceError) as refusal:
        source_at(url)
    assert refusal.value.code == "not_found"
