"""Regions read beside the objects: the same pass, the same pooling, and objects that do not notice."""

import dataclasses

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from test_extract import assert_same

from models_store.manifest import Layer
from tests.unit.features.conftest import TinyDetector
from tests.unit.models_store.conftest import random_detector
from worker.features import extract as module
from worker.features import reading
from worker.features.errors import Unextractable
from worker.features.extract import Features, extract
from worker.features.reading import reading_of
from worker.features.regions import RegionSampling
from worker.features.shards import images_of_shard, joined, key_of_part, load_part, read_vectors
from worker.features.spec import Spec

torch.set_num_threads(1)
SAMPLING = RegionSampling(jittered=3, background=2, hard=0.5)
PLAIN = Spec(layers=("backbone.c3", "neck.roi"), levels=("local", "global"))
SPEC = dataclasses.replace(PLAIN, regions=SAMPLING)
COLUMNS = ("image_ids", "labels", "objects", "boxes", "deltas", "ious")


def assert_same_regions(first: Features, second: Features) -> None:
    for name in COLUMNS:
        np.testing.assert_array_equal(getattr(first.regions, name), getattr(second.regions, name), name)
    assert first.region_layers.keys() == second.region_layers.keys()
    for layer, table in first.region_layers.items():
        np.testing.assert_array_equal(table, second.region_layers[layer], layer)


def with_regions_for_objects(reading):
    """The same reading whose regions are annotated as objects."""
    regions, objects = reading.regions, reading.objects
    extent = {image.id: [image.width, image.height] * 2 for image in reading.images}
    extents = np.array([extent[key] for key in regions.image_ids.tolist()])
    annotated = dataclasses.replace(
        objects,
        annotation_ids=np.arange(len(regions)),
        image_ids=regions.image_ids,
        labels=regions.labels,
        boxes=regions.boxes,
        normalised=regions.boxes / extents,
        rows=regions.rows,
    )
    return dataclasses.replace(reading, objects=annotated, regions=None, key="as objects")


@pytest.mark.parametrize("image_size", [None, 192])
def test_a_region_is_read_at_its_place_of_its_picture(detector, dataset, image_size):
    spec = dataclasses.replace(SPEC, layers=("backbone.c2",), image_size=image_size)
    found = extract(reading_of(detector, dataset, spec), batch_size=3)
    regions, table = found.regions, found.region_layers["backbone.c2"]
    assert table.dtype == np.float32
    assert len(table) == len(regions) == 5 * len(found.labels)
    # Cells at the border hold some padding, for objects as for regions.
    extent = {image.id: (image.width, image.height) for image in dataset.images}
    high = np.array([extent[key] for key in regions.image_ids.tolist()])
    inside = (regions.boxes[:, :2] > 8).all(axis=1) & (regions.boxes[:, 2:] < high - 8).all(axis=1)
    assert inside.sum() > 60
    np.testing.assert_allclose(table[inside, 0], 10 * regions.image_ids[inside], atol=1e-3)
    centres = (regions.boxes[:, :2] + regions.boxes[:, 2:]) / 2 - 0.5
    np.testing.assert_allclose(table[inside, 1:], centres[inside], atol=2.6)


@pytest.mark.parametrize("architecture", ["detrank/fasterrcnn_fpn", "detrank/retinanet"])
def test_regions_are_pooled_as_the_same_boxes_would_be_as_objects(dataset, architecture):
    detector = random_detector(architecture, "torchvision/resnet18")
    names = ("backbone.c4", "neck.p3", "neck.p4", "neck.roi", "head.penultimate")
    layers = tuple(layer.name for layer in detector.layers if layer.name in names)
    assert {"backbone.c4", "neck.p3", "head.penultimate"} <= set(layers)
    spec = Spec(layers=layers, image_size=96, max_images=4, regions=SAMPLING)
    reading = reading_of(detector, dataset, spec)
    found = extract(reading_of(detector, dataset, spec))
    assert tuple(found.region_layers) == layers
    whole = with_regions_for_objects(reading)
    wanted = joined(whole, [read_vectors(whole, whole.images)])
    for layer, table in found.region_layers.items():
        np.testing.assert_array_equal(table, wanted.layers[layer, "local"], layer)
        assert np.abs(table).max() > 0


def test_objects_do_not_notice_the_regions(make_detector, dataset):
    spec = dataclasses.replace(SPEC, source_probabilities=True)
    with_them = extract(reading_of(make_detector(), dataset, spec))
    without = extract(reading_of(make_detector(), dataset, dataclasses.replace(spec, regions=None)))
    assert_same(with_them, without)
    np.testing.assert_array_equal(with_them.source_probabilities, without.source_probabilities)
    assert without.regions is None
    assert without.region_layers == {}


class Matching(TinyDetector):
    """With a layer whose vectors tell how many boxes were asked for together."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = (*self.layers, Layer("decoder.matched_query", None, 3, "vector", True))
        self.manifest = self.manifest.but(layers=self.layers)

    def object_features(self, maps, boxes, image_hw, layer):
        found = super().object_features(maps, boxes, image_hw, layer)
        return found + len(found) if layer == "decoder.matched_query" else found

    def map_layers(self, layer):
        return (
            super().map_layers("neck.roi") if layer == "decoder.matched_query" else super().map_layers(layer)
        )


def test_regions_do_not_compete_for_queries_with_the_objects(dataset):
    spec = dataclasses.replace(SPEC, layers=("neck.roi", "decoder.matched_query"), levels=("local",))
    found = extract(reading_of(Matching(), dataset, spec), batch_size=1)
    assert set(found.region_layers) == {"neck.roi"}
    assert any(warning.startswith("decoder.matched_query: regions") for warning in found.warnings)
    assert_same(
        found, extract(reading_of(Matching(), dataset, dataclasses.replace(spec, regions=None)), batch_size=1)
    )


def test_one_forward_pass_serves_objects_and_regions(dataset):
    calls = {}
    for regions in (None, SAMPLING):
        detector = random_detector("detrank/fasterrcnn_fpn", "torchvision/resnet18")
        counts = calls.setdefault(regions, {})
        for name, part in detector.module.named_modules():
            counts[name] = 0

            def count(*_, name=name, counts=counts):
                counts[name] += 1

            part.register_forward_hook(count)
        spec = Spec(layers=("backbone.c4", "neck.p4"), image_size=64, max_images=4, regions=regions)
        extract(reading_of(detector, dataset, spec))
    assert max(calls[None].values()) > 0
    assert calls[None] == calls[SAMPLING]


def test_what_is_hashed_for_a_request_without_regions_is_what_it_was_before_there_were_any(
    detector, dataset, monkeypatch
):
    hashed = []
    monkeypatch.setattr(reading.store, "key_of", lambda facts: hashed.append(set(facts)) or "key")
    for spec in (PLAIN, SPEC):
        reading_of(detector, dataset, spec)
    assert hashed[0] == {
        "version",
        "torch",
        "dataset",
        "sample",
        "detector",
        "read",
        "source",
        "image_size",
        "device",
        "precision",
    }
    assert hashed[1] - hashed[0] == {"regions"}


def test_the_key_follows_the_regions_drawn(detector, dataset):
    plain, asked = (reading_of(detector, dataset, spec) for spec in (PLAIN, SPEC))
    assert plain.regions is None
    assert plain.region_layers == ()
    keys = {plain.key, asked.key}
    for change in ({"jittered": 2}, {"hard": 0.0}, {"shift": 0.3}, {"max_iou": 0.2}):
        other = dataclasses.replace(SPEC, regions=dataclasses.replace(SAMPLING, **change))
        keys.add(reading_of(detector, dataset, other).key)
    keys.add(reading_of(detector, dataset, dataclasses.replace(SPEC, seed=1)).key)
    assert len(keys) == 7
    assert reading_of(detector, dataset, dataclasses.replace(PLAIN, seed=1)).key == plain.key


def test_regions_are_drawn_once_for_all_detectors_and_anew_for_other_annotations(dataset, monkeypatch):
    drawn, real = [], reading.regions_of

    def counted(*given):
        drawn.append(given)
        return real(*given)

    monkeypatch.setattr(reading, "regions_of", counted)
    monkeypatch.setattr(reading, "_REGIONS", {})
    spec = Spec(layers=("backbone.c4",), regions=RegionSampling())
    first = reading_of(TinyDetector(), dataset, spec).regions
    assert reading_of(TinyDetector(), dataset, spec).regions is first
    assert len(drawn) == 1
    moved = dataclasses.replace(dataset, boxes=dataset.boxes + 1)
    others = [(dataset, dataclasses.replace(spec, seed=1)), (moved, spec)]
    for count, (other, asked) in enumerate(others, 2):
        found = reading_of(TinyDetector(), other, asked).regions
        assert len(drawn) == count
        assert not np.array_equal(found.boxes, first.boxes)


def test_order_threads_and_batches_change_no_region(make_detector, dataset):
    first = extract(reading_of(make_detector(), dataset, SPEC), batch_size=2)
    again = extract(reading_of(make_detector(), dataset, SPEC), batch_size=2, decode_threads=4)
    assert_same_regions(first, again)
    alone = extract(reading_of(make_detector(), dataset, SPEC), batch_size=1)
    for layer, table in alone.region_layers.items():
        np.testing.assert_allclose(table, first.region_layers[layer], atol=1e-4)


def test_out_of_memory_with_regions_halves_the_batch(make_detector, dataset):
    tight = extract(reading_of(make_detector(oom_above=1), dataset, SPEC), batch_size=8)
    whole = extract(reading_of(make_detector(), dataset, SPEC), batch_size=8)
    for layer, table in tight.region_layers.items():
        np.testing.assert_allclose(table, whole.region_layers[layer], atol=1e-4)


@pytest.mark.parametrize("shards", [1, 3, 40])
def test_parts_joined_are_the_undivided_regions(make_detector, dataset, tmp_path, shards):
    reading = reading_of(make_detector(), dataset, SPEC)
    keys = [key_of_part(reading, position, shards) for position in range(shards)]
    for position, key in enumerate(keys):
        # As another host reads it.
        own = reading_of(make_detector(), dataset, SPEC)
        read_vectors(own, images_of_shard(own, position, shards)).save(tmp_path, key)
    found = joined(reading, (load_part(tmp_path, key) for key in keys))
    whole = extract(reading_of(make_detector(), dataset, SPEC))
    assert_same(found, whole)
    assert_same_regions(found, whole)


def test_regions_that_are_missing_from_a_part_are_noticed(detector, dataset):
    reading = reading_of(detector, dataset, SPEC)
    part = read_vectors(reading, reading.images)
    cut = {name: array[1:] if name.startswith("region") else array for name, array in part.arrays.items()}
    with pytest.raises(AssertionError, match="1 of 180 regions are not in exactly one part"):
        joined(reading, [dataclasses.replace(part, arrays=cut)])


def test_the_cache_gives_regions_back_and_is_readable_without_our_code(make_detector, dataset, tmp_path):
    cache = tmp_path / "cache"
    first = extract(reading_of(make_detector(), dataset, SPEC), cache=cache)
    again = make_detector()
    hit = extract(reading_of(again, dataset, SPEC), cache=cache)
    assert (hit.cached, again.forwards) == (True, 0)
    assert_same(first, hit)
    assert_same_regions(first, hit)
    assert hit.warnings == first.warnings
    np.testing.assert_array_equal(hit.object_pixels, first.object_pixels)
    (path,) = cache.iterdir()
    arrays = load_file(path)
    for name in COLUMNS:
        np.testing.assert_array_equal(arrays[f"regions/{name}"], getattr(first.regions, name))
    for layer in ("backbone.c3", "neck.roi"):
        np.testing.assert_array_equal(arrays[f"region_features/{layer}"], first.region_layers[layer])


def test_cached_regions_of_another_draw_are_refused(make_detector, dataset, tmp_path, monkeypatch):
    extract(reading_of(make_detector(), dataset, SPEC), cache=tmp_path)
    load = module.store.load

    def other(folder, key):
        arrays, facts = load(folder, key)
        return arrays | {"regions/boxes": arrays["regions/boxes"] + 1}, facts

    monkeypatch.setattr(module.store, "load", other)
    with pytest.raises(AssertionError, match="other regions"):
        extract(reading_of(make_detector(), dataset, SPEC), cache=tmp_path)


def test_what_was_drawn_short_is_said(detector, dataset):
    crowded = dataclasses.replace(SPEC, regions=RegionSampling(max_objects=2))
    found = extract(reading_of(detector, dataset, crowded))
    assert any("12 images hold more than 2 objects" in warning for warning in found.warnings)
    with pytest.raises(Unextractable, match="min_iou"):
        extract(reading_of(detector, dataset, dataclasses.replace(SPEC, regions=RegionSampling(min_iou=2))))


@pytest.mark.parametrize(("image_size", "factor"), [(None, 1.0), (192, None)])
def test_object_pixels_are_sides_in_the_resized_input(detector, dataset, image_size, factor):
    found = extract(reading_of(detector, dataset, dataclasses.replace(PLAIN, image_size=image_size)))
    rows = {int(key): row for row, key in enumerate(dataset.annotation_ids)}
    sizes = {image.id: (image.width, image.height) for image in dataset.images}
    for key, image_id, pixels in zip(found.annotation_ids, found.image_ids, found.object_pixels, strict=True):
        x1, y1, x2, y2 = dataset.boxes[rows[int(key)]]
        own = factor or image_size / min(sizes[int(image_id)])
        # Sides of the resized picture are whole numbers.
        assert pixels == pytest.approx(own * np.sqrt((x2 - x1) * (y2 - y1)), rel=0.01)
