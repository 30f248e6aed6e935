import dataclasses
import itertools
from pathlib import Path

import numpy as np
import pytest

from worker.data.dataset import Dataset, Image
from worker.data.pixels import PixelCache
from worker.training import pictures
from worker.training.errors import Untrainable
from worker.training.examples import Example, examples_of, with_validation
from worker.training.order import batches, made_ready, size_of
from worker.training.pictures import Pictures
from worker.training.recipe import Augmentation


def batch_of(examples: list[Example], batch_size: int, seed: int, iteration: int) -> list[int]:
    epoch, number = divmod(iteration, -(-len(examples) // batch_size))
    return batches(examples, batch_size, seed, epoch)[number]


def made_up(wide: int, tall: int) -> list[Example]:
    nothing = np.zeros((0, 4), np.float32), np.zeros(0, np.int64)
    sizes = [(80, 60)] * wide + [(60, 80)] * tall
    return [Example(Image(i, None, w, h, "train"), *nothing) for i, (w, h) in enumerate(sizes)]


@pytest.mark.parametrize(("wide", "tall", "size"), [(10, 7, 4), (3, 0, 4), (1, 1, 2), (9, 9, 1), (5, 12, 16)])
def test_an_epoch_has_every_image_once_and_mixes_only_the_rest(wide: int, tall: int, size: int) -> None:
    examples = made_up(wide, tall)
    for epoch in range(3):
        found = batches(examples, size, 7, epoch)
        assert len(found) == -(-len(examples) // size)
        assert sorted(itertools.chain(*found)) == list(range(len(examples)))
        mixed = [b for b in found if 0 < sum(i < wide for i in b) < len(b)]
        rest = wide % size + tall % size
        assert len(mixed) <= -(-rest // size)
    if len(examples) > 10:
        assert batches(examples, size, 7, 0) != batches(examples, size, 7, 1)
        assert batches(examples, size, 7, 0) != batches(examples, size, 8, 0)
    assert batches(examples, size, 7, 0) == batches(examples, size, 7, 0)


@pytest.mark.usefixtures("global_random")
def test_batches_begin_at_any_iteration_with_the_same_pictures(toy: Dataset) -> None:
    examples, _ = examples_of(toy, [i.id for i in toy.images if i.split == "train"], None, masks=False)
    wanted = Augmentation(flip=0.5, crop=0.5)

    def taken(first: int, count: int) -> list[list[tuple[int, bytes]]]:
        endless = made_ready(
            examples, Pictures(), wanted, batch_size=4, seed=3, first=first, share=list, threads=2
        )
        with_bytes = [[(r.index, r.pixels.tobytes()) for r in b] for b in itertools.islice(endless, count)]
        endless.close()
        return with_bytes

    whole = taken(0, 9)
    assert [[i for i, _ in b] for b in whole] == [batch_of(examples, 4, 3, i) for i in range(9)]
    for first in (1, 3, 4, 6):
        assert taken(first, 3) == whole[first : first + 3]


def test_shares_of_processes_make_the_whole_batch(toy: Dataset) -> None:
    examples, _ = examples_of(toy, [i.id for i in toy.images if i.split == "train"][:5], None, masks=False)
    parts = [
        [
            [r.index for r in b]
            for b in itertools.islice(
                made_ready(
                    examples,
                    Pictures(),
                    Augmentation(),
                    batch_size=4,
                    seed=0,
                    first=0,
                    threads=1,
                    share=lambda batch, rank=rank: batch[rank::2],
                ),
                6,
            )
        ]
        for rank in range(2)
    ]
    for number in range(6):
        whole = batch_of(examples, 4, 0, number)
        assert sorted(parts[0][number] + parts[1][number]) == sorted(whole)
    assert any(not part for part in parts[1])  # a batch of one leaves the second process none


def test_sizes_are_factors_of_the_base() -> None:
    wanted = (0.8, 1.0)
    found = {size_of(i, 320, wanted, 0) for i in range(40)}
    assert found == {256, 320}
    assert {size_of(i, (800, 1333), wanted, 0) for i in range(40)} == {(640, 1333), (800, 1333)}
    assert [size_of(i, 320, wanted, 0) for i in range(40)] != [size_of(i, 320, wanted, 1) for i in range(40)]


def test_crowds_and_slivers_are_left_out_and_objects_can_be_chosen(toy: Dataset) -> None:
    ids = [image.id for image in toy.images]
    boxes, crowd = toy.boxes.copy(), toy.iscrowd.copy()
    boxes[0, 2] = boxes[0, 0] + 0.5
    crowd[1] = True
    changed = dataclasses.replace(toy, boxes=boxes, iscrowd=crowd)
    examples, thin = examples_of(changed, ids, None, masks=False)
    assert thin == 1
    assert sum(len(e.labels) for e in examples) == len(toy.labels) - 2
    assert [e.image.id for e in examples] == ids
    few, _ = examples_of(changed, ids, [toy.annotation_ids[3]], masks=False)
    assert sum(len(e.labels) for e in few) == 1
    assert len(few) == len(ids)
    owner = next(e for e in few if len(e.labels))
    assert owner.image.id == toy.annotation_image_ids[3]
    assert np.array_equal(owner.boxes[0], toy.boxes[3].astype(np.float32))
    with pytest.raises(Untrainable, match="no images"):
        examples_of(toy, [10**6], None, masks=False)


def test_without_validation_a_seeded_tenth_of_train_is_taken() -> None:
    train, val, note = with_validation(range(40), [], seed=1)
    assert len(val) == 4
    assert sorted(train + val) == list(range(40))
    assert "drawn with seed 1" in note
    assert with_validation(range(40), [], seed=1)[1] == val
    assert with_validation(range(40), [], seed=2)[1] != val
    assert with_validation([1, 2], [3], seed=0) == ([1, 2], [3], None)
    with pytest.raises(Untrainable, match="no validation"):
        with_validation([1], [], seed=0)


def counted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    decoded: list[int] = []
    real = pictures.read_checked
    monkeypatch.setattr(pictures, "read_checked", lambda image: decoded.append(image.id) or real(image))
    return decoded


def test_pictures_are_decoded_once_within_the_bound(toy: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    decoded = counted(monkeypatch)
    one = 64 * 64 * 3
    with Pictures(max_bytes=2 * one) as kept:
        for _ in range(3):
            for image in toy.images[:3]:
                assert kept.read(image).shape == (64, 64, 3)
    assert len(decoded) == 3 + 2  # the third does not fit
    assert kept.bytes == 2 * one


def test_the_next_training_finds_pictures_on_disk(
    toy: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded = counted(monkeypatch)
    cache = PixelCache(tmp_path, 1 << 30)
    for _ in range(2):
        with Pictures(max_bytes=0, kept=cache.of(toy.digest)) as kept:
            found = [kept.read(image) for image in toy.images[:3]]
    assert len(decoded) == 3
    for image, pixels in zip(toy.images[:3], found, strict=True):
        assert np.array_equal(pixels, pictures.read_checked(image))
