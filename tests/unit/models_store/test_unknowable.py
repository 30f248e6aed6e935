"""Facts that a file cannot tell: given ones are used exactly, missing ones are asked for or stand in a warning."""

import argparse
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
import torchvision
from torch import Tensor

from models_store import Unusable, formats, load_detector
from models_store.formats.wrappings import unwrap
from tests.unit.models_store.conftest import asked_in, random_module

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
# of predictions; a detector's own size takes seconds for one picture
SEEN = {"min_size": 128, "max_size": 256}


def picture(height: int = 96, width: int = 128) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def caffe_resnet50() -> torchvision.models.ResNet:
    """Strides in the 1x1, statistics merged into learned scales."""
    torch.manual_seed(0)
    net = torchvision.models.resnet50(weights=None)
    for stage in (net.layer2, net.layer3, net.layer4):
        stage[0].conv1.stride, stage[0].conv2.stride = (2, 2), (1, 1)
    with torch.no_grad():
        for part in net.modules():
            if isinstance(part, torch.nn.BatchNorm2d):
                part.weight.uniform_(0.8, 1.2)
                part.bias.normal_(0, 0.1)
    return net.eval()


@torch.no_grad()
def caffe_map(net: torchvision.models.ResNet, image: np.ndarray) -> Tensor:
    """c5 of the picture as Caffe's code sees it: BGR in 0 to 255, its mean subtracted."""
    bgr = torch.from_numpy(image[..., ::-1].copy()).permute(2, 0, 1).float()
    x = (bgr - torch.tensor([103.53, 116.28, 123.675])[:, None, None])[None]
    x = net.maxpool(net.relu(net.bn1(net.conv1(x))))
    return net.layer4(net.layer3(net.layer2(net.layer1(x))))


def body_of(net: torch.nn.Module) -> dict[str, Tensor]:
    return {k: v for k, v in net.state_dict().items() if not k.startswith("fc.")}


def c5(folder: Path, image: np.ndarray) -> Tensor:
    detector = load_detector(folder)
    pixels = detector.prepare([image], min(image.shape[:2]))
    return detector.feature_maps(pixels, ["backbone.c5"])["backbone.c5"]


def relative(a: Tensor, b: Tensor) -> float:
    return float((a - b).abs().max() / b.abs().max())


def test_caffe_body_is_known_by_its_norms_and_read_as_it_was_trained(convert_inline, tmp_path):
    net = caffe_resnet50()
    torch.save(body_of(net), tmp_path / "x.pth")
    manifest = convert_inline(tmp_path / "x.pth")
    assert manifest.backbone == "detrank/resnet50_caffe"
    assert manifest.source["channel_order"] == "bgr"
    assert "BGR" in manifest.warnings[-1]
    expected = caffe_map(net, picture())
    assert relative(c5(tmp_path / "converted", picture()), expected) < 1e-5
    # What it was read as before: another network.
    asked = {"channel_order": "rgb", "options": {"stride_in_1x1": False}}
    plain = convert_inline(tmp_path / "x.pth", tmp_path / "plain", overrides=asked)
    assert plain.backbone == "torchvision/resnet50"
    assert "channel_order" not in plain.source
    assert plain.warnings == manifest.warnings[:-1]
    assert relative(c5(tmp_path / "plain", picture()), expected) > 1e-2


def test_caffe_body_inside_a_detector(convert_inline, tmp_path):
    module = random_module("torchvision/fasterrcnn_resnet50_fpn")
    body = {f"backbone.body.{k}": v for k, v in body_of(caffe_resnet50()).items()}
    torch.save(module.state_dict() | body, tmp_path / "x.pth")
    manifest = convert_inline(tmp_path / "x.pth")
    assert manifest.options["stride_in_1x1"] is True
    expected = caffe_map(caffe_resnet50(), picture())
    assert relative(c5(tmp_path / "converted", picture()), expected) < 1e-5


def test_given_pixels_in_either_unit_and_order(convert_inline, tmp_path):
    torch.save(body_of(torchvision.models.squeezenet1_1(weights=None)), tmp_path / "x.pth")
    asked = {"channel_order": "bgr", "mean": [103.53, 116.28, 123.675], "std": [57.375, 57.12, 58.395]}
    manifest = convert_inline(tmp_path / "x.pth", overrides=asked | {"min_size": 320, "max_size": 640})
    assert (manifest.input.mean, manifest.input.std) == (
        pytest.approx(IMAGENET[0]),
        pytest.approx(IMAGENET[1]),
    )
    assert (manifest.input.min_size, manifest.input.max_size) == (320, 640)
    assert manifest.source["channel_order"] == "bgr"
    for wrong in ({"channel_order": "gbr"}, {"min_size": 900, "max_size": 600}):
        with pytest.raises(Unusable) as refusal:
            convert_inline(tmp_path / "x.pth", overrides=wrong)
        assert refusal.value.code == "bad_override"


def test_norms_that_were_never_trained_are_not_caffes(convert_inline, tmp_path):
    torch.save(body_of(torchvision.models.resnet18(weights=None)), tmp_path / "x.pth")
    manifest = convert_inline(tmp_path / "x.pth")
    assert manifest.backbone == "torchvision/resnet18"
    assert manifest.input.std == IMAGENET[1]


@pytest.mark.parametrize("name", ["torchvision/retinanet_resnet50_fpn", "torchvision/fcos_resnet50_fpn"])
@pytest.mark.parametrize("outputs", [1, 3])
def test_labels_from_nought_or_one_are_asked_for(convert_inline, tmp_path, name, outputs):
    """All outputs are kept meanwhile; what is said afterwards decides."""
    builder = torchvision.models.get_model(
        name.removeprefix("torchvision/"), weights=None, weights_backbone=None, num_classes=outputs, **SEEN
    )
    torch.save(builder.state_dict(), tmp_path / "x.pth")
    manifest = convert_inline(tmp_path / "x.pth")
    assert (manifest.num_classes, manifest.has_background) == (outputs, False)
    assert "class_names or num_classes" in manifest.warnings[-1]
    detector = load_detector(tmp_path / "converted")
    with torch.no_grad():
        own = builder.eval()([torch.from_numpy(picture()).permute(2, 0, 1) / 255.0])[0]
    found = detector.predictions([picture()], image_size=SEEN["min_size"])[0]
    torch.testing.assert_close(found["boxes"], own["boxes"])
    assert torch.equal(found["labels"], own["labels"])
    said = convert_inline(tmp_path / "x.pth", tmp_path / "said", overrides={"num_classes": outputs})
    assert (said.num_classes, said.has_background, asked_in(said)) == (outputs, False, ())
    if outputs > 1:
        names = [f"c{i}" for i in range(outputs - 1)]
        named = convert_inline(tmp_path / "x.pth", tmp_path / "named", overrides={"class_names": names})
        assert (named.num_classes, named.has_background, asked_in(named)) == (outputs - 1, True, ())
        # our own file says it itself
        again = convert_inline(tmp_path / "named" / "weights.safetensors", tmp_path / "again")
        assert (again.num_classes, again.has_background) == (outputs - 1, True)
    with pytest.raises(Unusable, match=f"give {outputs} "):
        convert_inline(tmp_path / "x.pth", overrides={"num_classes": outputs + 1})


def test_a_fresh_head_counts_from_one_again(convert_inline, tmp_path):
    torch.save(random_module("torchvision/fcos_resnet50_fpn").state_dict(), tmp_path / "x.pth")
    convert_inline(tmp_path / "x.pth")
    detector = load_detector(tmp_path / "converted")
    detector.replace_head(2, seed=0)
    assert detector.manifest.has_background
    assert "labels_from" not in detector.manifest.options
    assert detector.module.head.classification_head.cls_logits.out_channels == 3
    assert (detector.predictions([picture()])[0]["labels"] >= 0).all()


def timm_training(name: str, **args: object) -> dict:
    state = timm.create_model(name).state_dict()
    average = {k: v + 1 if v.is_floating_point() else v for k, v in state.items()}
    return {
        "epoch": 3,
        "arch": name,
        "state_dict": state,
        "state_dict_ema": average,
        "args": argparse.Namespace(model=name, **args),
        "metric": 70.0,
    }


def test_what_timms_training_says_outranks_shapes(convert_inline, tmp_path):
    torch.save(timm_training("tf_efficientnet_lite0"), tmp_path / "x.pth")
    manifest = convert_inline(tmp_path / "x.pth")
    assert manifest.backbone == "timm/tf_efficientnet_lite0"
    assert manifest.input.mean == (0.5, 0.5, 0.5)
    assert manifest.warnings == ()
    assert any("state_dict_ema was taken" in note for note in manifest.notes)
    pixels = {"mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6]}
    torch.save(timm_training("resnetblur18", **pixels), tmp_path / "y.pth")
    manifest = convert_inline(tmp_path / "y.pth", tmp_path / "other")
    assert manifest.backbone == "timm/resnetblur18"
    assert (manifest.input.mean, manifest.input.std) == ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))


def test_a_twin_of_other_normalisation_is_a_question(convert_inline, tmp_path):
    torch.save(timm.create_model("efficientnet_lite0").state_dict(), tmp_path / "x.pth")
    with pytest.raises(Unusable, match="tf_efficientnet_lite0") as refusal:
        convert_inline(tmp_path / "x.pth")
    assert refusal.value.code == "ambiguous"
    # The advice works, in both of its ways.
    named = convert_inline(tmp_path / "x.pth", architecture="timm/tf_efficientnet_lite0")
    assert (named.input.mean, asked_in(named)) == ((0.5, 0.5, 0.5), ())
    half = [0.5, 0.5, 0.5]
    given = convert_inline(tmp_path / "x.pth", tmp_path / "given", overrides={"mean": half, "std": half})
    assert given.input.mean == (0.5, 0.5, 0.5)
    assert "tf_efficientnet_lite0" in asked_in(given)[0]


def test_a_twin_that_computes_otherwise_is_warned_of():
    found = formats.recognise(unwrap(torchvision.models.resnet18(weights=None).state_dict(), ordered=True))
    assert found.open_input == ""
    assert any("timm/resnetblur18" in warning for warning in found.warnings)
    named = formats.recognise(
        unwrap(torchvision.models.resnet18(weights=None).state_dict(), ordered=True), "torchvision/resnet18"
    )
    assert named.warnings == ()


def test_other_anchors_are_used_and_must_fit(convert_inline, tmp_path):
    module = random_module("torchvision/fasterrcnn_resnet50_fpn")
    torch.save(module.state_dict(), tmp_path / "x.pth")
    sizes = [[8], [16], [32], [64], [128]]
    anchors = {"sizes": sizes, "aspect_ratios": [0.5, 1.0, 2.0]}
    convert_inline(tmp_path / "x.pth", overrides={"options": {"anchors": anchors}})
    detector = load_detector(tmp_path / "converted")
    assert detector.module.rpn.anchor_generator.sizes == tuple((float(s[0]),) for s in sizes)
    module.rpn.anchor_generator = torchvision.models.detection.anchor_utils.AnchorGenerator(
        tuple(tuple(s) for s in sizes), ((0.5, 1.0, 2.0),) * 5
    )
    module.transform.min_size, module.transform.max_size = (SEEN["min_size"],), SEEN["max_size"]
    with torch.no_grad():
        own = module([torch.from_numpy(picture()).permute(2, 0, 1) / 255.0])[0]
    found = detector.predictions([picture()], image_size=SEEN["min_size"])[0]
    torch.testing.assert_close(found["boxes"], own["boxes"])
    for wrong in ({"sizes": sizes[:4]}, {"sizes": [[8, 16]] * 5}, {"sizes": "x"}, {"sizes": [[0]] * 5}, 3):
        with pytest.raises(Unusable) as refusal:
            convert_inline(tmp_path / "x.pth", overrides={"options": {"anchors": wrong}})
        assert refusal.value.code == "bad_override"


def test_epsilon_of_frozen_norms_is_warned_of_and_can_be_said(convert_inline, tmp_path):
    state = random_module("torchvision/fasterrcnn_resnet50_fpn").state_dict()
    bare = {k: v for k, v in state.items() if not k.endswith("num_batches_tracked")}
    torch.save(bare, tmp_path / "x.pth")
    assert "frozen_bn_eps=0" in asked_in(convert_inline(tmp_path / "x.pth"))[0]
    asked = {"options": {"frozen_bn_eps": 0}}
    assert convert_inline(tmp_path / "x.pth", tmp_path / "nought", overrides=asked).warnings == ()
    assert load_detector(tmp_path / "nought").module.backbone.body.bn1.eps == 0.0
