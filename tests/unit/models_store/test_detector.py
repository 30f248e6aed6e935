"""Every registered architecture through the Detector, against torchvision's own forward."""

import numpy as np
import pytest
import torch
from torchvision.models import get_model
from torchvision.ops import roi_align

from models_store.archs import ARCHITECTURES
from models_store.build import layers_of
from models_store.detector import TorchvisionDetector
from models_store.manifest import Manifest
from tests.unit.models_store.conftest import backbone_for, random_module

NAMES = sorted(n for n, a in ARCHITECTURES.items() if a.face is not None)
TWO_STAGE = [n for n in NAMES if ARCHITECTURES[n].family == "two_stage"]
NO_NECK = "detrank/maskrcnn_c4"
SMALL = 96


@pytest.fixture(scope="module")
def found(request) -> TorchvisionDetector:
    """One architecture at a time: pytest runs all tests of one before it builds the next."""
    return fresh(request.param)


def fresh(name: str) -> TorchvisionDetector:
    architecture = ARCHITECTURES[name]
    module = random_module(name)
    face = architecture.face(module)
    manifest = Manifest(
        architecture=name,
        format="test",
        kind="detector",
        input=architecture.input,
        layers=layers_of(face, ()),
        parameters=1,
        source={},
        weights_sha256="",
        num_classes=3,
        backbone=backbone_for(name),
    )
    return TorchvisionDetector(manifest, module, face)


def picture(height: int = 60, width: int = 90, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def tensor(image: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(image).permute(2, 0, 1) / 255.0


def map_layers(found: TorchvisionDetector) -> list[str]:
    return [layer.name for layer in found.layers if layer.kind == "map"]


@pytest.mark.parametrize("found", NAMES, indirect=True)
def test_layers_have_the_channels_and_strides_they_state(found):
    pixels = found.prepare([picture(), picture(seed=1)], SMALL)
    maps = found.feature_maps(pixels, map_layers(found))
    assert list(maps) == map_layers(found)
    for layer in found.layers:
        if layer.kind == "map":
            assert maps[layer.name].shape[:2] == (2, layer.channels)
            if layer.stride <= 32:
                assert abs(maps[layer.name].shape[-1] - pixels.shape[-1] / layer.stride) <= 1.01
    names = [layer.name for layer in found.layers]
    assert len(set(names)) == len(names)
    assert not found.module.training
    assert not any(p.requires_grad for p in found.module.parameters())


@pytest.mark.parametrize("found", [n for n in NAMES if n != NO_NECK], indirect=True)
def test_neck_maps_are_those_of_the_detector_itself(found):
    # SSD300's last convolutions are unpadded and need its whole input.
    pixels = found.prepare(
        [picture()], None if found.manifest.architecture == "torchvision/ssd300_vgg16" else SMALL
    )
    with torch.no_grad():
        own = list(found.module.backbone(pixels).values())
    ours = [n for n in map_layers(found) if n.startswith("neck.")]
    maps = found.feature_maps(pixels, ours)
    assert ours
    for layer, reference in zip(ours, own, strict=False):
        torch.testing.assert_close(maps[layer], reference, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("found", NAMES, indirect=True)
def test_one_layer_alone_is_the_same_and_runs_less(found):
    pixels = found.prepare([picture()], SMALL)
    whole = found.feature_maps(pixels, map_layers(found))
    ran: list[str] = []
    handles = [
        m.register_forward_hook(lambda *_, n=n: ran.append(n)) for n, m in found.module.named_modules()
    ]
    alone = found.feature_maps(pixels, ["backbone.c3"])
    shallow = len(ran)
    ran.clear()
    found.feature_maps(pixels, [n for n in map_layers(found) if n.startswith("neck.")] or ["backbone.c5"])
    for handle in handles:
        handle.remove()
    torch.testing.assert_close(alone["backbone.c3"], whole["backbone.c3"])
    assert 0 < shallow < len(ran)
    assert not any(n.startswith(("rpn", "roi_heads", "head", "anchor")) for n in ran)


@pytest.mark.parametrize("found", NAMES, indirect=True)
def test_prepared_pixels_are_the_detectors_own(found):
    for image in (picture(60, 90), picture(50, 200, seed=2)):
        own, _ = found.module.transform([tensor(image)])
        ours = found.prepare([image])
        assert tuple(own.image_sizes[0]) == found.resized(*image.shape[:2], None)
        torch.testing.assert_close(ours, own.tensors, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("name", [n for n in NAMES if ARCHITECTURES[n].builder])
def test_the_stated_input_is_the_builders(name):
    architecture = ARCHITECTURES[name]
    own = get_model(architecture.builder, weights=None, weights_backbone=None).transform
    stated = architecture.input
    assert (stated.min_size, stated.max_size) == (own.min_size[-1], own.max_size)
    assert stated.mean == pytest.approx(own.image_mean)
    assert stated.std == pytest.approx(own.image_std)
    assert stated.fixed_size == own.fixed_size
    assert stated.divisor == own.size_divisible


@pytest.mark.parametrize("found", TWO_STAGE, indirect=True)
def test_object_features_are_those_of_the_box_head(found):
    images = [picture(), picture(seed=1)]
    pixels = found.prepare(images, SMALL)
    size = found.resized(60, 90, SMALL)
    boxes = [
        torch.tensor([[4.0, 4.0, 60.0, 50.0], [0.0, 0.0, 140.0, 90.0]]),
        torch.tensor([[10.0, 10.0, 30.0, 40.0]]),
    ]
    maps = found.feature_maps(pixels, found.map_layers("head.penultimate"))
    with torch.no_grad():
        heads = found.module.roi_heads
        regions = heads.box_roi_pool(found.module.backbone(pixels), boxes, [size] * 2)
        expected = heads.box_head(regions)
    torch.testing.assert_close(
        found.object_features(maps, boxes, size, "head.penultimate"), expected, rtol=1e-4, atol=1e-5
    )
    assert (expected >= 0).all() or found.manifest.architecture == NO_NECK
    if found.manifest.architecture == NO_NECK:
        return
    pooled = found.object_features(maps, boxes, size, "neck.roi")
    torch.testing.assert_close(pooled, regions.mean((2, 3)), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("found", NAMES, indirect=True)
def test_no_boxes_give_no_rows(found):
    pixels = found.prepare([picture()], SMALL)
    for layer in found.layers:
        if layer.kind == "vector":
            maps = found.feature_maps(pixels, found.map_layers(layer.name))
            rows = found.object_features(maps, [torch.zeros(0, 4)], found.resized(60, 90, SMALL), layer.name)
            assert rows.shape == (0, layer.channels)


@pytest.mark.parametrize("found", NAMES, indirect=True)
def test_predictions_are_torchvisions_with_labels_from_zero(found):
    transform, rpn = found.module.transform, getattr(found.module, "rpn", None)
    kept = transform.min_size, transform.max_size
    transform.min_size, transform.max_size = (SMALL,), 2 * SMALL
    regions = rpn._post_nms_top_n if rpn else {}
    if rpn:  # the head's work on a thousand regions is what would take the time
        rpn._post_nms_top_n = regions | {"testing": 100}
    try:
        image = picture()
        with torch.no_grad():
            own = found.module([tensor(image)])[0]
        ours = found.predictions([image])[0]
    finally:
        transform.min_size, transform.max_size = kept
        if rpn:
            rpn._post_nms_top_n = regions
    torch.testing.assert_close(ours["boxes"], own["boxes"])
    torch.testing.assert_close(ours["scores"], own["scores"])
    assert torch.equal(ours["labels"], own["labels"] - 1)


@pytest.mark.parametrize(
    "name", ["detrank/fasterrcnn_fpn", "torchvision/fcos_resnet50_fpn", "detrank/ssdlite_mobilenet_v2"]
)
def test_losses_are_finite_and_leave_the_detector_as_it_was(name):
    found = fresh(name)
    found.module.transform.min_size, found.module.transform.max_size = (SMALL,), 2 * SMALL
    before = {k: v.clone() for k, v in found.module.state_dict().items()}
    targets = [{"boxes": torch.tensor([[5.0, 5.0, 40.0, 40.0]]), "labels": torch.tensor([2])}]
    losses = found.losses([picture()], targets)
    assert losses
    assert all(torch.isfinite(v) for v in losses.values())
    assert not found.module.training
    assert all(torch.equal(before[k], v) for k, v in found.module.state_dict().items())


@pytest.mark.parametrize("name", NAMES)
def test_a_new_head_is_seeded_and_leaves_the_features(name):
    found = fresh(name)
    pixels = found.prepare([picture()], SMALL)
    layer = map_layers(found)[-1]
    before = found.feature_maps(pixels, [layer])[layer]
    keys = set(found.module.state_dict())
    found.replace_head(7, seed=3)
    first = {k: v.clone() for k, v in found.module.state_dict().items()}
    assert found.manifest.num_classes == 7
    assert set(first) == keys
    fresh_keys = set(found.manifest.initialised_keys)
    assert fresh_keys
    outputs = [v.shape[0] for k, v in first.items() if k in fresh_keys and k.endswith("weight")]
    assert any(n % (7 + ARCHITECTURES[name].has_background) == 0 for n in outputs)
    torch.testing.assert_close(found.feature_maps(pixels, [layer])[layer], before)
    assert not any(p.requires_grad for p in found.module.parameters())
    found.replace_head(7, seed=3)
    assert all(torch.equal(first[k], v) for k, v in found.module.state_dict().items())
    found.replace_head(7, seed=4)
    changed = {k for k, v in found.module.state_dict().items() if not torch.equal(first[k], v)}
    assert changed
    assert changed <= fresh_keys
    with pytest.raises(ValueError, match="at least one class"):
        found.replace_head(0, seed=0)


@pytest.mark.parametrize(
    ("size", "asked", "expected"),
    [
        ((60, 90), 100, (100, 150)),
        ((50, 400), 100, (25, 200)),
        ((400, 50), 100, (200, 25)),
        ((60, 90), None, (800, 1200)),
        ((100, 1000), None, (133, 1333)),
        ((1, 1000), 100, (1, 200)),
    ],
)
def test_shorter_side_and_at_most_twice_it(size, asked, expected):
    assert fresh("torchvision/fasterrcnn_mobilenet_v3_large_fpn").resized(*size, asked) == expected


def test_a_detector_of_one_size_squashes_to_a_square():
    found = fresh("detrank/ssdlite_mobilenet_v2")
    assert found.resized(50, 400, None) == (300, 300)
    assert found.resized(50, 400, 128) == (128, 128)


def test_unknown_layers_and_mixed_sizes_are_refused():
    found = fresh("torchvision/retinanet_resnet50_fpn")
    pixels = found.prepare([picture()], SMALL)
    with pytest.raises(KeyError, match=r"has no layer 'backbone\.c9'"):
        found.feature_maps(pixels, ["backbone.c9"])
    with pytest.raises(KeyError, match="is no map"):
        found.feature_maps(pixels, ["neck.roi"])
    with pytest.raises(KeyError):
        found.object_features({}, [], (1, 1), "backbone.c3")
    with pytest.raises(ValueError, match="one target size"):
        found.prepare([picture(60, 90), picture(90, 60)], SMALL)


# YOLOX's levels have towers of their own.
DENSE = [n for n in NAMES if ARCHITECTURES[n].family == "one_stage" and n != "detrank/yolox"]


@pytest.mark.parametrize("found", DENSE, indirect=True)
def test_penultimate_of_a_dense_head_is_what_its_logits_are_made_of(found):
    pixels = found.prepare([picture()], SMALL)
    seen: list[torch.Tensor] = []
    hook = found.module.head.classification_head.cls_logits.register_forward_pre_hook(
        lambda module, given: seen.append(given[0].detach())
    )
    with torch.inference_mode():
        found.module.head.classification_head(list(found.module.backbone(pixels).values()))
    hook.remove()
    # objects this small are pooled from the finest level
    boxes = [torch.tensor([[8.0, 8.0, 40.0, 40.0], [30.0, 20.0, 60.0, 50.0]])]
    maps = found.feature_maps(pixels, found.map_layers("head.penultimate"))
    features = found.object_features(maps, boxes, found.resized(60, 90, SMALL), "head.penultimate")
    scale = 2.0 ** round(np.log2(seen[0].shape[-2] / pixels.shape[-2]))
    expected = roi_align(seen[0], boxes, 7, scale, 2).mean(dim=(2, 3))
    torch.testing.assert_close(features, expected, rtol=1e-4, atol=1e-5)
    assert {layer.name: layer.channels for layer in found.layers}["head.penultimate"] == features.shape[1]


def test_penultimate_of_a_fresh_tower_is_untrained():
    found = fresh("detrank/retinanet")
    key = "head.classification_head.conv.0.0.weight"
    trained = {layer.name: layer.trained for layer in layers_of(found.face, (key,))}
    assert key in dict(found.module.named_parameters())
    assert not trained["head.penultimate"]
    assert trained["neck.roi"]
