"""One forward pass: how many images go together, what happens when memory or range run out, and what is read where."""

import dataclasses

import numpy as np
import pytest
import torch

from models_store.archs.necks import MERGED
from tests.unit.models_store.conftest import random_detector
from worker.features.extract import extract
from worker.features.forward import BATCH_SIZE, Reader
from worker.features.grouping import DecodedImage
from worker.features.reading import reading_of
from worker.features.spec import Spec

torch.set_num_threads(1)
CPU = torch.device("cpu")


def reader_of(detector, layers, levels=("local",), precision="float32", source_maps=(), size=None):
    chosen = [layer for layer in detector.layers if layer.name in layers]
    return Reader(detector, chosen, levels, size, CPU, precision, source_maps)


def pictures(count: int, height: int = 96, width: int = 128) -> list[DecodedImage]:
    rng = np.random.default_rng(0)
    boxes = np.array([[10.0, 12.0, 70.0, 60.0], [40.0, 30.0, 120.0, 90.0]])
    return [
        DecodedImage(
            number,
            rng.integers(0, 256, (height, width, 3), dtype=np.uint8),
            np.array([2 * number, 2 * number + 1]),
            boxes,
        )
        for number in range(count)
    ]


def clock() -> dict[str, float]:
    return dict.fromkeys(("decode", "prepare", "forward", "pool"), 0.0)


@pytest.mark.parametrize(
    ("image_hw", "together"),
    [((800, 800), 1), ((800, 1066), 1), ((560, 560), 2), ((320, 426), 4), ((64, 64), 4)],
)
def test_batches_follow_the_size_and_are_powers_of_two(detector, image_hw, together):
    assert reader_of(detector, ["backbone.c4"]).batch_size(image_hw) == together
    assert all(size & (size - 1) == 0 for size in BATCH_SIZE.values())


def test_a_batch_that_the_free_memory_does_not_hold_goes_in_parts(detector, monkeypatch):
    reader = reader_of(detector, ["backbone.c4"])
    reader.read(reader.load(pictures(1)), clock())
    each = reader.meter.bytes_per_image
    monkeypatch.setattr("worker.features.forward.free_bytes", lambda device: 5 * each)
    detector.batches.clear()
    rows, vectors = reader.read(reader.load(pictures(8)), clock())
    assert [shape[0] for shape in detector.batches] == [2, 2, 2, 2]
    assert rows.tolist() == list(range(16))
    assert len(vectors["backbone.c4", "local"]) == 16


def test_pictures_that_had_no_room_together_are_prepared_one_by_one(detector):
    reader = reader_of(detector, ["backbone.c4"])
    loaded = reader.load(pictures(3))
    wanted = reader.read(loaded, clock())
    alone = reader.read(dataclasses.replace(loaded, pixels=None), clock())
    assert np.array_equal(wanted[0], alone[0])
    for place, values in wanted[1].items():
        np.testing.assert_allclose(alone[1][place], values, atol=1e-5)


def test_main_memory_running_out_halves_the_batch_too(detector, monkeypatch):
    reader = reader_of(detector, ["backbone.c4"])
    real = detector.feature_maps

    def tight(pixels, layers):
        if len(pixels) > 1:
            raise RuntimeError(
                "[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory"
            )
        return real(pixels, layers)

    monkeypatch.setattr(detector, "feature_maps", tight)
    rows, _ = reader.read(reader.load(pictures(4)), clock())
    assert rows.tolist() == list(range(8))
    assert [warning.split()[-1] for warning in reader.warnings] == ["2", "1"]


def test_another_error_is_no_reason_to_try_less(detector, monkeypatch):
    reader = reader_of(detector, ["backbone.c4"])

    def broken(pixels, layers):
        raise RuntimeError("shapes do not fit")

    monkeypatch.setattr(detector, "feature_maps", broken)
    with pytest.raises(RuntimeError, match="do not fit"):
        reader.read(reader.load(pictures(4)), clock())


def test_values_above_float16s_range_are_read_again_in_float32(detector):
    detector.module.mix.weight.data *= 1e4
    exact, low = (reader_of(detector, ["backbone.c4"], precision=each) for each in ("float32", "float16"))
    wanted = exact.read(exact.load(pictures(2)), clock())[1]["backbone.c4", "local"]
    assert np.abs(wanted).max() > 65504
    found = low.read(low.load(pictures(2)), clock())[1]["backbone.c4", "local"]
    np.testing.assert_array_equal(found, wanted)
    assert low.warnings == ["values above float16's range were read again in float32"]


def test_pyramid_maps_are_read_before_their_last_convolution(monkeypatch):
    """The same vectors, though the most expensive convolutions never run."""
    detector = random_detector("detrank/fasterrcnn_fpn_v2", "torchvision/resnet18")
    levels = [layer.name for layer in detector.layers if layer.name.startswith("neck.p")]
    ran = []
    for index, block in enumerate(detector.module.backbone.fpn.layer_blocks):
        block.register_forward_hook(lambda *_, index=index: ran.append(index))
    cheap = reader_of(detector, levels, ("local", "global"), size=96)
    assert [name for name in cheap.run_maps if name.endswith(MERGED)] == [
        f"{name}{MERGED}" for name in levels[:4]
    ]
    found = cheap.read(cheap.load(pictures(2)), clock())[1]
    assert set(ran) == {3}  # of which the coarsest map is made
    monkeypatch.setattr(detector, "before", lambda layer: None)
    plain = reader_of(detector, levels, ("local", "global"), size=96)
    wanted = plain.read(plain.load(pictures(2)), clock())[1]
    assert set(ran) == {0, 1, 2, 3}
    for place, values in wanted.items():
        np.testing.assert_allclose(
            found[place], values, rtol=1e-3, atol=1e-5 * np.abs(values).max(), err_msg=str(place)
        )


def test_a_map_that_others_need_is_run():
    detector = random_detector("detrank/fasterrcnn_fpn", "torchvision/resnet18")
    with_regions = reader_of(detector, ["neck.p3", "neck.roi"])
    assert not with_regions.before
    with_source = reader_of(detector, ["neck.p3"], source_maps=("neck.p2", "neck.p3"))
    assert not with_source.before
    assert list(reader_of(detector, ["neck.p3"]).before) == ["neck.p3"]


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_the_detector_is_as_it_was_afterwards(dataset, precision):
    detector = random_detector("detrank/fasterrcnn_fpn", "torchvision/resnet18")
    kept = {key: value.clone() for key, value in detector.module.state_dict().items()}
    pixels = torch.randn(1, 3, 96, 128)
    before = detector.feature_maps(pixels, ["neck.p2"])["neck.p2"]
    extract(reading_of(detector, dataset, Spec(layers=("neck.p3",), image_size=64), precision=precision))
    assert all(torch.equal(value, kept[key]) for key, value in detector.module.state_dict().items())
    # only the layout of the weights in memory is another one
    after = detector.feature_maps(pixels, ["neck.p2"])["neck.p2"]
    torch.testing.assert_close(after, before, rtol=1e-3, atol=1e-5 * float(before.abs().max()))


def test_one_image_costs_what_its_forward_pass_took(dataset, detector):
    features = extract(reading_of(detector, dataset, Spec(layers=("backbone.c2",))))
    assert detector.forwards == len(detector.batches)
    assert sum(shape[0] for shape in detector.batches) == len(dataset.images)
    assert 0 < features.cost.ms_per_image < 1e3 * features.seconds["total"]
    assert features.cost.measures == "forward pass to backbone.c2"
    assert set(features.seconds) == {"decode", "prepare", "forward", "pool", "total"}
