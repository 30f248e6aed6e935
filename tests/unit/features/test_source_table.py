"""Class probabilities of the detector's own head, read in the same pass and paired by annotation id."""

import numpy as np
import pytest

from models_store.source import NoSourceClasses
from tests.unit.features.conftest import coded
from worker.features.extract import extract
from worker.features.reading import reading_of
from worker.features.spec import Spec

SPEC = Spec(layers=("neck.roi",), source_probabilities=True)


@pytest.mark.parametrize(("threads", "batch_size"), [(1, 1), (4, 5)])
def test_a_row_is_of_its_annotation(detector, dataset, threads, batch_size):
    features = extract(reading_of(detector, dataset, SPEC), decode_threads=threads, batch_size=batch_size)
    theta = features.source_probabilities
    assert theta.dtype == np.float32
    assert theta.shape == (len(features.annotation_ids), 3)
    np.testing.assert_allclose(theta.sum(1), 1, atol=1e-6)
    rows = {int(key): row for row, key in enumerate(dataset.annotation_ids)}
    sizes = {image.id: (image.height, image.width) for image in dataset.images}
    for row, key in enumerate(features.annotation_ids.tolist()):
        image = int(dataset.annotation_image_ids[rows[key]])
        x1, y1, x2, y2 = np.round(dataset.boxes[rows[key]] / 4).astype(int) * 4
        mean = coded(image, *sizes[image])[y1:y2, x1:x2].reshape(-1, 3).mean(0)
        np.testing.assert_allclose(theta[row], mean / mean.sum(), atol=0.02)
        assert (
            np.abs(theta[row] - mean / mean.sum()).max()
            < np.abs(np.roll(theta, 1, 0)[row] - theta[row]).max()
        )


def test_one_forward_serves_both_and_memory_errors_too(make_detector, dataset):
    plain, both = make_detector(), make_detector()
    extract(reading_of(plain, dataset, Spec(layers=("neck.roi",))), batch_size=4)
    whole = extract(reading_of(both, dataset, SPEC), batch_size=4)
    assert both.forwards == plain.forwards
    halved = extract(reading_of(make_detector(oom_above=1), dataset, SPEC), batch_size=4)
    np.testing.assert_allclose(halved.source_probabilities, whole.source_probabilities, atol=1e-6)


def test_not_asked_for_is_not_read(detector, dataset):
    detector.source_maps = None
    features = extract(reading_of(detector, dataset, Spec(layers=("neck.roi",))))
    assert (features.source_probabilities, features.no_source) == (None, None)


def test_the_cache_keeps_them_and_the_reason_apart(detector, dataset, tmp_path):
    without = extract(reading_of(detector, dataset, Spec(layers=("neck.roi",))), cache=tmp_path / "c")
    first = extract(reading_of(detector, dataset, SPEC), cache=tmp_path / "c")
    again = extract(reading_of(detector, dataset, SPEC), cache=tmp_path / "c")
    assert (without.cached, first.cached, again.cached) == (False, False, True)
    np.testing.assert_array_equal(again.source_probabilities, first.source_probabilities)
    detector.no_source = NoSourceClasses("untrained_head", "new head")
    for cached in (False, True):
        none = extract(reading_of(detector, dataset, SPEC), cache=tmp_path / "c")
        assert (none.cached, none.source_probabilities, none.no_source) == (cached, None, "new head")
