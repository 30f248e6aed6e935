"""Pictures that are kept as a network takes them: nobody sees it but in the seconds."""

import pytest
import torch

from worker.features.extract import extract
from worker.features.inputs import InputCache
from worker.features.reading import reading_of
from worker.features.spec import Spec

FOUR = 4 * 4  # bytes of four float32


@pytest.fixture
def made():
    return []


def ask(cache: InputCache, made: list, group: str, batch: int) -> torch.Tensor:
    def make() -> torch.Tensor:
        made.append((group, batch))
        return torch.full((4,), float(batch))

    found = cache.get(group, batch, make)
    assert found.tolist() == [float(batch)] * 4
    return found


def test_a_batch_is_made_once_until_somebody_writes_into_it(made):
    cache = InputCache()
    ask(cache, made, "a", 1)
    ask(cache, made, "a", 1).add_(1)
    assert made == [("a", 1)]
    ask(cache, made, "a", 1)
    assert made == [("a", 1)] * 2
    cache.clear()
    assert cache.held_bytes == 0


def test_of_a_group_that_has_no_room_the_first_stay_and_the_next_group_takes_their_place(made):
    cache = InputCache(2 * FOUR)
    for _ in range(2):
        for batch in (1, 2, 3):
            ask(cache, made, "a", batch)
            assert cache.held_bytes <= cache.max_bytes
    assert made == [("a", 1), ("a", 2), ("a", 3), ("a", 3)]
    made.clear()
    ask(cache, made, "b", 1)
    ask(cache, made, "b", 1)
    assert made == [("b", 1)]


def test_one_detector_after_another_takes_them_and_the_numbers_are_the_same(
    make_detector, dataset, monkeypatch
):
    spec, cache, second = Spec(layers=("backbone.c2",), image_size=96), InputCache(), make_detector()
    plain = extract(reading_of(second, dataset, spec))
    extract(reading_of(make_detector(), dataset, spec), inputs=cache)
    held = cache.held_bytes
    assert held > 0
    ran = []
    real = second.prepare
    monkeypatch.setattr(second, "prepare", lambda *args: ran.append(args) or real(*args))
    again = extract(reading_of(second, dataset, spec), inputs=cache)
    assert (again.layers["backbone.c2", "local"] == plain.layers["backbone.c2", "local"]).all()
    assert cache.held_bytes == held
    # a small picture of noise, at which the network's parts are looked at
    assert len(ran) <= 1


def test_another_size_is_another_picture(make_detector, dataset):
    cache = InputCache()
    for size in (96, 128):
        reading = reading_of(make_detector(), dataset, Spec(layers=("backbone.c2",), image_size=size))
        kept = extract(reading, inputs=cache)
        plain = extract(reading)
        assert (kept.layers["backbone.c2", "local"] == plain.layers["backbone.c2", "local"]).all()
