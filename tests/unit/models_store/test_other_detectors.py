"""Detectors of other libraries: body and pyramid are taken exactly, the rest is new and said to be."""

from collections import OrderedDict

import pytest
import torch
import torchvision
from torch import Tensor
from torchvision.ops import FeaturePyramidNetwork
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool

from models_store import Unusable, formats, load_detector
from models_store.formats.detectron2 import to_detectron2
from models_store.formats.wrappings import unwrap
from tests.unit.models_store.family_table import furthest, measured
from tests.unit.models_store.test_unknowable import body_of, picture

CHANNELS = (64, 128, 256, 512)


@pytest.fixture(scope="module")
def parts() -> tuple[torchvision.models.ResNet, FeaturePyramidNetwork]:
    torch.manual_seed(0)
    net = torchvision.models.resnet18(weights=None)
    for part in net.modules():
        if isinstance(part, torch.nn.BatchNorm2d):
            part.running_mean.normal_(0, 0.1)
            part.running_var.uniform_(0.5, 1.5)
    return net.eval(), FeaturePyramidNetwork(list(CHANNELS), 256, LastLevelMaxPool()).eval()


@torch.no_grad()
def plain_maps(parts, pixels: Tensor) -> OrderedDict:
    net, fpn = parts
    x = net.maxpool(net.relu(net.bn1(net.conv1(pixels))))
    maps = OrderedDict()
    for index, stage in enumerate((net.layer1, net.layer2, net.layer3, net.layer4)):
        maps[str(index)] = x = stage(x)
    return fpn(maps)


def detectron2_file(parts) -> dict:
    net, fpn = parts
    tensors = {f"backbone.bottom_up.{to_detectron2(k)}": v for k, v in body_of(net).items()}
    for level in range(4):
        for leaf in ("weight", "bias"):
            tensors[f"backbone.fpn_lateral{level + 2}.{leaf}"] = getattr(fpn.inner_blocks[level][0], leaf)
            tensors[f"backbone.fpn_output{level + 2}.{leaf}"] = getattr(fpn.layer_blocks[level][0], leaf)
    tensors |= {
        "proposal_generator.rpn_head.conv.weight": torch.zeros(256, 256, 3, 3),
        "roi_heads.box_head.fc1.weight": torch.zeros(1024, 256 * 49),
        "roi_heads.box_predictor.cls_score.weight": torch.zeros(4, 1024),
        "pixel_mean": torch.tensor([123.675, 116.28, 103.53])[:, None, None],
        "pixel_std": torch.tensor([58.395, 57.12, 57.375])[:, None, None],
    }
    return {"model": tensors, "iteration": 9}


def mmdetection_file(parts) -> dict:
    net, fpn = parts
    tensors = {f"backbone.{k}": v for k, v in body_of(net).items()}
    for level in range(4):
        for leaf in ("weight", "bias"):
            tensors[f"neck.lateral_convs.{level}.conv.{leaf}"] = getattr(fpn.inner_blocks[level][0], leaf)
            tensors[f"neck.fpn_convs.{level}.conv.{leaf}"] = getattr(fpn.layer_blocks[level][0], leaf)
    tensors |= {
        "rpn_head.rpn_cls.weight": torch.zeros(3, 256, 1, 1),
        "roi_head.bbox_head.fc_cls.bias": torch.zeros(4),
    }
    return {"state_dict": tensors, "meta": {"epoch": 12}}


FILES = {"detectron2": detectron2_file, "mmdetection": mmdetection_file}


@pytest.mark.parametrize("format", FILES)
def test_body_and_pyramid_are_the_originals(parts, format, convert_inline, tmp_path):
    torch.save(FILES[format](parts), tmp_path / "x.pth")
    manifest = convert_inline(tmp_path / "x.pth")
    assert (manifest.format, manifest.kind, manifest.backbone) == (format, "backbone", "torchvision/resnet18")
    trained = {layer.name: layer.trained for layer in manifest.layers}
    assert all(trained[name] for name in ("neck.p2", "neck.p5", "neck.roi"))
    assert not trained["head.penultimate"]
    assert any("were taken" in note for note in manifest.notes)
    detector = load_detector(tmp_path / "converted")
    pixels = detector.prepare([picture()], 96)
    expected = plain_maps(parts, pixels)
    ours = detector.feature_maps(pixels, ["neck.p2", "neck.p5"])
    assert float((ours["neck.p2"] - expected["0"]).abs().max()) < 1e-5
    assert float((ours["neck.p5"] - expected["3"]).abs().max()) < 1e-5
    measured(
        "body and pyramid (heads new)",
        format,
        "torchvision's ResNet and pyramid",
        maps=max(furthest(ours["neck.p2"], expected["0"]), furthest(ours["neck.p5"], expected["3"])),
    )


def test_pixels_beside_the_weights_settle_order_and_scale(parts, convert_inline, tmp_path):
    file = detectron2_file(parts)
    torch.save(file, tmp_path / "rgb.pth")
    manifest = convert_inline(tmp_path / "rgb.pth")
    assert manifest.input.mean == pytest.approx((0.485, 0.456, 0.406))
    assert manifest.input.std == pytest.approx((0.229, 0.224, 0.225))
    assert "channel_order" not in manifest.source
    for key in ("pixel_mean", "pixel_std"):
        file["model"][key] = file["model"][key].flip(0)
    torch.save(file, tmp_path / "bgr.pth")
    manifest = convert_inline(tmp_path / "bgr.pth", tmp_path / "bgr")
    assert manifest.source["channel_order"] == "bgr"
    assert manifest.input.mean == pytest.approx((0.485, 0.456, 0.406))
    image = picture()
    rgb, bgr = load_detector(tmp_path / "converted"), load_detector(tmp_path / "bgr")
    swapped = bgr.prepare([image[..., ::-1].copy()], 96)
    # The turned network on the turned picture is the first one, but for the mean's and std's order.
    scale = torch.tensor(bgr.manifest.input.std)[None, :, None, None]
    shift = torch.tensor(bgr.manifest.input.mean)[None, :, None, None]
    same = (((swapped * scale + shift).flip(1)) - shift) / scale
    a = rgb.feature_maps(same, ["backbone.c5"])["backbone.c5"]
    b = bgr.feature_maps(same.flip(1), ["backbone.c5"])["backbone.c5"]
    assert float((a - b).abs().max()) < 1e-4


def test_a_pyramid_does_not_follow_into_another_architecture(parts):
    found = formats.recognise(unwrap(mmdetection_file(parts), ordered=True), "detrank/retinanet")
    assert not any("fpn" in key for key in found.tensors)
    assert "backbone.fpn.inner_blocks.0.0.weight" in found.dropped


def test_an_unknown_body_of_mmdetection_says_what_is_left_to_do():
    tensors = {"backbone.stages.0.weight": torch.zeros(3, 3), "bbox_head.fc.weight": torch.zeros(2, 2)}
    with pytest.raises(Unusable, match=r"detector of mmdetection.*architecture=timm") as refusal:
        formats.recognise(unwrap({"state_dict": tensors}, ordered=True))
    assert refusal.value.code == "unknown_architecture"


def test_body_of_any_detector_can_be_taken(parts):
    """A detector that nobody knows, with a body that is known: refused with an advice that works."""
    tensors = {f"model.backbone.{k}": v for k, v in body_of(parts[0]).items()}
    tensors |= {"model.decoder.0.weight": torch.zeros(3, 3), "criterion.w": torch.zeros(1)}
    with pytest.raises(Unusable, match="take=body") as refusal:
        formats.recognise(unwrap({"state_dict": tensors}, ordered=True))
    assert refusal.value.code == "unknown_architecture"
    found = formats.recognise(unwrap({"state_dict": tensors}, ordered=True), take="body")
    assert (found.kind, found.backbone) == ("backbone", "torchvision/resnet18")
    assert any(key.endswith("decoder.0.weight") for key in found.dropped)
