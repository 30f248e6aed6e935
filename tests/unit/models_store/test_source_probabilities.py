"""Source class probabilities: each family's own head, asked about given boxes, against the modules' own computation."""

from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn.functional import softmax
from torchvision.models.detection.image_list import ImageList
from torchvision.ops import box_iou

from models_store import load_detector
from models_store.archs.source import nearest_point
from models_store.manifest import Input, Manifest
from models_store.source import NoSourceClasses, no_source_classes, normalised_sigmoids
from tests.unit.models_store.conftest import random_module

CLASSES = 3
SIZE = 128
BOXES = [torch.tensor([[10.0, 12, 70, 80], [40, 30, 60, 110]]), torch.tensor([[5.0, 5, 120, 90]])]
DENSE = ["torchvision/retinanet_resnet50_fpn", "torchvision/fcos_resnet50_fpn"]
SSD = [
    pytest.param("torchvision/ssd300_vgg16", marks=pytest.mark.slow),
    "torchvision/ssdlite320_mobilenet_v3_large",
    "detrank/ssdlite_mobilenet_v2",
]


def detector_of(architecture: str, convert_inline, tmp_path: Path, num_classes: int = CLASSES):
    module = random_module(architecture, num_classes)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, tensor in module.named_parameters():
            # Fresh predictors are near 0, where all classes are alike whatever is read.
            if "cls_" in name or "classification_head.module_list" in name:
                tensor.add_(torch.randn(tensor.shape, generator=generator) * 0.02)
    torch.save(module.state_dict(), tmp_path / "weights.pth")
    said = {"num_classes": num_classes}
    manifest = convert_inline(tmp_path / "weights.pth", architecture=architecture, overrides=said)
    assert manifest.num_classes == num_classes
    return load_detector(tmp_path / "converted")


def pictures(height: int = 96, width: int = SIZE) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.integers(0, 255, (height, width, 3), dtype=np.uint8) for _ in BOXES]


def read(detector, pixels, image_hw, boxes=BOXES):
    names = detector.source_maps()
    assert not isinstance(names, NoSourceClasses), names
    return detector.source_probabilities(detector.feature_maps(pixels, names), boxes, image_hw)


def own_features(module, pixels: torch.Tensor) -> OrderedDict:
    """What torchvision's own forward gets from its backbone."""
    with torch.inference_mode():
        found = module.backbone(pixels)
    return found if isinstance(found, OrderedDict) else OrderedDict([("0", found)])


def test_two_stage_is_the_box_head_on_the_boxes(convert_inline, tmp_path) -> None:
    detector = detector_of("torchvision/fasterrcnn_mobilenet_v3_large_320_fpn", convert_inline, tmp_path)
    pixels = detector.prepare(pictures(), SIZE)
    image_hw = detector.resized(96, SIZE, SIZE)
    assert pixels.shape[-2:] != image_hw
    found = read(detector, pixels, image_hw)
    heads = detector.module.roi_heads
    with torch.inference_mode():
        pooled = heads.box_roi_pool(own_features(detector.module, pixels), BOXES, [image_hw] * 2)
        logits, _ = heads.box_predictor(heads.box_head(pooled))
    whole = softmax(logits, -1)
    wanted = whole[:, 1:] / (1 - whole[:, :1])
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-6)
    assert found.shape == (3, CLASSES)
    assert np.ptp(found.numpy(), axis=1).min() > 1e-3
    assert detector.source_probabilities(
        detector.feature_maps(pixels, detector.source_maps()), [BOXES[0][:0]] * 2, image_hw
    ).shape == (0, CLASSES)


@pytest.mark.parametrize("architecture", [*DENSE, *SSD])
def test_dense_is_the_score_where_the_box_is_matched(architecture: str, convert_inline, tmp_path) -> None:
    detector = detector_of(architecture, convert_inline, tmp_path)
    module = detector.module
    single_shot = "ssd" in architecture
    size = None if single_shot else SIZE
    pixels = detector.prepare(pictures(), size)
    image_hw = detector.resized(96, SIZE, size)
    scale = torch.tensor([image_hw[1] / SIZE, image_hw[0] / 96] * 2)
    boxes = [b * scale for b in BOXES]
    found = read(detector, pixels, image_hw, boxes)
    features = list(own_features(module, pixels).values())
    with torch.inference_mode():
        logits = module.head(features)["cls_logits"]
        anchors = module.anchor_generator(ImageList(pixels, [image_hw] * 2), features)[0]
    assert logits.shape[1] == len(anchors)
    rows = []
    for image, of_image in enumerate(boxes):
        for box in of_image:
            if "fcos" in architecture:
                # 128 pixels are in reach of the first two levels; of those the points around the centre.
                sides = anchors[:, 2] - anchors[:, 0]
                far = (box[2:] - box[:2]).max() / 2
                level = sides == (8 if far < 64 else 16)
                gap = ((anchors[:, :2] + anchors[:, 2:]) / 2 - (box[:2] + box[2:]) / 2).norm(dim=1)
                best = int(gap.masked_fill(~level, 1e9).argmin())
            else:
                best = int(box_iou(box[None], anchors)[0].argmax())
            rows.append(logits[image, best, 1:])
    raw = torch.stack(rows)
    positive = softmax(raw, -1) if single_shot else raw.sigmoid()
    torch.testing.assert_close(found, positive / positive.sum(1, keepdim=True), rtol=1e-4, atol=1e-6)
    assert found.shape == (3, CLASSES)


@pytest.mark.slow
def test_ssd300_reads_its_coarse_maps_too(convert_inline, tmp_path) -> None:
    """A box as large as the picture is matched on a map that is no layer of its own."""
    detector = detector_of("torchvision/ssd300_vgg16", convert_inline, tmp_path)
    module = detector.module
    pixels = detector.prepare(pictures()[:1])
    box = torch.tensor([[4.0, 4, 296, 296]])
    found = read(detector, pixels, (300, 300), [box])
    features = list(own_features(module, pixels).values())
    with torch.inference_mode():
        logits = module.head(features)["cls_logits"][0]
        anchors = module.anchor_generator(ImageList(pixels, [(300, 300)]), features)[0]
    best = int(box_iou(box, anchors).argmax())
    assert best >= len(anchors) - 4 * (9 + 1) - 6 * 25
    torch.testing.assert_close(found[0], softmax(logits[best, 1:], -1), rtol=1e-4, atol=1e-6)
    # A smaller input has no such map: the coarsest that there is stands in.
    small = detector.prepare(pictures()[:1], 128)
    assert read(detector, small, (128, 128), [box * 128 / 300]).sum() == pytest.approx(1)


def test_points_by_hand() -> None:
    """Two levels of 2x2 and 1x1 cells: 8 pixels reach 64, more goes to the second."""
    centres = torch.tensor([[4.0, 4], [12, 4], [4, 12], [12, 12], [8, 8]])
    half = torch.tensor([4.0, 4, 4, 4, 8])[:, None]
    anchors = torch.cat([centres - half, centres + half], 1)
    boxes = torch.tensor([[9.0, 0, 15, 6], [0, 9, 7, 15], [-60, -60, 68, 68], [-56, 0, 71.9, 20]])
    # Reach: 3, 3.5, 64 (not below 64), 63.95; the last one's centre is (7.95, 10).
    assert nearest_point(boxes, anchors, [4, 1]).tolist() == [1, 2, 4, 2]


def test_sigmoids_by_hand() -> None:
    logits = torch.tensor([[0.0, np.log(3.0)], [-200.0, -201.0]])
    found = normalised_sigmoids(logits)
    torch.testing.assert_close(found[0], torch.tensor([0.5, 0.75]) / 1.25)
    torch.testing.assert_close(found[1], softmax(torch.tensor([1.0, 0.0]), 0))


def test_a_batch_gives_what_single_pictures_give(convert_inline, tmp_path) -> None:
    detector = detector_of("detrank/ssdlite_mobilenet_v2", convert_inline, tmp_path)
    images = pictures()
    together = read(detector, detector.prepare(images), (300, 300), [b * 2 for b in BOXES])
    for row, image in ((slice(0, 2), 0), (slice(2, 3), 1)):
        alone = read(detector, detector.prepare(images[image : image + 1]), (300, 300), [BOXES[image] * 2])
        torch.testing.assert_close(together[row], alone, rtol=1e-4, atol=1e-6)


def test_no_classes_from_a_placed_backbone_or_a_new_head(convert_inline, tmp_path) -> None:
    detector = detector_of("detrank/ssdlite_mobilenet_v2", convert_inline, tmp_path)
    assert not isinstance(detector.source_maps(), NoSourceClasses)
    detector.replace_head(5, seed=0)
    reason = detector.source_maps()
    assert isinstance(reason, NoSourceClasses)
    assert reason.code == "untrained_head"
    assert "head.classification_head" in reason.detail
    with pytest.raises(ValueError, match="not trained"):
        detector.source_probabilities({}, BOXES, (300, 300))

    found = no_source_classes(plain_manifest().but(kind="backbone"), ("head.",))
    assert found is not None
    assert (found.code, "backbone alone" in found.detail) == ("untrained_head", True)


def plain_manifest() -> Manifest:
    return Manifest(
        architecture="a",
        format="x",
        kind="detector",
        input=Input(),
        layers=(),
        parameters=0,
        source={},
        weights_sha256="0" * 64,
        num_classes=4,
    )


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({}, None),
        ({"num_classes": 1}, "class_agnostic"),
        ({"num_classes": None}, "class_agnostic"),
        ({"format": "detreg_detr"}, "class_agnostic"),
        ({"format": "detr_wsod"}, "untrained_head"),
        ({"initialised_keys": ("head.cls.weight",)}, "untrained_head"),
        ({"initialised_keys": ("mask.weight",)}, None),
    ],
)
def test_whose_head_says_something(changes: dict, code: str | None) -> None:
    found = no_source_classes(plain_manifest().but(**changes), ("head.",))
    assert (found and found.code) == code
