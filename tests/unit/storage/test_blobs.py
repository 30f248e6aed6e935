"""The content-addressed store on each kind of storage"""

import hashlib
import io
import os
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.errors import InvalidRequest, NotFound, StorageFull, TooLarge, Unavailable
from app.storage.blobs import BlobStore

DATA = bytes(range(256)) * 5000
DIGEST = hashlib.sha256(DATA).hexdigest()


@pytest.fixture(scope="module")
def s3() -> Iterator[None]:
    """An S3 server of our own on this machine."""
    server = pytest.importorskip("moto.server").ThreadedMotoServer(port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    ours = {
        "FSSPEC_S3_ENDPOINT_URL": f"http://{host}:{port}",
        "FSSPEC_S3_KEY": "key",
        "FSSPEC_S3_SECRET": "secret",
    }
    fsspec_config = pytest.importorskip("fsspec.config")
    with pytest.MonkeyPatch.context() as patch:
        for name, value in ours.items():
            patch.setenv(name, value)
        fsspec_config.set_conf_env(fsspec_config.conf)
        pytest.importorskip("s3fs").S3FileSystem().mkdir("bucket")
        yield
    fsspec_config.conf.pop("s3", None)
    server.stop()


@pytest.fixture(params=["file", "memory", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> BlobStore:
    if request.param == "s3":
        request.getfixturevalue("s3")
    urls = {
        "file": f"file://{tmp_path / 'store'}",
        "memory": f"memory://{uuid.uuid4().hex}",
        "s3": f"s3://bucket/{uuid.uuid4().hex}",
    }
    return BlobStore(urls[request.param], cache=tmp_path / "cache", scratch=tmp_path / "scratch")


def halves(store: BlobStore) -> list[Path]:
    return list(store._partial.iterdir())


@pytest.mark.parametrize("data", [b"", b"x", DATA], ids=["empty", "one byte", "larger"])
def test_what_is_put_is_found_by_its_digest(store: BlobStore, data: bytes) -> None:
    digest = hashlib.sha256(data).hexdigest()
    assert not store.exists(digest)
    stored = store.put(io.BytesIO(data))
    assert (stored.sha256, stored.size_bytes) == (digest, len(data))
    assert store.put(io.BytesIO(data)) == stored
    assert store.exists(digest)
    with store.open(digest) as file:
        assert file.read() == data
    assert store.local_path(digest).read_bytes() == data
    assert store.local_path(digest).read_bytes() == data
    assert list(store) == [digest]
    assert halves(store) == []


def test_a_file_of_this_host_is_copied(store: BlobStore, tmp_path: Path) -> None:
    (tmp_path / "mine").write_bytes(DATA)
    assert store.put_file(tmp_path / "mine").sha256 == DIGEST
    assert (tmp_path / "mine").read_bytes() == DATA


def test_what_is_deleted_is_gone_and_may_be_deleted_again(store: BlobStore) -> None:
    store.put(io.BytesIO(DATA))
    store.local_path(DIGEST)
    for _ in range(2):
        store.delete(DIGEST)
        assert not store.exists(DIGEST)
        with pytest.raises(NotFound):
            store.open(DIGEST)
        with pytest.raises(NotFound):
            store.local_path(DIGEST)
    assert list(store) == []


def test_nothing_is_seen_before_it_is_whole_and_nothing_stays_of_what_is_given_up(store: BlobStore) -> None:
    with store.writer() as writer:
        writer.write(DATA)
        assert list(store) == []
        assert len(halves(store)) == 1
    assert list(store) == []
    assert halves(store) == []


def test_a_limit_is_kept_while_writing(store: BlobStore) -> None:
    with pytest.raises(TooLarge):
        store.put(io.BytesIO(DATA), limit_bytes=len(DATA) - 1)
    assert halves(store) == []
    assert store.put(io.BytesIO(DATA), limit_bytes=len(DATA)).sha256 == DIGEST


def test_parts_have_names_of_their_own(store: BlobStore) -> None:
    for offset, data in ((5, b"world"), (0, b"hello")):
        writer = store.writer()
        writer.write(data)
        assert writer.commit_as(f"uploads/up_1/{offset:020d}") == 5
    keys = list(store.keys("uploads/up_1"))
    assert [size for _, size in keys] == [5, 5]
    assert b"".join(store.open_key(key).read() for key, _ in keys) == b"helloworld"
    store.delete_folder("uploads/up_1")
    store.delete_folder("uploads/up_1")
    assert list(store.keys("uploads/up_1")) == []


@pytest.mark.parametrize("digest", ["", "..", "../" * 21 + "x", "A" * 64, "0" * 63, "0" * 65, "0" * 63 + "/"])
def test_only_digests_are_names(store: BlobStore, digest: str) -> None:
    with pytest.raises(InvalidRequest):
        store.open(digest)


def test_a_damaged_file_in_far_storage_is_not_given_out(tmp_path: Path) -> None:
    store = BlobStore(f"memory://{uuid.uuid4().hex}", cache=tmp_path / "cache", scratch=tmp_path / "scratch")
    store.put(io.BytesIO(DATA))
    store.filesystem.pipe_file(f"{store.root}/{store.key_of(DIGEST)}", b"other")
    with pytest.raises(NotFound, match="damaged"):
        store.local_path(DIGEST)
    assert [path for path in (tmp_path / "cache").rglob("*") if path.is_file()] == []


def test_a_disk_without_room_is_said_before_and_while_writing(tmp_path: Path) -> None:
    url = f"file://{tmp_path / 'store'}"
    full = BlobStore(url, cache=tmp_path, scratch=tmp_path, min_free_bytes=1 << 60)
    with pytest.raises(StorageFull, match="must stay free"):
        full.writer()
    store = BlobStore(url, cache=tmp_path, scratch=tmp_path)
    with pytest.raises(StorageFull):
        store.writer(expected_bytes=1 << 60)
    with store.writer() as writer:
        writer._file.close()
        writer._file = open("/dev/full", "wb")  # noqa: SIM115
        writer.write(b"x")
        with pytest.raises(StorageFull, match="full"):
            writer.commit()
        writer._file = open(os.devnull, "wb")  # noqa: SIM115
    assert halves(store) == []


def test_halves_of_the_dead_are_removed_at_start(tmp_path: Path) -> None:
    url = f"file://{tmp_path / 'store'}"
    store = BlobStore(url, cache=tmp_path, scratch=tmp_path)
    old, new = store.new_partial(), store.new_partial()
    for path in (old, new):
        path.write_bytes(b"half")
    os.utime(old, (time.time() - 2 * 86400,) * 2)
    BlobStore(url, cache=tmp_path, scratch=tmp_path)
    assert halves(store) == [new]


def test_a_missing_bucket_is_said_and_never_made(s3: None, tmp_path: Path) -> None:
    gone = BlobStore("s3://nowhere/x", cache=tmp_path / "cache", scratch=tmp_path / "scratch")
    for ask in (gone.look, lambda: gone.put(io.BytesIO(b"x")), lambda: gone.open(DIGEST), lambda: list(gone)):
        with pytest.raises(Unavailable, match=r"bucket \S+( storage)? does not exist: make it"):
            ask()
    there = BlobStore("s3://bucket/x", cache=tmp_path / "cache", scratch=tmp_path / "scratch")
    there.look()
    with pytest.raises(NotFound):
        there.open(DIGEST)


def test_an_object_store_that_is_away_is_said_to_be(s3: None, tmp_path: Path) -> None:
    away = BlobStore("s3://bucket/x", cache=tmp_path / "cache", scratch=tmp_path / "scratch")
    away.filesystem = pytest.importorskip("s3fs").S3FileSystem(
        endpoint_url="http://127.0.0.1:1",
        key="key",
        secret="secret",
        skip_instance_cache=True,
        config_kwargs={"retries": {"total_max_attempts": 1}},
    )
    away.filesystem.retries = 1
    for ask in (away.look, lambda: away.put(io.BytesIO(b"x")), lambda: away.exists(DIGEST)):
        with pytest.raises(Unavailable, match="storage does not answer"):
            ask()
