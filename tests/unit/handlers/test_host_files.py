"""Unpacked datasets are shared, made once, and evicted only when nobody reads them."""

import os
import threading
from pathlib import Path

import pytest

from app.storage.archives import pack
from app.storage.blobs import BlobStore
from worker.files import evict, scratch, unpacked_dataset

GIB = 1 << 30


@pytest.fixture
def store(tmp_path: Path) -> BlobStore:
    return BlobStore(
        f"file://{tmp_path / 'storage'}", cache=tmp_path / "blob-cache", scratch=tmp_path / "scratch"
    )


def packed(store: BlobStore, tmp_path: Path, name: str, size: int) -> str:
    folder = tmp_path / f"make-{name}"
    folder.mkdir()
    (folder / "annotations.json").write_text(name * size)
    pack(folder, tmp_path / f"{name}.zip")
    return store.put_file(tmp_path / f"{name}.zip").sha256


def test_dataset_is_unpacked_once(store: BlobStore, tmp_path: Path) -> None:
    sha256, cache = packed(store, tmp_path, "a", 10), tmp_path / "cache"
    with unpacked_dataset(cache, store, sha256, max_bytes=GIB) as folder:
        (folder / "mark").touch()
    with unpacked_dataset(cache, store, sha256, max_bytes=GIB) as folder:
        assert (folder / "mark").exists()
        assert (folder / "annotations.json").read_text() == "a" * 10


def test_many_at_once_unpack_once(store: BlobStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import worker.files

    sha256, cache, calls = packed(store, tmp_path, "a", 1000), tmp_path / "cache", []
    real = worker.files.unpack
    monkeypatch.setattr(worker.files, "unpack", lambda *given: (calls.append(1), real(*given)))
    contents, together = [], threading.Barrier(6)

    def read() -> None:
        together.wait()
        with unpacked_dataset(cache, store, sha256, max_bytes=GIB) as folder:
            contents.append((folder / "annotations.json").read_text())

    threads = [threading.Thread(target=read) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert contents == ["a" * 1000] * 6
    assert len(calls) == 1


def test_longest_unused_goes_first_and_used_ones_stay(store: BlobStore, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    a, b, c = (packed(store, tmp_path, name, 1000) for name in "abc")
    with unpacked_dataset(cache, store, a, max_bytes=GIB) as in_use:
        for sha256 in (b, c):
            with unpacked_dataset(cache, store, sha256, max_bytes=GIB):
                pass
        for age, sha256 in enumerate((c, b, a)):
            os.utime(cache / sha256, (age * 1000, 1000 * (3 - age)))
        evict(cache, 2000)
        assert in_use.is_dir()
        assert (cache / c).is_dir()
        assert not (cache / b).exists()
        evict(cache, 0)
        assert in_use.is_dir()
        assert not (cache / c).exists()
    evict(cache, 0)
    assert [path for path in cache.iterdir() if path.is_dir()] == []
    with unpacked_dataset(cache, store, a, max_bytes=GIB) as folder:
        assert (folder / "annotations.json").read_text() == "a" * 1000


def test_rests_of_a_killed_unpacking_go(store: BlobStore, tmp_path: Path) -> None:
    sha256, cache = packed(store, tmp_path, "a", 10), tmp_path / "cache"
    rest = cache / f"{sha256}.0123.part"
    rest.mkdir(parents=True)
    (rest / "half").touch()
    with unpacked_dataset(cache, store, sha256, max_bytes=GIB) as folder:
        assert folder.is_dir()
        assert not rest.exists()


def test_waiting_for_another_can_be_stopped(store: BlobStore, tmp_path: Path) -> None:
    import fcntl

    class Stop(Exception):
        pass

    def check() -> None:
        raise Stop

    sha256, cache = packed(store, tmp_path, "a", 10), tmp_path / "cache"
    cache.mkdir()
    with (cache / f"{sha256}.lock").open("a+") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(Stop), unpacked_dataset(cache, store, sha256, max_bytes=GIB, check=check):
            pass


def test_scratch_is_gone_after_failure(tmp_path: Path) -> None:
    def fail_inside() -> None:
        with scratch(tmp_path / "scratch") as folder:
            (folder / "file").touch()
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail_inside()
    assert list((tmp_path / "scratch").iterdir()) == []
