"""torchvision's detectors as people assemble them: read from shapes, and what shapes do not tell is said or asked for."""

import json

import numpy as np
import pytest
import timm
import torch
import torchvision
from torch import nn
from torchvision.models.detection import FCOS, FasterRCNN, MaskRCNN, RetinaNet
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.backbone_utils import (
    BackboneWithFPN,
    mobilenet_backbone,
    resnet_fpn_backbone,
)
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.ops import MultiScaleRoIAlign
from torchvision.ops.feature_pyramid_network import LastLevelP6P7

from models_store import Unusable, load_detector
from models_store.formats.state import COUNTER
from tests.unit.models_store.conftest import asked_in
from tests.unit.models_store.family_table import furthest, measured

SIDE = 128
IMAGE = np.random.default_rng(0).integers(0, 256, (96, SIDE, 3), dtype=np.uint8)
SEEN = {"min_size": 96, "max_size": SIDE}
RATIOS = (0.5, 1.0, 2.0)
ALL_SIZES = (32, 64, 128, 256, 512)


def pool() -> dict:
    """A new one each time: it remembers the first strides that it saw."""
    return {"box_roi_pool": MultiScaleRoIAlign(["0"], 7, 2)}


def resnet(name: str = "resnet18", **given) -> nn.Module:
    return resnet_fpn_backbone(backbone_name=name, weights=None, trainable_layers=5, **given)


def single(net: nn.Module, channels: int) -> nn.Module:
    net.out_channels = channels
    return net


def one_map(levels: int = 1) -> AnchorGenerator:
    return AnchorGenerator((ALL_SIZES,) * levels, (RATIOS,) * levels)


class OwnWrapper(nn.Module):
    """A timm network with a pyramid, as people write it themselves."""

    def __init__(self) -> None:
        super().__init__()
        self.net = timm.create_model("resnet18", features_only=True, out_indices=(2, 3, 4))
        self.fpn = torchvision.ops.FeaturePyramidNetwork([128, 256, 512], 64)
        self.out_channels = 64

    def forward(self, x):
        return self.fpn({str(i): m for i, m in enumerate(self.net(x))})


def children(name: str, last: int) -> nn.Module:
    return nn.Sequential(*list(getattr(torchvision.models, name)(weights=None).children())[:last])


def narrow_head(width: int = 256) -> dict:
    return {"box_head": TwoMLPHead(width * 49, 128), "box_predictor": FastRCNNPredictor(128, 4)}


# name: (what builds it, architecture, body, words of a warning or none)
CASES = {
    "resnet fpn": (lambda: FasterRCNN(resnet(), 4), "detrank/fasterrcnn_fpn", "torchvision/resnet18", None),
    "mask rcnn": (lambda: MaskRCNN(resnet(), 4), "detrank/maskrcnn", "torchvision/resnet18", None),
    "retinanet, p6 of c5": (
        lambda: RetinaNet(resnet(returned_layers=[2, 3, 4], extra_blocks=LastLevelP6P7(512, 256)), 4),
        "detrank/retinanet",
        "torchvision/resnet18",
        "output",
    ),
    "retinanet, no p6": (
        lambda: RetinaNet(resnet(), 4),
        "detrank/retinanet",
        "torchvision/resnet18",
        "output",
    ),
    "fcos": (
        lambda: FCOS(resnet(returned_layers=[2, 3, 4], extra_blocks=LastLevelP6P7(256, 256)), 4),
        "detrank/fcos",
        "torchvision/resnet18",
        "output",
    ),
    "retinanet on one map": (
        lambda: RetinaNet(
            single(torchvision.models.mobilenet_v2(weights=None).features, 1280),
            4,
            anchor_generator=one_map(),
        ),
        "detrank/retinanet",
        "torchvision/mobilenet_v2",
        "options anchors",
    ),
    "torchvision's tutorial": (
        lambda: FasterRCNN(
            single(torchvision.models.mobilenet_v2(weights=None).features, 1280),
            4,
            rpn_anchor_generator=one_map(),
            **pool(),
        ),
        "detrank/fasterrcnn_fpn",
        "torchvision/mobilenet_v2",
        "options anchors",
    ),
    "a resnet's children, cut": (
        lambda: FasterRCNN(
            single(children("resnet18", -3), 256), 4, rpn_anchor_generator=one_map(), **pool()
        ),
        "detrank/fasterrcnn_fpn",
        "torchvision/resnet18",
        "options anchors",
    ),
    "mobilenet fpn": (
        lambda: FasterRCNN(
            mobilenet_backbone(backbone_name="mobilenet_v2", weights=None, fpn=True, trainable_layers=6),
            4,
            rpn_anchor_generator=one_map(3),
        ),
        "detrank/fasterrcnn_fpn",
        "torchvision/mobilenet_v2",
        "options pyramid",
    ),
    "15 anchors a level": (
        lambda: FasterRCNN(resnet(), 4, rpn_anchor_generator=one_map(5)),
        "detrank/fasterrcnn_fpn",
        "torchvision/resnet18",
        "options anchors",
    ),
    "three levels, narrow": (
        lambda: FasterRCNN(
            BackboneWithFPN(
                torchvision.models.resnet18(weights=None),
                {"layer1": "0", "layer2": "1", "layer3": "2"},
                [64, 128, 256],
                64,
            ),
            None,
            rpn_anchor_generator=AnchorGenerator(((32,), (64,), (128,), (256,)), (RATIOS,) * 4),
            box_roi_pool=MultiScaleRoIAlign(["0", "1", "2"], 7, 2),
            **narrow_head(64),
        ),
        "detrank/fasterrcnn_fpn",
        "torchvision/resnet18",
        "options anchors",
    ),
}


def built(case: str) -> nn.Module:
    torch.manual_seed(0)
    module = CASES[case][0]().eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, tensor in module.state_dict().items():
            if name.endswith("running_var"):
                tensor.uniform_(0.5, 1.5, generator=generator)
            elif name.endswith(("cls_score.weight", "cls_logits.weight", "bbox_ctrness.weight")):
                tensor.normal_(0, 0.05, generator=generator)
            elif name.endswith("cls_logits.bias"):
                tensor.zero_()
    module.transform.min_size, module.transform.max_size = (96,), SIDE
    return module


QUICK = ("resnet fpn", "retinanet, p6 of c5", "retinanet on one map", "mobilenet fpn")


@pytest.mark.parametrize(
    "case", [c if c in QUICK else pytest.param(c, marks=pytest.mark.slow) for c in CASES]
)
def test_it_predicts_what_its_builder_does(case, convert_inline, tmp_path):
    _, architecture, body, warning = CASES[case]
    module = built(case)
    torch.save(module.state_dict(), tmp_path / "x.pth")
    manifest = convert_inline(tmp_path / "x.pth", overrides=SEEN)
    assert (manifest.architecture, manifest.backbone) == (architecture, body)
    assert manifest.kind == "detector"
    assert all(layer.trained for layer in manifest.layers)
    if warning:
        assert any(warning in each for each in manifest.warnings)
    else:
        assert manifest.warnings == ()
    detector = load_detector(tmp_path / "converted")
    with torch.no_grad():
        expected = module([torch.from_numpy(IMAGE).permute(2, 0, 1) / 255.0])[0]
    found = detector.module([torch.from_numpy(IMAGE).permute(2, 0, 1) / 255.0])[0]
    assert len(expected["scores"]) > 0
    for key in ("boxes", "scores"):
        torch.testing.assert_close(found[key], expected[key], rtol=1e-4, atol=1e-4)
    measured(
        architecture.removeprefix("detrank/"),
        f"torchvision's class, {case}",
        "torchvision's own module",
        scores=furthest(found["scores"], expected["scores"]),
        boxes=furthest(found["boxes"], expected["boxes"]),
    )


def test_a_body_under_another_name_with_other_layers(convert_inline, tmp_path):
    torch.manual_seed(0)
    anchors = AnchorGenerator(((32,), (64,), (128,)), (RATIOS,) * 3)
    levels = MultiScaleRoIAlign(["0", "1", "2"], 7, 2)
    module = FasterRCNN(
        OwnWrapper(), None, rpn_anchor_generator=anchors, box_roi_pool=levels, **narrow_head(64)
    ).eval()
    for name, tensor in module.state_dict().items():
        if name.endswith("running_var"):
            tensor.uniform_(0.5, 1.5)
    torch.save(module.state_dict(), tmp_path / "x.pth")
    # Its pyramid has no pooled level, which no shape tells: the warning says how to say so.
    manifest = convert_inline(tmp_path / "x.pth", overrides=SEEN)
    assert manifest.backbone == "torchvision/resnet18"
    assert any("options anchors" in each for each in manifest.warnings)
    said = {
        "anchors": {"sizes": [[32], [64], [128]]},
        "pyramid": {"takes": ["c3", "c4", "c5"], "extra": "none"},
    }
    manifest = convert_inline(tmp_path / "x.pth", tmp_path / "said", overrides={**SEEN, "options": said})
    assert manifest.warnings == ()
    detector = load_detector(tmp_path / "said")
    assert [layer.name for layer in detector.layers if layer.name.startswith("neck.p")] == [
        "neck.p3",
        "neck.p4",
        "neck.p5",
    ]
    module.transform.min_size, module.transform.max_size = (96,), SIDE
    picture = [torch.from_numpy(IMAGE).permute(2, 0, 1) / 255.0]
    with torch.no_grad():
        torch.testing.assert_close(detector.module(picture)[0]["boxes"], module(picture)[0]["boxes"])


def test_anchors_of_an_unusual_number_are_asked_for(convert_inline, tmp_path):
    anchors = AnchorGenerator(((24, 48),) * 5, ((0.5, 1.0),) * 5)
    torch.manual_seed(0)
    module = FasterRCNN(resnet(), 4, rpn_anchor_generator=anchors).eval()
    torch.save(module.state_dict(), tmp_path / "x.pth")
    with pytest.raises(Unusable, match="4 anchors a cell on 5 levels") as refusal:
        convert_inline(tmp_path / "x.pth")
    assert refusal.value.code == "ambiguous"
    said = {"anchors": {"sizes": [[24, 48]] * 5, "aspect_ratios": [0.5, 1.0]}}
    manifest = convert_inline(tmp_path / "x.pth", tmp_path / "said", overrides={"options": said})
    assert asked_in(manifest) == ()
    wrong = {"anchors": {"sizes": [[24]] * 5}}
    with pytest.raises(Unusable, match="shape"):
        convert_inline(tmp_path / "x.pth", tmp_path / "wrong", overrides={"options": wrong})


@pytest.mark.slow
def test_a_last_pool_that_shapes_do_not_tell(convert_inline, tmp_path):
    torch.manual_seed(0)
    net = single(torchvision.models.vgg11(weights=None).features[:-1], 512)
    module = FasterRCNN(net, 4, rpn_anchor_generator=one_map(), **pool()).eval()
    torch.save(module.state_dict(), tmp_path / "x.pth")
    warning = next(w for w in convert_inline(tmp_path / "x.pth", overrides=SEEN).warnings if "pyramid" in w)
    given = warning.rsplit("options pyramid=", 1)[1].split(" ends")[0]
    said = {"pyramid": json.loads(given)}
    manifest = convert_inline(tmp_path / "x.pth", tmp_path / "said", overrides={**SEEN, "options": said})
    assert not any("pyramid" in each for each in manifest.warnings)
    module.transform.min_size, module.transform.max_size = (96,), SIDE
    picture = [torch.from_numpy(IMAGE).permute(2, 0, 1) / 255.0]
    with torch.no_grad():
        expected = module(picture)[0]["boxes"]
    torch.testing.assert_close(load_detector(tmp_path / "said").module(picture)[0]["boxes"], expected)


def test_frozen_norms_have_torchvisions_epsilon(convert_inline, tmp_path):
    torch.manual_seed(0)
    frozen = torchvision.ops.FrozenBatchNorm2d
    net = torchvision.models.mobilenet_v3_small(weights=None, norm_layer=frozen).features
    module = FasterRCNN(single(net, 576), 4, rpn_anchor_generator=one_map(), **pool()).eval()
    torch.save(module.state_dict(), tmp_path / "x.pth")
    assert not any(k.endswith(COUNTER) for k in module.state_dict())
    manifest = convert_inline(tmp_path / "x.pth", overrides=SEEN)
    assert manifest.options["norm_eps"] == 1e-5
    detector = load_detector(tmp_path / "converted")
    pixels = detector.prepare([IMAGE])
    with torch.no_grad():
        expected = module.backbone(pixels)
    torch.testing.assert_close(detector.feature_maps(pixels, ["backbone.c5"])["backbone.c5"], expected)


def test_what_differs_is_named_of_the_nearest_network(tmp_path, convert_inline):
    state = FasterRCNN(resnet(), 4).state_dict()
    lacking = {k: v for k, v in state.items() if not k.startswith("backbone.body.layer4.1.conv2")}
    torch.save(lacking, tmp_path / "x.pth")
    with pytest.raises(Unusable, match="detrank/fasterrcnn_fpn over torchvision/resnet18") as refusal:
        convert_inline(tmp_path / "x.pth")
    assert refusal.value.errors == [{"key": "backbone.body.layer4.1.conv2.weight", "message": "missing"}]
    changed = dict(state) | {"roi_heads.box_head.fc7.weight": torch.zeros(1024, 512)}
    torch.save(changed, tmp_path / "y.pth")
    with pytest.raises(Unusable, match="another shape") as refusal:
        convert_inline(tmp_path / "y.pth")
    assert [e["key"] for e in refusal.value.errors] == ["roi_heads.box_head.fc7.weight"]


def test_a_body_that_nobody_knows_is_said_to_be_that(tmp_path, convert_inline):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 16, 3, 2, 1))
    module = FasterRCNN(single(net, 16), 4, rpn_anchor_generator=one_map(), **pool())
    torch.save(module.state_dict(), tmp_path / "x.pth")
    with pytest.raises(Unusable, match="of no network that is known") as refusal:
        convert_inline(tmp_path / "x.pth")
    assert "resnet50" not in str(refusal.value)


@pytest.mark.slow
def test_a_step_of_training_and_a_new_head(convert_inline, tmp_path):
    for case in ("torchvision's tutorial", "fcos", "mask rcnn"):
        torch.save(built(case).state_dict(), tmp_path / "x.pth")
        convert_inline(tmp_path / "x.pth", tmp_path / case, overrides=SEEN)
        detector = load_detector(tmp_path / case)
        detector.replace_head(2, seed=0)
        detector.module.requires_grad_(True)
        target = {"boxes": torch.tensor([[5.0, 5.0, 60.0, 60.0]]), "labels": torch.tensor([1])}
        loss = sum(detector.losses([IMAGE], [target]).values())
        loss.backward()
        assert torch.isfinite(loss)
        assert all(torch.isfinite(p.grad).all() for p in detector.module.parameters() if p.grad is not None)
        assert len(detector.predictions([IMAGE])) == 1
