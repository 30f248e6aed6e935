"""Objects and regions by the pixels a detector sees of them."""

import numpy as np

from worker.data.dataset import Image
from worker.features.regions import Regions
from worker.studies.measures.sizes import region_pixels, size_of, terciles


def test_thirds():
    pixels = np.arange(1.0, 10.0)
    found = size_of(pixels, terciles(pixels))
    assert np.bincount(found).tolist() == [3, 3, 3]
    assert (np.diff(found) >= 0).all()
    assert size_of(np.array([1.0, 2.0, 3.0]), (1.0, 3.0)).tolist() == [1, 1, 2]


def test_a_region_has_the_size_of_its_object_and_background_its_own():
    class Dataset:
        images = (Image(7, "a", 100, 50, "train"), Image(9, "b", 40, 40, "train"))

    class Detector:
        def resized(self, height, width, image_size):
            return round(height * image_size / min(height, width)), round(
                width * image_size / min(height, width)
            )

    regions = Regions(
        image_ids=np.array([7, 7, 9]),
        labels=np.array([0, 1, 1]),
        objects=np.array([1, -1, -1]),
        boxes=np.array([[0.0, 0, 3, 3], [0, 0, 9, 4], [5, 5, 15, 15]]),
        deltas=np.zeros((3, 4)),
        ious=np.zeros(3),
        rows={7: np.array([0, 1]), 9: np.array([2])},
    )
    found = region_pixels(regions, np.array([1.0, 77.0]), Dataset, Detector(), 100)
    np.testing.assert_allclose(found, [77.0, 6 * 2, 10 * 2.5])
