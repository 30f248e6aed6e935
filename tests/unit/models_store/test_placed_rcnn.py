"""Every architecture that places a backbone in the R-CNN family or RetinaNet, from a file to predictions."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision

from models_store.archs import ARCHITECTURES
from models_store.bodies.norms import KINDS
from models_store.detector import load_detector
from models_store.errors import Unusable

SIZE = 64
IMAGE = np.random.default_rng(0).integers(0, 256, (60, 90, 3), dtype=np.uint8)
BOX = torch.tensor([[5.0, 5.0, 80.0, 50.0]])
PLACED = [a for a in ARCHITECTURES.values() if a.places_backbone and a.family != "detr"]
CASES = [(a.name, norm) for a in PLACED for norm in (None, *a.norms)]
HEADS = {"two_stage": "head.penultimate", "one_stage": "neck.roi"}


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    """A ResNet-18 as a self-supervised method's code saves it; its norms are not the identity."""
    torch.manual_seed(0)
    net = torchvision.models.resnet18(weights=None)
    for part in net.modules():
        if isinstance(part, torch.nn.BatchNorm2d):
            part.running_mean.normal_(0, 0.1)
            part.running_var.uniform_(0.5, 1.5)
    path = tmp_path_factory.mktemp("source") / "x.pth"
    encoder = {f"module.encoder.{k}": v for k, v in net.state_dict().items() if not k.startswith("fc.")}
    torch.save({"model": encoder | {"module.head.0.weight": torch.zeros(128, 512)}}, path)
    return path


def small(detector):
    """As few regions as there can be: the heads are the cost."""
    few = {"training": 6, "testing": 6}
    module = detector.module
    if hasattr(module, "rpn"):
        module.rpn._post_nms_top_n = few
        module.roi_heads.fg_bg_sampler.batch_size_per_image = 6
    return detector


def target(masks: bool) -> dict:
    drawn = torch.zeros(1, 60, 90, dtype=torch.uint8)
    drawn[0, 5:50, 5:80] = 1
    return {"boxes": BOX, "labels": torch.tensor([1])} | ({"masks": drawn} if masks else {})


def step(detector, targets: list[dict]) -> dict:
    """One step of gradient descent on all parameters; the losses before it."""
    torch.manual_seed(0)
    detector.module.requires_grad_(True)
    optimizer = torch.optim.SGD(detector.module.parameters(), lr=1e-3)
    losses = detector.losses([IMAGE] * len(targets), targets)
    sum(losses.values()).backward()
    optimizer.step()
    detector.module.requires_grad_(False)
    return losses


@pytest.mark.parametrize(("name", "norm"), CASES)
def test_forward_features_training_step_and_prediction(source, convert_inline, tmp_path, name, norm):
    overrides = {"min_size": SIZE, "max_size": 2 * SIZE, "options": {"norm": norm} if norm else {}}
    manifest = convert_inline(source, architecture=name, overrides=overrides)
    assert (manifest.architecture, manifest.format, manifest.backbone) == (
        name,
        "pycontrast",
        "torchvision/resnet18",
    )
    detector = small(load_detector(tmp_path / "converted"))
    maps = detector.feature_maps(
        detector.prepare([IMAGE]), [layer.name for layer in detector.layers if layer.kind == "map"]
    )
    for layer in detector.layers:
        if layer.kind == "map":
            assert maps[layer.name].shape[1] == layer.channels
        else:
            boxes = [BOX * SIZE / 60]
            rows = detector.object_features(maps, boxes, detector.resized(60, 90, None), layer.name)
            assert rows.shape == (1, layer.channels)
            assert torch.isfinite(rows).all()
            assert rows.std() > 0
    assert HEADS[ARCHITECTURES[name].family] in {layer.name for layer in detector.layers}
    detector.replace_head(3, seed=1)
    norms = {k: v.clone() for k, v in detector.module.state_dict().items() if k.endswith("running_mean")}
    first = {k: v.clone() for k, v in detector.module.named_parameters()}
    losses = step(detector, [target(masks=True)] * 2)
    assert all(bool(torch.isfinite(v)) for v in losses.values())
    assert ("loss_mask" in losses) == ("maskrcnn" in name)
    assert any(not torch.equal(first[k], v) for k, v in detector.module.named_parameters())
    after = detector.module.state_dict()
    moved = any(not torch.equal(v, after[k]) for k, v in norms.items())
    default_moves = name in ("detrank/fasterrcnn_fpn_v2", "detrank/maskrcnn_fpn", "detrank/maskrcnn_c4")
    assert moved == (norm in ("bn", "syncbn") or (norm is None and default_moves))
    assert not detector.module.training
    prediction = detector.predictions([IMAGE])[0]
    assert {"boxes", "labels", "scores"} <= set(prediction)
    assert ("masks" in prediction) == ("maskrcnn" in name)


@pytest.mark.parametrize("name", ["detrank/maskrcnn_fpn", "detrank/maskrcnn_c4"])
def test_boxes_alone_train_all_but_the_masks(source, convert_inline, tmp_path, name):
    convert_inline(source, architecture=name, overrides={"min_size": SIZE, "max_size": 2 * SIZE})
    detector = small(load_detector(tmp_path / "converted"))
    detector.replace_head(3, seed=1)
    losses = detector.losses([IMAGE], [target(masks=False)])
    assert "loss_mask" not in losses
    assert "loss_mask" in detector.losses([IMAGE], [target(masks=True)])


def test_c4_features_are_the_pooled_last_stage(source, convert_inline, tmp_path):
    """Against torchvision's own layers on regions cut from its own stride-16 map."""
    manifest = convert_inline(
        source, architecture="detrank/maskrcnn_c4", overrides={"min_size": SIZE, "max_size": 2 * SIZE}
    )
    detector = load_detector(tmp_path / "converted")
    assert detector.map_layers("head.penultimate") == ("backbone.c4",)
    assert {layer.name: layer.trained for layer in manifest.layers}["head.penultimate"]
    state = torch.load(source, weights_only=True)["model"]
    net = torchvision.models.resnet18(weights=None).eval()
    net.load_state_dict(
        {k.removeprefix("module.encoder."): v for k, v in state.items()}
        | {k: v for k, v in net.state_dict().items() if k.startswith("fc.")},
        strict=False,
    )
    pixels = detector.prepare([IMAGE])
    boxes = [BOX * SIZE / 60]
    maps = detector.feature_maps(pixels, ["backbone.c4"])
    rows = detector.object_features(maps, boxes, detector.resized(60, 90, None), "head.penultimate")
    with torch.no_grad():
        x = net.maxpool(net.relu(net.bn1(net.conv1(pixels))))
        x = net.layer3(net.layer2(net.layer1(x)))
        regions = torchvision.ops.roi_align(x, boxes, 14, 1 / 16, 2)
        # The fresh extra norm divides by the root of 1 + its epsilon.
        expected = net.layer4(regions).mean(dim=(2, 3)) / (1 + 1e-5) ** 0.5
    assert float((rows - expected).abs().max()) <= 1e-5
    keys = detector.module.state_dict()
    assert sum("layer4" in key for key in keys) == sum("layer4" in key for key in state)


def test_pycontrast_mask_rcnn_is_configured_as_published(source, convert_inline, tmp_path):
    convert_inline(source, architecture="detrank/maskrcnn_fpn")
    module = load_detector(tmp_path / "converted").module
    fpn, heads = module.backbone.fpn, module.roi_heads
    assert all(isinstance(block[1], torch.nn.BatchNorm2d) for block in fpn.layer_blocks)
    assert len(heads.box_head) == 4 + 1 + 2
    assert heads.box_head[5].out_features == 1024
    assert len(module.rpn.head.conv) == 1
    assert len(heads.mask_head) == 4


def test_unknown_norm_is_refused(source, convert_inline):
    with pytest.raises(Unusable, match="frozen") as refusal:
        convert_inline(source, architecture="detrank/maskrcnn_fpn", overrides={"options": {"norm": "layer"}})
    assert refusal.value.code == "bad_override"
    with pytest.raises(Unusable, match="frozen") as refusal:
        convert_inline(source, architecture="detrank/fasterrcnn_fpn", overrides={"options": {"norm": "gn"}})
    assert refusal.value.code == "bad_override"


def test_c4_over_no_resnet_is_refused(convert_inline, tmp_path):
    torch.save(torchvision.models.squeezenet1_1(weights=None).state_dict(), tmp_path / "x.pth")
    with pytest.raises(Unusable, match="maskrcnn_fpn") as refusal:
        convert_inline(tmp_path / "x.pth", architecture="detrank/maskrcnn_c4")
    assert refusal.value.code == "wrong_architecture"


@pytest.mark.parametrize("name", ["detrank/fasterrcnn_fpn_v2", "detrank/retinanet"])
def test_norms_of_timm_bodies_freeze_with_their_activations(convert_inline, tmp_path, name):
    """timm's norm holds the activation too: freezing must not lose it."""
    import timm

    torch.save(timm.create_model("efficientnet_lite0").state_dict(), tmp_path / "x.pth")
    pixels, found = torch.rand(1, 3, 64, 64), []
    for norm in ("frozen", "bn"):
        convert_inline(
            tmp_path / "x.pth",
            tmp_path / norm,
            architecture=name,
            overrides={"options": {"norm": norm, "backbone": "timm/efficientnet_lite0"}},
        )
        found.append(load_detector(tmp_path / norm).feature_maps(pixels, ["backbone.c5"])["backbone.c5"])
    assert torch.allclose(*found, atol=1e-5)


def test_all_norms_are_offered():
    assert {norm for a in PLACED for norm in a.norms} == set(KINDS)
