import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.data.splits import complete, draw, split_named, split_of_file, split_of_folders


@pytest.mark.parametrize(
    ("word", "split"),
    [
        ("", None),
        ("images", None),
        ("train", "train"),
        ("Train2017", "train"),
        ("valid", "val"),
        ("validation", "val"),
        ("test", "test"),
        ("training", "train"),
        ("autosplit_train", "train"),
        ("val_set_v2", "val"),
        ("test_list", "test"),
        (None, None),
        (3, None),
    ],
)
def test_words(word: object, split: str | None) -> None:
    assert split_named(word) == split


@pytest.mark.parametrize(
    ("path", "split"),
    [
        ("", None),
        ("a.json", None),
        ("annotations/instances_val2017.json", "val"),
        ("train/_annotations.coco.json", "train"),
        ("x/test/y/labels.csv", "test"),
        ("train_labels.csv", "train"),
        ("constrained.csv", None),
    ],
)
def test_files(path: str, split: str | None) -> None:
    assert split_of_file(path) == split


def test_deepest_folder_wins() -> None:
    assert split_of_folders("train/val/a.png") == "val"
    assert split_of_folders("val.png") is None


@pytest.mark.parametrize(
    ("count", "expected"),
    [(0, (0, 0, 0)), (1, (1, 0, 0)), (2, (1, 1, 0)), (3, (1, 1, 1)), (10, (7, 2, 1)), (100, (70, 20, 10))],
)
def test_drawn_shares(count: int, expected: tuple[int, int, int]) -> None:
    drawn = draw([str(index) for index in range(count)], {"val": 0.2, "test": 0.1}, seed=0)
    assert tuple(drawn.count(split) for split in ("train", "val", "test")) == expected


@given(
    keys=st.lists(st.text("abcdef0123456789", min_size=4, max_size=8), unique=True, max_size=40),
    seed=st.integers(0, 9),
    shuffle=st.integers(0, 99),
)
def test_draw_follows_keys_not_their_order(keys: list[str], seed: int, shuffle: int) -> None:
    order = np.random.default_rng(shuffle).permutation(len(keys)).tolist()
    first = dict(zip(keys, draw(keys, {"val": 0.3}, seed), strict=True))
    again = [keys[index] for index in order]
    assert dict(zip(again, draw(again, {"val": 0.3}, seed), strict=True)) == first


def test_seed_changes_the_draw() -> None:
    keys = [str(index) for index in range(50)]
    assert draw(keys, {"val": 0.5}, 1) != draw(keys, {"val": 0.5}, 2)


@pytest.mark.parametrize(
    ("found", "sources", "said"),
    [
        ([], set(), "drawn"),
        ([None] * 10, {"train", "val"}, "names none"),
        (["train"] * 10, {"train", "val"}, "names all train"),
        (["test"] * 10, {"train", "val"}, "names all test"),
        (["train"] * 5 + ["val"] * 5, {"train", "val"}, "from the archive"),
        (["train"] * 5 + ["val"] * 4 + [None], {"train", "val"}, "from the archive"),
        (["train"] * 8 + ["test"] * 2, {"train", "val", "test"}, "test from the archive"),
        (["val"] * 8 + ["test"] * 2, {"train", "val", "test"}, "test from the archive"),
    ],
)
def test_completion(found: list, sources: set, said: str) -> None:
    keys = [str(index) for index in range(len(found))]
    splits, words = complete(found, keys, seed=4, val_fraction=0.2, test_fraction=0.0)
    assert set(splits) == sources
    assert said in words
    if said != "from the archive":
        assert "seed 4" in words
    kept = [
        (was, now) for was, now in zip(found, splits, strict=True) if was == "test" and "test from" in words
    ]
    assert all(was == now for was, now in kept)
