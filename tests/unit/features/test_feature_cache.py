import os

import numpy as np
import pytest
from safetensors.numpy import load_file

from worker.features import cache

ARRAYS = {"annotation_ids": np.arange(3), "features/backbone.c4/local": np.eye(3, 5, dtype=np.float32)}
FACTS = {"warnings": ["ä"], "cost": {"parameters": 3}}
LARGE = 2**30


def names(folder):
    return sorted(path.name.split(".")[0] for path in folder.iterdir())


def test_what_was_kept_comes_back(tmp_path):
    cache.save(tmp_path / "new", "k", ARRAYS, FACTS, LARGE)
    arrays, facts = cache.load(tmp_path / "new", "k")
    assert facts == FACTS
    for name, array in ARRAYS.items():
        np.testing.assert_array_equal(arrays[name], array)
        assert arrays[name].dtype == array.dtype


def test_it_is_readable_without_our_code(tmp_path):
    cache.save(tmp_path, "k", ARRAYS, FACTS, LARGE)
    (path,) = tmp_path.iterdir()
    assert set(load_file(path)) == set(ARRAYS)


def test_absent_is_none(tmp_path):
    assert cache.load(tmp_path, "k") is None
    assert cache.load(tmp_path / "nowhere", "k") is None


@pytest.mark.parametrize("harm", ["empty", "cut", "flip", "other", "folder"])
def test_a_spoiled_file_is_absent_and_can_be_written_again(tmp_path, harm):
    cache.save(tmp_path, "k", ARRAYS, FACTS, LARGE)
    (path,) = tmp_path.iterdir()
    whole = path.read_bytes()
    match harm:
        case "empty":
            path.write_bytes(b"")
        case "cut":
            path.write_bytes(whole[:-7])
        case "flip":
            path.write_bytes(whole[:-3] + b"\x01" + whole[-2:])
        case "other":
            cache.save(tmp_path, "j", {"annotation_ids": np.arange(9)}, FACTS, LARGE)
            (tmp_path / f"j{cache._SUFFIX}").replace(path)
        case "folder":
            path.write_bytes(b"\xff" * 64)
    assert cache.load(tmp_path, "k") is None
    cache.save(tmp_path, "k", ARRAYS, FACTS, LARGE)
    assert cache.load(tmp_path, "k") is not None


def test_the_longest_unused_goes_first(tmp_path):
    for age, key in enumerate(["first", "second", "third"]):
        cache.save(tmp_path, key, ARRAYS, FACTS, LARGE)
        os.utime(next(tmp_path.glob(f"{key}.*")), (1000 + age, 1000 + age))
    size = next(tmp_path.iterdir()).stat().st_size
    assert cache.load(tmp_path, "first") is not None
    cache.save(tmp_path, "fourth", ARRAYS, FACTS, 3 * size + 100)
    assert names(tmp_path) == ["first", "fourth", "third"]


def test_a_failed_write_leaves_nothing_behind(tmp_path, monkeypatch):
    def refuse(*args, **kwargs):
        raise OSError("no space left on device")

    monkeypatch.setattr(cache, "save_file", refuse)
    with pytest.raises(OSError, match="no space"):
        cache.save(tmp_path, "k", ARRAYS, FACTS, LARGE)
    assert names(tmp_path) == []


def test_an_abandoned_write_is_swept(tmp_path):
    left = tmp_path / f"{cache._BESIDE}old"
    left.write_bytes(b"x")
    os.utime(left, (1000, 1000))
    fresh = tmp_path / f"{cache._BESIDE}new"
    fresh.write_bytes(b"x")
    cache.save(tmp_path, "k", ARRAYS, FACTS, LARGE)
    assert (left.exists(), fresh.exists()) == (False, True)


def test_keys_depend_on_every_fact_and_not_on_their_order():
    assert cache.key_of({"a": 1, "b": [2]}) == cache.key_of({"b": [2], "a": 1})
    assert len({cache.key_of(facts) for facts in ({"a": 1}, {"a": 2}, {"b": 1}, {"a": "1"})}) == 4
