"""Convolutional families through worker.features: each row is the vector of its own object, in any batch.

Every picture is noise of its own, so a vector of another picture or place is another vector.
"""

import numpy as np
import PIL.Image
import pytest
import torch

from models_store import load_detector
from models_store.detector import ROI_LAYERS
from tests.unit.models_store.conftest import random_module
from worker.data.dataset import Dataset
from worker.features.extract import extract
from worker.features.pool import local_vectors
from worker.features.reading import reading_of
from worker.features.spec import Spec

SHORT = 96
FAMILIES = {
    "torchvision/fasterrcnn_mobilenet_v3_large_320_fpn": None,
    "torchvision/ssdlite320_mobilenet_v3_large": None,
    "detrank/ssdlite_mobilenet_v2": None,
    "detrank/retinanet": None,
    "detrank/fasterrcnn_fpn_v2": None,
    "detrank/maskrcnn_c4": None,
    "detrank/fasterrcnn_fpn": "timm/vit_tiny_patch16_224",
}


@pytest.mark.parametrize("name", FAMILIES)
def test_a_row_is_the_vector_of_its_object(name: str, dataset: Dataset, convert_inline, tmp_path) -> None:
    torch.save(random_module(name, backbone=FAMILIES[name]).state_dict(), tmp_path / "weights.pth")
    asked = {"overrides": {"options": {"backbone": FAMILIES[name]}}} if FAMILIES[name] else {}
    convert_inline(tmp_path / "weights.pth", architecture=name, **asked)
    detector = load_detector(tmp_path / "converted")
    layers = tuple(layer.name for layer in detector.layers)
    found = extract(
        reading_of(detector, dataset, Spec(layers=layers, image_size=SHORT)), batch_size=3, decode_threads=3
    )

    ids = found.annotation_ids.tolist()
    assert ids == sorted(dataset.annotation_ids.tolist())
    for image in dataset.images:
        rows = [row for row, owner in enumerate(found.image_ids.tolist()) if owner == image.id]
        own = [dataset.annotation_ids.tolist().index(ids[row]) for row in rows]
        assert (dataset.annotation_image_ids[own] == image.id).all()
        assert (found.labels[rows] == dataset.labels[own]).all()
        pixels = detector.prepare([np.array(PIL.Image.open(image.path).convert("RGB"))], SHORT)
        height, width = detector.resized(image.height, image.width, SHORT)
        scale = np.array([width / image.width, height / image.height] * 2)
        boxes = [torch.tensor(dataset.boxes[own] * scale, dtype=torch.float32)]
        for layer in layers:
            maps = detector.feature_maps(pixels, detector.map_layers(layer))
            if layer in ROI_LAYERS:
                wanted = detector.object_features(maps, boxes, (height, width), layer)
            else:
                wanted = local_vectors(maps[layer], boxes, tuple(pixels.shape[-2:]))
            table = found.layers[layer, "local"]
            # random weights can make vectors alike; what counts is that another object's would be further off
            error, spread = np.abs(table[rows] - wanted.numpy()).max(), np.ptp(table, axis=0).max()
            assert error < 0.02 * spread, (layer, error, spread)
    apart = found.layers["backbone.c4", "local"]
    assert all(np.abs(apart - row).max(axis=1).argsort()[0] == place for place, row in enumerate(apart))
