"""Backbones of every kind in the Faster R-CNN: maps, object features and predictions, with a seeded head."""

import numpy as np
import pytest
import torch

from models_store.archs.pyramid import SimplePyramid
from models_store.bodies.build import build_body
from models_store.build import COUNTER, architecture_of, build_module, fill, layers_of
from models_store.detector import TorchvisionDetector
from models_store.errors import Unusable
from models_store.manifest import Input, Manifest

SIZE = 96


def placed(backbone: str) -> TorchvisionDetector:
    architecture = architecture_of("detrank/fasterrcnn_fpn")
    spec = Input(min_size=SIZE, max_size=2 * SIZE)
    module = build_module(architecture, num_classes=None, input=spec, backbone=backbone, options={})
    trained = {k: v for k, v in module.state_dict().items() if k.startswith("backbone.body.")}
    fresh = tuple(k for k in module.state_dict() if k not in trained and not k.endswith(COUNTER))
    fill(module, trained, fresh, seed=0)
    face = architecture.face(module)
    manifest = Manifest(
        architecture=architecture.name,
        format="test",
        kind="backbone",
        input=spec,
        layers=layers_of(face, fresh),
        parameters=1,
        source={},
        weights_sha256="",
        backbone=backbone,
        initialised_keys=fresh,
    )
    return TorchvisionDetector(manifest, module, face)


@pytest.mark.parametrize(
    ("backbone", "levels"),
    [
        ("torchvision/resnet18", ["p2", "p3", "p4", "p5", "p6"]),
        ("torchvision/squeezenet1_1", ["p2", "p3", "p4", "p5"]),
        ("torchvision/shufflenet_v2_x0_5", ["p2", "p3", "p4", "p5", "p6"]),
        ("timm/convnext_atto", ["p2", "p3", "p4", "p5", "p6"]),
        ("timm/vit_tiny_patch16_224", ["p2", "p3", "p4", "p5", "p6"]),
        ("timm/vit_small_patch14_dinov2", ["p2", "p3", "p4", "p5", "p6"]),
        ("timm/vit_small_patch8_224", ["p1", "p2", "p3", "p4", "p5"]),
    ],
)
def test_any_backbone_reads_predicts_and_takes_a_new_head(backbone, levels):
    detector = placed(backbone)
    assert [layer.name for layer in detector.layers if layer.name.startswith("neck.p")] == [
        f"neck.{p}" for p in levels
    ]
    assert not any(layer.trained for layer in detector.layers if not layer.name.startswith("backbone."))
    image = np.random.default_rng(0).integers(0, 256, (60, 90, 3), dtype=np.uint8)
    pixels = detector.prepare([image])
    names = [layer.name for layer in detector.layers if layer.kind == "map"]
    maps = detector.feature_maps(pixels, names)
    for layer in detector.layers:
        if layer.kind == "map":
            assert abs(maps[layer.name].shape[-1] - pixels.shape[-1] / layer.stride) <= 2
    boxes = [torch.tensor([[5.0, 5.0, 80.0, 70.0]])]
    for name, width in (("neck.roi", 256), ("head.penultimate", 1024)):
        rows = detector.object_features(maps, boxes, detector.resized(60, 90, None), name)
        assert rows.shape == (1, width)
        assert torch.isfinite(rows).all()
        assert rows.std() > 0
    assert set(detector.predictions([image])[0]) == {"boxes", "labels", "scores"}
    detector.replace_head(5, seed=1)
    assert detector.module.roi_heads.box_predictor.cls_score.out_features == 6


def test_grid_of_a_patch_of_14_has_stride_16():
    body = build_body("timm/vit_small_patch14_dinov2").eval()
    assert [(s.name, s.stride) for s in body.stages] == [("c4", 16)]
    with torch.no_grad():
        assert body.run(torch.zeros(1, 3, 160, 224), ["c4"])["c4"].shape == (1, 384, 10, 14)


def test_simple_pyramid_has_strides_of_a_quarter_to_two():
    with torch.no_grad():
        maps = SimplePyramid(8, 16)(torch.rand(1, 8, 10, 12))
    assert [tuple(m.shape) for m in maps] == [
        (1, 16, 40, 48),
        (1, 16, 20, 24),
        (1, 16, 10, 12),
        (1, 16, 5, 6),
    ]


@pytest.mark.parametrize("name", ["timm/levit_128", "timm/crossvit_tiny_240"])
def test_networks_of_one_input_size_are_refused(name):
    with pytest.raises(Unusable, match="cannot be placed") as refusal:
        build_body(name)
    assert refusal.value.code == "unknown_architecture"
