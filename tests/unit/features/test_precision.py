"""Low precision only where the scores stay: what the table says is held against the scores themselves."""

import numpy as np
import pytest
import torch

import models_store
from models_store.archs import ARCHITECTURES
from models_store.manifest import Input, Manifest
from tests.unit.models_store.conftest import random_detector
from worker.data.dataset import open_dataset
from worker.data.ingest import ingest
from worker.features.errors import Unextractable
from worker.features.extract import extract
from worker.features.precision import AUTO, HELD, LOW, TOLERANCE, body_of, low_precision, precision_of
from worker.features.reading import reading_of
from worker.features.spec import Spec
from worker.metrics import FeatureSet, score

CPU = torch.device("cpu")


def manifest(architecture: str, backbone: str | None = None) -> Manifest:
    return Manifest(
        architecture=architecture,
        format="test",
        kind="detector",
        input=Input(),
        layers=(),
        backbone=backbone,
        parameters=0,
        source={},
        weights_sha256="0" * 64,
    )


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_a_cpu_computes_in_float32_whatever_the_network(name):
    assert precision_of(AUTO, manifest(name, "torchvision/resnet50"), CPU) == "float32"


@pytest.mark.parametrize(
    ("architecture", "backbone", "body", "low"),
    [
        ("torchvision/fasterrcnn_resnet50_fpn", None, "resnet50", "float16"),
        ("torchvision/maskrcnn_resnet50_fpn_v2", None, "resnet50", "float16"),
        ("torchvision/keypointrcnn_resnet50_fpn", None, "resnet50", "float16"),
        ("torchvision/retinanet_resnet50_fpn", None, "resnet50", "float16"),
        ("torchvision/fcos_resnet50_fpn", None, "resnet50", "float16"),
        ("torchvision/fasterrcnn_mobilenet_v3_large_320_fpn", None, "mobilenet_v3_large_320", None),
        ("torchvision/ssd300_vgg16", None, "ssd300_vgg16", None),
        ("detrank/fasterrcnn_fpn", "timm/resnext50_32x4d", "resnext50_32x4d", "float16"),
        ("detrank/maskrcnn_c4", "torchvision/wide_resnet50_2", "wide_resnet50_2", "float16"),
        ("detrank/fasterrcnn_fpn", "torchvision/mobilenet_v2", "mobilenet_v2", None),
        ("detrank/fasterrcnn_fpn", "timm/resnetv2_50", "resnetv2_50", None),
        ("detrank/deformable_detr", "torchvision/resnet50", "resnet50", None),
        ("transformers/detr", None, "detr", None),
    ],
)
def test_a_card_computes_in_float16_where_that_was_held(architecture, backbone, body, low):
    assert body_of(manifest(architecture, backbone)) == body
    assert low_precision(manifest(architecture, backbone), "cuda") == low


def test_a_precision_that_is_asked_for_is_taken_and_an_unknown_one_refused():
    assert precision_of("bfloat16", manifest("torchvision/ssd300_vgg16"), CPU) == "bfloat16"
    with pytest.raises(Unextractable) as caught:
        precision_of("int8", manifest("torchvision/ssd300_vgg16"), CPU)
    assert caught.value.code == "unknown_precision"
    assert "auto" in caught.value.detail


def test_an_old_card_computes_in_float32(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (6, 1))
    card = torch.device("cuda")
    assert precision_of(AUTO, manifest("torchvision/fasterrcnn_resnet50_fpn"), card) == "float32"
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    assert precision_of(AUTO, manifest("torchvision/fasterrcnn_resnet50_fpn"), card) == "float16"


@pytest.fixture(scope="module")
def bccd(shared_data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("bccd")
    ingest(shared_data / "datasets" / "bccd", folder)
    return open_dataset(folder)


def differences(detector, dataset, precision: str, images: int, size: int) -> dict[tuple, float]:
    """Of each held metric at each backbone stage: what the precision changes, of the value where that is above 1."""
    layers = tuple(layer.name for layer in detector.layers if layer.name.startswith("backbone."))
    spec = Spec(layers=layers, max_images=images, image_size=size, split=None)
    exact, low = (
        extract(reading_of(detector, dataset, spec, precision=each)) for each in ("float32", precision)
    )
    assert (exact.precision, low.precision, low.cost.precision) == ("float32", precision, precision)
    found = {}
    for place, table in exact.layers.items():
        values = [
            score(
                FeatureSet(each, exact.labels, exact.boxes, image_ids=exact.image_ids),
                HELD,
                permutations=0,
                groups=0,
            )
            for each in (table, low.layers[place])
        ]
        for metric in HELD:
            wanted, got = (each[metric].value for each in values)
            if wanted is not None:
                found[(*place, metric)] = abs(got - wanted) / max(1.0, abs(wanted))
    return found


@pytest.mark.parametrize(
    ("architecture", "backbone"),
    [("detrank/fasterrcnn_fpn", "torchvision/resnet18"), ("detrank/retinanet", "timm/resnet18")],
)
def test_float16_keeps_the_scores_of_residual_networks(architecture, backbone, bccd):
    """The arithmetic is the card's: float16 values, sums in float32. Pretrained weights were tried by hand.

    The H-score inverts a covariance that is nearly singular where a body is untrained and objects are few, so each kind
    of CPU rounds it otherwise: a tenfold tolerance.
    """
    detector = random_detector(architecture, backbone)
    assert low_precision(detector.manifest, "cuda") == "float16"
    found = differences(detector, bccd, "float16", images=24, size=96)
    assert len(found) >= 4 * len(HELD)
    beyond = {
        place: value
        for place, value in found.items()
        if value >= TOLERANCE * (10 if place[-1] == "h_score" else 1)
    }
    assert not beyond


def test_bfloat16_does_not_keep_the_scores_so_it_is_nobodys_default(shared_data, tmp_path, bccd):
    name = "mobilenet_v2_imagenet_b"
    weights = next((shared_data / "weights" / name).glob("*.safetensors"))
    models_store.convert(weights, tmp_path / name)
    detector = models_store.load_detector(tmp_path / name)
    found = differences(detector, bccd, "bfloat16", images=16, size=160)
    assert max(found.values()) > TOLERANCE
    assert not any(precision == "bfloat16" for rows in LOW.values() for _, precision in rows)


def test_the_precision_is_part_of_what_features_are_kept_under(bccd, tmp_path):
    detector = random_detector("detrank/fasterrcnn_fpn", "torchvision/resnet18")
    spec = Spec(max_images=2, image_size=64, split=None)
    first = extract(reading_of(detector, bccd, spec, precision="bfloat16"), cache=tmp_path)
    assert not extract(reading_of(detector, bccd, spec), cache=tmp_path).cached
    again = extract(reading_of(detector, bccd, spec, precision="bfloat16"), cache=tmp_path)
    assert again.cached
    assert (again.precision, again.cost) == ("bfloat16", first.cost)
    assert all(np.array_equal(again.layers[place], table) for place, table in first.layers.items())
