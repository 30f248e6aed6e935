"""A narrow Faster R-CNN for small pictures: its options decide widths and regions, and survive saving and plain use."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from safetensors.torch import save_file

from models_store.detector import load_detector
from models_store.plain import plain_use
from models_store.save import save_detector

OPTIONS = {
    "norm": "bn",
    "neck_channels": 32,
    "head_width": 48,
    "box_batch_size_per_image": 16,
    "rpn_post_nms_top_n_train": 40,
    "rpn_post_nms_top_n_test": 20,
    "box_detections_per_img": 7,
}
IMAGE = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)


@pytest.fixture
def source(tmp_path) -> Path:
    torch.manual_seed(0)
    save_file(torchvision.models.resnet18().state_dict(), tmp_path / "resnet18.safetensors")
    return tmp_path / "resnet18.safetensors"


def test_the_options_are_the_networks_and_survive(source, convert_inline, tmp_path, monkeypatch):
    overrides = {"min_size": 64, "max_size": 64, "options": OPTIONS}
    manifest = convert_inline(source, architecture="torchvision/resnet18", overrides=overrides)
    widths = {layer.name: layer.channels for layer in manifest.layers}
    assert (widths["neck.p2"], widths["neck.roi"], widths["head.penultimate"]) == (32, 32, 48)
    assert widths["backbone.c5"] == 512
    detector = load_detector(tmp_path / "converted")
    heads, rpn = detector.module.roi_heads, detector.module.rpn
    assert (heads.fg_bg_sampler.batch_size_per_image, heads.detections_per_img) == (16, 7)
    assert (rpn._post_nms_top_n["training"], rpn._post_nms_top_n["testing"]) == (40, 20)

    detector.replace_head(3, seed=0)
    with torch.no_grad():
        heads.box_predictor.cls_score.weight.mul_(20)  # otherwise a random network keeps none of its boxes
    losses = detector.losses(
        [IMAGE], [{"boxes": torch.tensor([[5.0, 5.0, 40.0, 40.0]]), "labels": torch.tensor([2])}]
    )
    assert all(torch.isfinite(value) for value in losses.values())
    wanted = detector.predictions([IMAGE])[0]
    assert 0 < len(wanted["scores"]) <= 7

    saved = save_detector(detector, tmp_path / "saved", class_names=("a", "b", "c"), lineage={})
    again = load_detector(tmp_path / "saved").predictions([IMAGE])[0]
    monkeypatch.chdir(tmp_path / "saved")
    space: dict = {}
    exec(plain_use(saved).code, space)
    with torch.no_grad():
        plain = space["model"]([torch.from_numpy(IMAGE).permute(2, 0, 1) / 255])[0]
    for found in (again, plain):
        torch.testing.assert_close(found["boxes"], wanted["boxes"], atol=1e-4, rtol=1e-5)
        torch.testing.assert_close(found["scores"], wanted["scores"], atol=1e-5, rtol=1e-5)


def test_the_number_of_regions_is_an_option_of_mask_rcnn_too(source, convert_inline, tmp_path):
    overrides = {"min_size": 64, "max_size": 64, "options": {"rpn_post_nms_top_n_train": 40}}
    convert_inline(source, architecture="detrank/maskrcnn_fpn", overrides=overrides)
    rpn = load_detector(tmp_path / "converted").module.rpn
    assert rpn._post_nms_top_n == {"training": 40, "testing": 1000}
