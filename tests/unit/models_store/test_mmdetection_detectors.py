"""mmdetection's Faster and Mask R-CNN with a pyramid: the boxes of a plain reconstruction of its inference.

Its configurations (faster-rcnn_r50_fpn, mask-rcnn_r50_fpn) say the same as detectron2's of anchors, deltas, alignment and
suppression, so the reconstruction is the one that detectron2's files are held against; names and pixels are other.
"""

import re

import pytest
import torch
from torch import Tensor

from models_store import formats, load_detector
from models_store.formats.wrappings import unwrap
from models_store.manifest import IMAGENET_MEAN, IMAGENET_STD
from tests.unit.models_store.test_detectron2_detectors import (
    CLASSES,
    IMAGE,
    SEEN,
    agree,
    plain,
    resnet_names,
    state_of,
)

NAMES = (
    (r"backbone\.fpn_lateral(\d)\.", lambda m: f"neck.lateral_convs.{int(m[1]) - 2}.conv."),
    (r"backbone\.fpn_output(\d)\.", lambda m: f"neck.fpn_convs.{int(m[1]) - 2}.conv."),
    (r"proposal_generator\.rpn_head\.conv\.", lambda m: "rpn_head.rpn_conv."),
    (r"proposal_generator\.rpn_head\.objectness_logits\.", lambda m: "rpn_head.rpn_cls."),
    (r"proposal_generator\.rpn_head\.anchor_deltas\.", lambda m: "rpn_head.rpn_reg."),
    (r"roi_heads\.box_head\.fc(\d)\.", lambda m: f"roi_head.bbox_head.shared_fcs.{int(m[1]) - 1}."),
    (r"roi_heads\.box_predictor\.cls_score\.", lambda m: "roi_head.bbox_head.fc_cls."),
    (r"roi_heads\.box_predictor\.bbox_pred\.", lambda m: "roi_head.bbox_head.fc_reg."),
    (r"roi_heads\.mask_head\.mask_fcn(\d)\.", lambda m: f"roi_head.mask_head.convs.{int(m[1]) - 1}.conv."),
    (r"roi_heads\.mask_head\.deconv\.", lambda m: "roi_head.mask_head.upsample."),
    (r"roi_heads\.mask_head\.predictor\.", lambda m: "roi_head.mask_head.conv_logits."),
)


def file_of(state: dict[str, Tensor]) -> dict:
    """The same network as mmdetection saves it."""
    body = resnet_names()
    found = {}
    for key, tensor in state.items():
        if key.startswith(("pixel_", "proposal_generator.anchor_generator.")):
            continue
        if key.startswith("backbone.bottom_up."):
            found["backbone." + body[key.removeprefix("backbone.bottom_up.")]] = tensor
        else:
            found[next(re.sub(old, new, key) for old, new in NAMES if re.match(old, key))] = tensor
    return {"state_dict": found, "meta": {"epoch": 12, "CLASSES": ("ant", "bee", "cow")}}


def scaled(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """With a stem for pixels that are divided by their spread."""
    return state | {
        "backbone.bottom_up.stem.conv1.weight": state["backbone.bottom_up.stem.conv1.weight"] * 57
    }


@pytest.mark.parametrize("agnostic", [False, True])
def test_boxes_are_those_of_a_plain_reconstruction(agnostic, convert_inline, tmp_path):
    state = scaled(state_of(agnostic=agnostic))
    torch.save(file_of(state), tmp_path / "x.pth")
    manifest = convert_inline(tmp_path / "x.pth", overrides=SEEN)
    assert (manifest.format, manifest.kind) == ("mmdetection", "detector")
    assert (manifest.architecture, manifest.backbone) == ("detrank/fasterrcnn_fpn", "torchvision/resnet18")
    assert manifest.class_names == ("ant", "bee", "cow")
    assert all(layer.trained for layer in manifest.layers)
    mean, std = (torch.tensor(v)[None, :, None, None] for v in (IMAGENET_MEAN, IMAGENET_STD))
    pixels = (torch.from_numpy(IMAGE.copy()).permute(2, 0, 1)[None] / 255 - mean) / std
    expected, found = plain(state, pixels), load_detector(tmp_path / "converted").predictions([IMAGE])[0]
    agree(found, expected, "mmdetection", agnostic=agnostic)


def test_mask_rcnn_and_what_else_can_be_done_with_it():
    file = file_of(state_of(masks=True))
    found = formats.recognise(unwrap(file, ordered=True))
    assert (found.kind, found.architecture, found.num_classes) == ("detector", "detrank/maskrcnn", CLASSES)
    for index in range(4):
        theirs = file["state_dict"][f"roi_head.mask_head.convs.{index}.conv.weight"]
        assert torch.equal(found.tensors[f"roi_heads.mask_head.{index}.0.weight"], theirs)
    body = formats.recognise(unwrap(file, ordered=True), take="body")
    assert (body.kind, body.num_classes) == ("backbone", None)


@pytest.mark.parametrize(
    "change",
    [
        lambda s: {k.replace("bbox_head.", "bbox_head.0."): v for k, v in s.items()},  # Cascade R-CNN
        lambda s: s | {"roi_head.bbox_head.shared_convs.0.conv.weight": torch.zeros(256, 256, 3, 3)},
        lambda s: {k: v for k, v in s.items() if "shared_fcs.0" not in k},
        lambda s: (
            s
            | {"rpn_head.rpn_cls.weight": torch.zeros(6, 256, 1, 1), "rpn_head.rpn_cls.bias": torch.zeros(6)}
        ),
        lambda s: {k.replace("roi_head.bbox_head.", "bbox_head."): v for k, v in s.items()},  # before 2.0
    ],
    ids=["three boxes heads", "convolutions", "incomplete", "two scores an anchor", "background first"],
)
def test_other_heads_leave_the_body_and_say_so(change):
    file = file_of(state_of())
    file["state_dict"] = change(file["state_dict"])
    found = formats.recognise(unwrap(file, ordered=True))
    assert found.kind == "backbone"
    assert any("are new" in note for note in found.notes)
    assert "backbone.fpn.inner_blocks.0.0.weight" in found.tensors
