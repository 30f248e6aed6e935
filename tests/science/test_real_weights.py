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

from models_store import Detector, convert, load_detector

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
