import dataclasses
import threading

import numpy as np
import pytest
import torch

from worker.data.pixels import PixelCache
from worker.features import reading as module
from worker.features.errors import Unextractable
from worker.features.extract import extract
from worker.features.reading import read_batches, reading_of
from worker.features.spec import Spec


def arrays(features):
    return {
        "annotation_ids": features.annotation_ids,
        "image_ids": features.image_ids,
        "labels": features.labels,
        "boxes": features.boxes,
        **{f"{layer}/{level}": table for (layer, level), table in features.layers.items()},
    }


def assert_same(first, second, atol=0.0):
    left, right = arrays(first), arrays(second)
    assert left.keys() == right.keys()
    for name in left:
        np.testing.assert_allclose(left[name], right[name], rtol=0, atol=atol, err_msg=name)


@pytest.mark.parametrize("threads", [1, 4])
@pytest.mark.parametrize("batch_size", [1, 5])
@pytest.mark.parametrize("image_size", [None, 192])
def test_features_boxes_and_labels_of_a_row_are_of_one_object(
    detector, dataset, threads, batch_size, image_size
):
    spec = Spec(layers=("backbone.c2", "neck.roi"), levels=("local", "global"), image_size=image_size)
    features = extract(reading_of(detector, dataset, spec), decode_threads=threads, batch_size=batch_size)
    annotations = {int(key): row for row, key in enumerate(dataset.annotation_ids)}
    images = {image.id: image for image in dataset.images}
    assert len(features.annotation_ids) == len(dataset.annotation_ids) - 1, "the crowd is left out"
    assert (np.diff(features.annotation_ids) > 0).all()
    for row, key in enumerate(features.annotation_ids.tolist()):
        image = images[int(features.image_ids[row])]
        assert image.id == dataset.annotation_image_ids[annotations[key]]
        assert features.labels[row] == image.id % 2
        box = features.boxes[row] * [image.width, image.height, image.width, image.height]
        np.testing.assert_allclose(box, dataset.boxes[annotations[key]], atol=1e-9)
        # A pixel's centre is half a pixel after its number.
        centre = [(box[0] + box[2]) / 2 - 0.5, (box[1] + box[3]) / 2 - 0.5]
        for layer in ("backbone.c2", "neck.roi"):
            vector = features.layers[layer, "local"][row]
            assert vector[0] == pytest.approx(10 * image.id, abs=1e-3)
            np.testing.assert_allclose(vector[1:], centre, atol=2.6)
            whole = features.layers[layer, "global"][row]
            assert whole[0] == pytest.approx(10 * image.id, rel=0.12), (
                "the last row of cells holds some padding"
            )


def test_batches_change_nothing(detector, dataset):
    spec = Spec(layers=("all",), levels=("local", "global"), image_size=160)
    alone = extract(reading_of(detector, dataset, spec), batch_size=1)
    together = extract(reading_of(detector, dataset, spec), batch_size=4, decode_threads=3)
    assert max(shape[0] for shape in detector.batches) > 1
    assert_same(alone, together, atol=1e-4 / 10)


def test_the_same_request_gives_the_same_bits(make_detector, dataset):
    spec = Spec(layers=("all",), levels=("local", "global"), max_images=7, seed=3)
    assert_same(
        extract(reading_of(make_detector(), dataset, spec)),
        extract(reading_of(make_detector(), dataset, spec), decode_threads=5),
    )


def test_the_sample_follows_the_seed(detector, dataset):
    ids = [
        set(extract(reading_of(detector, dataset, Spec(max_images=4, seed=seed))).image_ids.tolist())
        for seed in range(4)
    ]
    assert all(len(one) == 4 for one in ids)
    assert len({frozenset(one) for one in ids}) > 1


def test_one_forward_pass_serves_all_layers(make_detector, dataset):
    one, many = make_detector(), make_detector()
    extract(reading_of(one, dataset, Spec(layers=("backbone.c2",))), batch_size=2)
    extract(reading_of(many, dataset, Spec(layers=("all",), levels=("local", "global"))), batch_size=2)
    assert many.forwards == one.forwards


def test_batches_hold_one_target_size_only(detector, dataset):
    extract(reading_of(detector, dataset, Spec()), batch_size=8)
    assert len({shape[2:] for shape in detector.batches}) > 1


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_half_precision_gives_float32_near_the_full_one(detector, dataset, precision):
    spec = Spec(levels=("local", "global"))
    full, half = (
        extract(reading_of(detector, dataset, spec)),
        extract(reading_of(detector, dataset, spec, precision=precision)),
    )
    for place, table in half.layers.items():
        assert table.dtype == np.float32
        np.testing.assert_allclose(table, full.layers[place], rtol=0.02, atol=2.0)
        assert not np.array_equal(table, full.layers[place])


def test_an_unknown_precision_is_refused(detector, dataset):
    with pytest.raises(Unextractable, match="float32"):
        extract(reading_of(detector, dataset, Spec(), precision="int8"))


def test_out_of_memory_halves_the_batch_and_goes_on(make_detector, dataset):
    spec = Spec(levels=("local", "global"))
    tight = make_detector(oom_above=1)
    features = extract(reading_of(tight, dataset, spec), batch_size=8)
    assert_same(features, extract(reading_of(make_detector(), dataset, spec), batch_size=8), atol=1e-5)
    assert any("ran out of memory" in warning for warning in features.warnings)
    refused = [shape[0] for shape in tight.batches if shape[0] > 1]
    assert len(refused) <= 3, "what fitted once is remembered"


def test_out_of_memory_with_one_image_is_said(make_detector, dataset):
    with pytest.raises(torch.OutOfMemoryError):
        extract(reading_of(make_detector(oom_above=0), dataset, Spec()))


def test_cancelling_stops_before_the_next_batch(detector, dataset):
    calls = []

    def check():
        calls.append(detector.forwards)
        if len(calls) == 2:
            raise KeyboardInterrupt

    before = threading.active_count()
    with pytest.raises(KeyboardInterrupt):
        extract(reading_of(detector, dataset, Spec()), batch_size=2, check=check)
    assert len(calls) == 2
    assert threading.active_count() <= before + 2


def test_progress_counts_images_to_the_end(detector, dataset):
    seen = []
    extract(
        reading_of(detector, dataset, Spec()),
        batch_size=2,
        progress=lambda done, total, message: seen.append((done, total)),
    )
    assert seen[-1] == (12, 12)
    assert seen == sorted(seen)


def test_a_cache_hit_equals_a_recompute_and_runs_nothing(make_detector, dataset, tmp_path):
    spec = Spec(layers=("all",), levels=("local", "global"))
    cache = tmp_path / "cache"
    first = extract(reading_of(make_detector(), dataset, spec), cache=cache)
    again = make_detector()
    hit = extract(reading_of(again, dataset, spec), cache=cache)
    assert (first.cached, hit.cached, again.forwards) == (False, True, 0)
    assert_same(first, hit)
    assert_same(first, extract(reading_of(make_detector(), dataset, spec)))
    assert (hit.cost, hit.warnings, hit.categories, hit.untrained) == (
        first.cost,
        first.warnings,
        first.categories,
        first.untrained,
    )


@pytest.mark.parametrize(
    "change",
    [
        {"layers": ("backbone.c3",)},
        {"levels": ("global",)},
        {"max_images": 5},
        {"image_size": 200},
        {"max_images": 5, "seed": 1},
    ],
)
def test_another_request_misses_the_cache(make_detector, dataset, tmp_path, change):
    extract(reading_of(make_detector(), dataset, Spec()), cache=tmp_path)
    assert not extract(
        reading_of(make_detector(), dataset, dataclasses.replace(Spec(), **change)), cache=tmp_path
    ).cached


def test_other_weights_another_dataset_or_another_version_miss_the_cache(
    make_detector, dataset, tmp_path, monkeypatch
):
    extract(reading_of(make_detector(), dataset, Spec()), cache=tmp_path)
    other = make_detector()
    other.manifest = other.manifest.but(weights_sha256="0" * 64)
    assert not extract(reading_of(other, dataset, Spec()), cache=tmp_path).cached
    assert not extract(
        reading_of(make_detector(), dataclasses.replace(dataset, digest="x"), Spec()), cache=tmp_path
    ).cached
    monkeypatch.setattr(module, "FEATURES_VERSION", module.FEATURES_VERSION + 1)
    assert not extract(reading_of(make_detector(), dataset, Spec()), cache=tmp_path).cached


def test_a_new_licence_or_origin_keeps_the_cache(make_detector, dataset, tmp_path):
    extract(reading_of(make_detector(), dataset, Spec()), cache=tmp_path)
    other = make_detector()
    other.manifest = other.manifest.but(licence="MIT", source={"uri": "elsewhere"}, notes=("a note",))
    assert extract(reading_of(other, dataset, Spec()), cache=tmp_path).cached


def test_a_seed_that_draws_the_same_sample_hits_the_cache(make_detector, dataset, tmp_path):
    extract(reading_of(make_detector(), dataset, Spec(seed=0)), cache=tmp_path)
    assert extract(reading_of(make_detector(), dataset, Spec(seed=1)), cache=tmp_path).cached


def test_cost_is_of_this_detector_on_this_device(detector, dataset):
    cost = extract(reading_of(detector, dataset, Spec(image_size=320))).cost
    assert cost.parameters == 3 * 13 * 9 + 13
    assert cost.device == "cpu"
    assert cost.ms_per_image > 0
    assert min(cost.image_hw) >= 320


def test_untrained_layers_are_read_only_by_name(detector, dataset):
    everything = extract(reading_of(detector, dataset, Spec(layers=("all",))))
    assert "backbone.c5" not in {layer for layer, _ in everything.layers}
    assert any("backbone.c5" in warning for warning in everything.warnings)
    named = extract(reading_of(detector, dataset, Spec(layers=("backbone.c5",))))
    assert named.untrained == {"backbone.c5"}
    assert any("untrained" in warning for warning in named.warnings)


@pytest.mark.parametrize(
    ("spec", "code", "word"),
    [
        (Spec(layers=("backbone.c9",)), "unknown_layer", "backbone.c4"),
        (Spec(levels=("nearby",)), "unknown_level", "local"),
        (Spec(levels=()), "unknown_level", "local"),
        (Spec(split="test"), "no_objects", "split"),
    ],
)
def test_a_request_that_cannot_be_met_says_what_there_is(detector, dataset, spec, code, word):
    with pytest.raises(Unextractable) as caught:
        extract(reading_of(detector, dataset, spec))
    assert caught.value.code == code
    assert word in caught.value.detail


def test_a_picture_that_changed_since_ingest_is_refused(detector, dataset):
    image = dataset.images[0]
    wrong = dataclasses.replace(
        dataset, images=(dataclasses.replace(image, width=image.width + 1), *dataset.images[1:])
    )
    with pytest.raises(ValueError, match="ingest the dataset again"):
        extract(reading_of(detector, wrong, Spec()))


def test_batches_of_parts_of_the_images_hold_the_same_rows_as_one_reading(detector, dataset):
    spec = Spec(layers=("backbone.c4",))
    features = extract(reading_of(detector, dataset, spec), batch_size=1)
    reading = reading_of(detector, dataset, spec)
    middle = len(reading.images) // 2
    seen: list[int] = []
    for part in (reading.images[:middle], reading.images[middle:]):
        for batch in read_batches(reading, part, batch_size=1):
            assert np.array_equal(
                batch.vectors["backbone.c4", "local"], features.layers["backbone.c4", "local"][batch.rows]
            )
            seen += batch.rows.tolist()
    assert sorted(seen) == list(range(len(features.annotation_ids)))


def test_batches_prepared_ahead_give_the_same(detector, dataset, make_detector, monkeypatch):
    spec = Spec(layers=("backbone.c3", "backbone.c4"))
    plain = extract(reading_of(detector, dataset, spec), batch_size=2)
    monkeypatch.setattr(module, "PREPARED_AHEAD", ("cpu",))
    ahead = extract(reading_of(make_detector(), dataset, spec), batch_size=2)
    assert_same(plain, ahead, atol=0)


def test_a_second_detector_decodes_nothing(detector, dataset, make_detector, tmp_path, monkeypatch):
    pixels = PixelCache(tmp_path / "pixels", 1 << 30)
    spec = Spec(image_size=64)
    extract(reading_of(detector, dataset, spec), pixels=pixels)
    monkeypatch.setattr("worker.data.batches.read_rgb", lambda path: pytest.fail(f"{path} was decoded again"))
    found = extract(
        reading_of(make_detector(), dataset, dataclasses.replace(spec, image_size=100)), pixels=pixels
    )
    monkeypatch.undo()
    assert_same(
        found,
        extract(reading_of(make_detector(), dataset, dataclasses.replace(spec, image_size=100))),
        atol=0,
    )


def test_pictures_decoded_before_a_stop_are_kept(detector, dataset, tmp_path):
    pixels = PixelCache(tmp_path / "pixels", 1 << 30)
    calls = []

    def check():
        calls.append(None)
        if len(calls) == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        extract(reading_of(detector, dataset, Spec()), batch_size=1, check=check, pixels=pixels)
    assert len(pixels.files()) == 1
