"""Query-based detectors through worker.features: each row is the vector of its own object, in any batch."""

import json
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import torch
from detr_configs import random_detr

from models_store import archives, load_detector
from models_store.conversion import Request, convert_here
from models_store.detr.maps import MATCHED
from models_store.limits import Limits
from models_store.load import digest_of
from worker.data.dataset import Dataset
from worker.features.extract import extract
from worker.features.pool import local_vectors
from worker.features.reading import reading_of
from worker.features.spec import Spec

torch.set_num_threads(1)
SHORT = 96


def detector_of(name: str, tmp_path: Path):
    module = random_detr(name)
    folder = tmp_path / "model"
    module.save_pretrained(folder)
    size = (
        {"height": SHORT, "width": SHORT}
        if name in ("rt_detr", "rf_detr")
        else {"shortest_edge": SHORT, "longest_edge": 2 * SHORT}
    )
    (folder / "preprocessor_config.json").write_text(json.dumps({"size": size}))
    packed = archives.pack(folder, tmp_path)
    out = tmp_path / "out"
    out.mkdir()
    convert_here(Request(packed, digest_of(packed), "folder", out, None, None, {}, Limits()))
    return load_detector(out)


@pytest.mark.parametrize("name", ["detr", "deformable_detr_two_stage", "rt_detr", "rf_detr", "yolos"])
def test_a_row_is_the_vector_of_its_object(name: str, dataset: Dataset, tmp_path: Path) -> None:
    detector = detector_of(name, tmp_path)
    names = tuple(layer.name for layer in detector.layers)
    spec = Spec(layers=names, levels=("local", "global"))
    found = extract(reading_of(detector, dataset, spec), batch_size=3, decode_threads=3)
    assert found.annotation_ids.tolist() == sorted(dataset.annotation_ids.tolist())
    files = {image.id: image for image in dataset.images}
    rows = {int(a): row for row, a in enumerate(dataset.annotation_ids)}
    for row, annotation in enumerate(found.annotation_ids.tolist()):
        image = files[int(found.image_ids[row])]
        assert image.id == dataset.annotation_image_ids[rows[annotation]]
        assert found.labels[row] == dataset.labels[rows[annotation]]
        pixels = np.array(PIL.Image.open(image.path).convert("RGB"))
        prepared = detector.prepare([pixels])
        height, width = prepared.shape[-2:]
        assert (height, width) == detector.resized(image.height, image.width, None)
        scale = np.array([width / image.width, height / image.height] * 2)
        mine = [
            torch.tensor(dataset.boxes[rows[a]] * scale, dtype=torch.float32)
            for a in found.annotation_ids.tolist()
            if dataset.annotation_image_ids[rows[a]] == image.id
        ]
        index = [
            a for a in found.annotation_ids.tolist() if dataset.annotation_image_ids[rows[a]] == image.id
        ].index(annotation)
        boxes = [torch.stack(mine)]
        for layer in detector.layers:
            maps = detector.feature_maps(prepared, detector.map_layers(layer.name))
            if layer.kind == "map":
                wanted = local_vectors(maps[layer.name], boxes, (height, width))[index]
            else:
                wanted = detector.object_features(maps, boxes, (height, width), layer.name)[index]
            np.testing.assert_allclose(
                found.layers[layer.name, "local"][row],
                wanted.numpy(),
                rtol=1e-4,
                atol=1e-5,
                err_msg=layer.name,
            )
            coarsest = maps[detector.map_layers(layer.name)[-1]]
            np.testing.assert_allclose(
                found.layers[layer.name, "global"][row],
                coarsest.mean((2, 3))[0].numpy(),
                rtol=1e-4,
                atol=1e-5,
            )
    assert (
        np.ptp(found.layers["backbone.c4" if name != "rf_detr" else "backbone.c3", "local"], axis=0).max()
        > 1e-3
    )
    assert found.layers[MATCHED, "local"].shape == (10, detector.layers[-1].channels)


def test_the_smaller_image_size_is_kept_to(dataset: Dataset, tmp_path: Path) -> None:
    detector = detector_of("deformable_detr", tmp_path)
    seen = []
    detector.module.model.backbone.model.register_forward_pre_hook(
        lambda _, given: seen.append(given[0].shape[-2:])
    )
    extract(reading_of(detector, dataset, Spec(image_size=96)))
    assert {tuple(shape) for shape in seen} == {(96, 128), (128, 96), (96, 96)}
