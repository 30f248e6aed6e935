"""Subsets are nested, follow the seed alone and keep exactly what they say."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from worker.data.dataset import Dataset, Image
from worker.data.subsets import Undrawable, draw

CLASSES = ("ant", "bee", "cat")


def dataset_of(per_image: list[list[tuple[int, bool]]], supervision: str = "boxes") -> Dataset:
    """One training image for each list of (label, crowd), and one of the test split with everything."""
    everything = [(label, False) for label in range(3)]
    rows = [(i, *row) for i, image in enumerate([*per_image, everything], start=1) for row in image]
    images = [Image(i, Path(f"{i}.png"), 50, 50, "train") for i in range(1, len(per_image) + 1)]
    images.append(Image(len(per_image) + 1, Path("t.png"), 50, 50, "test"))
    return Dataset(
        Path("nowhere"),
        CLASSES,
        supervision,
        tuple(images),
        np.arange(1, len(rows) + 1),
        np.array([row[0] for row in rows], dtype=np.int64),
        np.array([row[1] for row in rows], dtype=np.int64),
        np.tile([0.0, 0, 9, 9], (len(rows), 1)),
        np.array([row[2] for row in rows], dtype=bool),
        "",
    )


def shuffled(dataset: Dataset, seed: int) -> Dataset:
    rng = np.random.default_rng(seed)
    rows, images = rng.permutation(len(dataset.labels)), rng.permutation(len(dataset.images))
    return replace(
        dataset,
        images=tuple(dataset.images[i] for i in images),
        **{
            name: getattr(dataset, name)[rows]
            for name in ("annotation_ids", "annotation_image_ids", "labels", "boxes", "iscrowd")
        },
    )


contents = st.lists(
    st.lists(st.tuples(st.integers(0, 2), st.booleans()), max_size=6), min_size=2, max_size=25
).filter(lambda images: any(not crowd for image in images for _, crowd in image))


@settings(max_examples=80, deadline=None)
@given(contents, st.integers(0, 1000), st.integers(1, 40), st.integers(1, 40))
def test_shots_are_exact_nested_and_independent_of_order(images, seed, k, other) -> None:
    dataset = dataset_of(images)
    small, large = (
        draw(dataset, shots=min(k, other), seed=seed),
        draw(dataset, shots=max(k, other), seed=seed),
    )
    assert set(small.annotation_ids) <= set(large.annotation_ids)
    assert set(small.image_ids) <= set(large.image_ids)
    assert draw(shuffled(dataset, seed), shots=max(k, other), seed=seed) == large
    available = Counter(label for image in images for label, crowd in image if not crowd)
    for label, name in enumerate(CLASSES):
        kept = [i for i in large.annotation_ids if dataset.labels[i - 1] == label]
        assert len(kept) == large.coverage[name] == min(max(k, other), available[label])
    assert not dataset.iscrowd[np.array(large.annotation_ids) - 1].any()
    assert set(large.image_ids) == set(
        dataset.annotation_image_ids[np.array(large.annotation_ids) - 1].tolist()
    )
    assert large.missing == tuple(name for label, name in enumerate(CLASSES) if not available[label])


@settings(max_examples=60, deadline=None)
@given(contents, st.integers(0, 1000), st.floats(0.01, 1), st.floats(0.01, 1))
def test_fractions_are_nested_and_independent_of_order(images, seed, one, other) -> None:
    dataset = dataset_of([*images, [(0, False)]])
    try:
        small = draw(dataset, fraction=min(one, other), seed=seed)
    except Undrawable as refusal:
        assert refusal.code == "no_objects"  # noqa: PT017 the draw may rightly hold none
        return
    large = draw(dataset, fraction=max(one, other), seed=seed)
    assert set(small.image_ids) <= set(large.image_ids)
    assert small.annotation_ids is None
    assert draw(shuffled(dataset, seed), fraction=max(one, other), seed=seed) == large
    assert list(large.image_ids) == sorted(set(large.image_ids))
    assert max(large.image_ids) <= len(images) + 1


def test_the_number_of_images_is_rounded_half_up_in_decimals() -> None:
    dataset = dataset_of([[(0, False)]] * 200)
    for fraction, wanted in (
        (0.01, 2),
        (0.0125, 3),
        (0.145, 29),
        (0.0001, 1),
        (0.9975, 200),
        (1, 200),
        (1.0, 200),
    ):
        assert len(draw(dataset, fraction=fraction).image_ids) == wanted
    # 0.145 * 100 is 14.499... in binary.
    assert len(draw(dataset_of([[(0, False)]] * 100), fraction=0.145).image_ids) == 15


def test_all_takes_the_split_and_counts_it() -> None:
    dataset = dataset_of([[(0, False), (0, True)], [], [(1, False)]])
    everything = draw(dataset)
    assert (everything.kind, everything.value, everything.image_ids) == ("all", None, (1, 2, 3))
    assert everything.coverage == {"ant": 1, "bee": 1, "cat": 0}
    assert everything.missing == ("cat",)
    assert draw(dataset, split="test").image_ids == (4,)


def test_another_seed_draws_others() -> None:
    dataset = dataset_of([[(0, False)]] * 50)
    drawn = {draw(dataset, fraction=0.1, seed=seed).image_ids for seed in range(5)}
    assert len(drawn) == 5
    assert len({draw(dataset, shots=5, seed=seed).annotation_ids for seed in range(5)}) == 5


def test_whole_images_are_preferred_to_parts() -> None:
    crowded = [(0, False)] * 20
    dataset = dataset_of([crowded, crowded, [(0, False)], [(0, False)] * 2, crowded])
    for seed in range(5):
        assert draw(dataset, shots=1, seed=seed).image_ids == (3,)
        assert draw(dataset, shots=3, seed=seed).image_ids == (3, 4)
        five = draw(dataset, shots=5, seed=seed)
        assert len(five.image_ids) == 3
        assert len(five.annotation_ids) == 5
        assert len(draw(dataset, shots=10, seed=seed).image_ids) == 3  # the opened image goes on


def test_refusals_say_what_to_change() -> None:
    dataset = dataset_of([[(0, False)], [(0, True)]])
    for code, asked in (
        ("bad_request", {"fraction": 0.0}),
        ("bad_request", {"fraction": 1.5}),
        ("bad_request", {"fraction": float("nan")}),
        ("bad_request", {"shots": 0}),
        ("bad_request", {"fraction": 0.5, "shots": 1}),
        ("no_images", {"split": "val"}),
    ):
        with pytest.raises(Undrawable) as refusal:
            draw(dataset, **asked)
        assert refusal.value.code == code
    with pytest.raises(Undrawable, match="no object"):
        draw(dataset_of([[(0, True)]]), shots=1)
    with pytest.raises(Undrawable, match="hold no object"):
        draw(dataset_of([[]]))
