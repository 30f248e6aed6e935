"""What runs for a layer: its own modules and those before it, no other; and the map is the one that all give together."""

import numpy as np
import pytest
import torch
from detr_configs import random_detr

from models_store.archs.necks import MERGED, _linear
from tests.unit.models_store.conftest import random_detector

torch.set_num_threads(1)
RCNN = "torchvision/fasterrcnn_resnet50_fpn"
# architecture, backbone, layer asked for, prefixes of modules that may not run
CASES = [
    (
        "detrank/fasterrcnn_fpn",
        "torchvision/resnet18",
        "backbone.c4",
        ["backbone.body.layer4", "backbone.fpn", "rpn", "roi_heads"],
    ),
    (
        "detrank/fasterrcnn_fpn",
        "torchvision/resnet18",
        "backbone.c1",
        ["backbone.body.layer", "backbone.fpn", "rpn", "roi_heads"],
    ),
    (
        "detrank/fasterrcnn_fpn",
        "torchvision/resnet18",
        "neck.p4",
        [
            "backbone.fpn.inner_blocks.0",
            "backbone.fpn.inner_blocks.1",
            *(f"backbone.fpn.layer_blocks.{i}" for i in (0, 1, 3)),
            "backbone.fpn.extra_blocks",
            "rpn",
            "roi_heads",
        ],
    ),
    (
        "detrank/fasterrcnn_fpn",
        "torchvision/resnet18",
        "neck.p6",
        [*(f"backbone.fpn.layer_blocks.{i}" for i in (0, 1, 2)), "rpn", "roi_heads"],
    ),
    (
        "detrank/fasterrcnn_fpn",
        "timm/vit_tiny_patch16_224",
        "neck.p3",
        ["backbone.fpn.up4", *(f"backbone.fpn.lateral.{i}" for i in (0, 2, 3)), "rpn"],
    ),
    (
        "torchvision/fasterrcnn_mobilenet_v3_large_320_fpn",
        None,
        "backbone.c4",
        ["backbone.body.13", "backbone.fpn", "rpn", "roi_heads"],
    ),
    (
        "detrank/retinanet",
        "torchvision/resnet18",
        "neck.p4",
        [
            "backbone.fpn.inner_blocks.0",
            "backbone.fpn.layer_blocks.0",
            "backbone.fpn.layer_blocks.2",
            "backbone.fpn.extra_blocks",
            "head",
        ],
    ),
    (
        "detrank/maskrcnn_c4",
        "torchvision/resnet18",
        "backbone.c4",
        ["backbone.body.layer4", "rpn", "roi_heads"],
    ),
    ("detrank/ssdlite_mobilenet_v2", None, "neck.p4", ["backbone.features.1", "backbone.extra", "head"]),
    ("detrank/ssdlite_mobilenet_v2", None, "neck.p6", [*(f"backbone.extra.{i}" for i in (1, 2, 3)), "head"]),
    (
        "torchvision/ssdlite320_mobilenet_v3_large",
        None,
        "backbone.c4",
        ["backbone.features.1", "backbone.extra", "head"],
    ),
    ("torchvision/ssd300_vgg16", None, "neck.p3", ["backbone.extra", "head"]),
    (
        "detrank/deformable_detr",
        "torchvision/resnet18",
        "backbone.c4",
        ["model.backbone.model.body.layer4", "model.encoder", "model.decoder", "model.input_proj"],
    ),
    (
        "detrank/deformable_detr",
        "torchvision/resnet18",
        "encoder.memory.l1",
        ["model.decoder", "class_embed", "bbox_embed"],
    ),
]
QUERY_BASED = [
    ("detr", "backbone.c4", ["model.backbone.model.encoder.stages.3", "model.encoder", "model.decoder"]),
    ("detr", "encoder.memory", ["model.decoder", "class_labels_classifier"]),
    ("rt_detr", "backbone.c3", ["model.backbone.model.encoder.stages.2", "model.encoder", "model.decoder"]),
    ("rt_detr", "encoder.memory.l0", ["model.decoder"]),
    ("rf_detr", "backbone.c3", ["model.backbone.projector", "model.decoder"]),
    ("yolos", "backbone.c4", ["class_labels_classifier", "bbox_predictor"]),
]


def calls(detector, pixels, layers):
    """How often each module ran, by name, and the maps."""
    counts: dict[str, int] = {}

    def counting(name):
        def hook(*_):
            counts[name] = counts.get(name, 0) + 1

        return hook

    named = [(name, part) for name, part in detector.module.named_modules() if name]
    handles = [part.register_forward_pre_hook(counting(name)) for name, part in named]
    try:
        maps = detector.feature_maps(pixels, layers)
    finally:
        for handle in handles:
            handle.remove()
    return counts, maps


def check(detector, layer, never):
    noise = np.random.default_rng(0).integers(0, 256, (96, 128, 3), dtype=np.uint8)
    pixels = detector.prepare([noise], 96)
    every = [each.name for each in detector.layers if each.kind == "map"]
    together, maps = calls(detector, pixels, every)
    alone, found = calls(detector, pixels, [layer])
    names = {name for name, _ in detector.module.named_modules()}
    for prefix in never:
        assert any(name.startswith(prefix) for name in names), f"there is no {prefix}"
        ran = [name for name in alone if name.startswith(prefix)]
        assert not ran, f"{layer} ran {ran[:3]}"
    assert all(alone[name] <= together.get(name, 0) for name in alone)
    torch.testing.assert_close(found[layer], maps[layer], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("architecture", "backbone", "layer", "never"), CASES)
def test_nothing_deeper_runs(architecture, backbone, layer, never):
    check(random_detector(architecture, backbone), layer, never)


@pytest.mark.parametrize(("name", "layer", "never"), QUERY_BASED)
def test_nothing_deeper_runs_of_transformers_detectors(name, layer, never):
    check(random_detector(f"transformers/{name}", module=random_detr(name)), layer, never)


@pytest.mark.parametrize(
    ("architecture", "backbone"),
    [
        ("detrank/fasterrcnn_fpn", "torchvision/resnet18"),
        ("detrank/fasterrcnn_fpn_v2", "torchvision/resnet18"),
        ("detrank/retinanet", "torchvision/resnet18"),
    ],
)
def test_a_pyramid_map_is_the_last_convolution_of_the_map_before(architecture, backbone):
    detector = random_detector(architecture, backbone)
    pixels = torch.randn(2, 3, 96, 128)
    levels = [
        each.name for each in detector.layers if each.name.startswith("neck.p") and detector.before(each.name)
    ]
    assert levels == [name for name in detector.face.neck.names if name in detector.face.roi_levels]
    maps = detector.feature_maps(pixels, levels)
    ran, before = calls(detector, pixels, [detector.before(name)[0] for name in levels])
    assert not any("layer_blocks" in name for name in ran)
    for name in levels:
        source, last = detector.before(name)
        assert source == name + MERGED
        torch.testing.assert_close(last(before[source]), maps[name])


def test_maps_that_are_no_convolution_of_another_say_so():
    for architecture, backbone in (
        ("detrank/ssdlite_mobilenet_v2", None),
        ("detrank/fasterrcnn_fpn", "timm/vit_tiny_patch16_224"),
        ("detrank/deformable_detr", "torchvision/resnet18"),
    ):
        detector = random_detector(architecture, backbone)
        assert not any(detector.before(layer.name) for layer in detector.layers)


def test_group_norms_behind_the_convolution_are_not_linear():
    convolution = torch.nn.Conv2d(4, 4, 3, padding=1)
    assert _linear(torch.nn.Sequential(convolution, torch.nn.BatchNorm2d(4)))
    assert not _linear(torch.nn.Sequential(convolution, torch.nn.GroupNorm(2, 4)))
    assert not _linear(torch.nn.Sequential(convolution, torch.nn.ReLU()))
    assert not _linear(torch.nn.Conv2d(4, 4, 3, stride=2, padding=1))
