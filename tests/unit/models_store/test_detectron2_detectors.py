"""detectron2's Faster and Mask R-CNN with a pyramid: the same boxes as a plain reconstruction of its inference."""

import math
from collections import OrderedDict

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor
from torchvision.ops import batched_nms, roi_align

from models_store import formats, load_detector
from models_store.formats.detectron2 import to_detectron2
from models_store.formats.wrappings import unwrap
from tests.unit.models_store.family_table import furthest, measured

CLASSES, WIDTH = 3, 64
SEEN = {"min_size": 96, "max_size": 128}
IMAGE = np.random.default_rng(0).integers(0, 256, (96, 128, 3), dtype=np.uint8)
RPN, HEAD = "proposal_generator.rpn_head.", "roi_heads.box_predictor."


def random(*shape: int, scale: float = 0.05) -> Tensor:
    return torch.randn(*shape) * scale


def state_of(*, masks: bool = False, agnostic: bool = False) -> dict[str, Tensor]:
    """Random weights under the published names, of the published shapes but for the width of the box head."""
    torch.manual_seed(0)
    net = torchvision.models.resnet18(weights=None).eval()
    for name, tensor in net.state_dict().items():
        if name.endswith("running_var"):
            tensor.uniform_(0.5, 1.5)
    state = {
        f"backbone.bottom_up.{to_detectron2(k)}": v
        for k, v in net.state_dict().items()
        if not k.startswith("fc.") and not k.endswith("num_batches_tracked")
    }
    # Pixels are not scaled, so a trained stem is small.
    state["backbone.bottom_up.stem.conv1.weight"] /= 255
    for level, channels in zip((2, 3, 4, 5), (64, 128, 256, 512), strict=True):
        state |= {
            f"backbone.fpn_lateral{level}.weight": random(256, channels, 1, 1),
            f"backbone.fpn_output{level}.weight": random(256, 256, 3, 3, scale=0.02),
            f"backbone.fpn_lateral{level}.bias": random(256),
            f"backbone.fpn_output{level}.bias": random(256),
        }
    boxes = 4 if agnostic else 4 * CLASSES
    state |= {
        RPN + "conv.weight": random(256, 256, 3, 3, scale=0.02),
        RPN + "conv.bias": random(256),
        RPN + "objectness_logits.weight": random(3, 256, 1, 1),
        RPN + "objectness_logits.bias": random(3),
        RPN + "anchor_deltas.weight": random(12, 256, 1, 1, scale=0.01),
        RPN + "anchor_deltas.bias": random(12),
        "roi_heads.box_head.fc1.weight": random(WIDTH, 256 * 49, scale=0.01),
        "roi_heads.box_head.fc1.bias": random(WIDTH),
        "roi_heads.box_head.fc2.weight": random(WIDTH, WIDTH, scale=0.1),
        "roi_heads.box_head.fc2.bias": random(WIDTH),
        HEAD + "cls_score.weight": random(CLASSES + 1, WIDTH, scale=0.05),
        HEAD + "cls_score.bias": random(CLASSES + 1),
        HEAD + "bbox_pred.weight": random(boxes, WIDTH, scale=0.3),
        HEAD + "bbox_pred.bias": random(boxes),
        "proposal_generator.anchor_generator.cell_anchors.0": torch.zeros(3, 4),
        "pixel_mean": torch.tensor([103.53, 116.28, 123.675])[:, None, None],
        "pixel_std": torch.ones(3, 1, 1),
    }
    if masks:
        for index in range(1, 5):
            state[f"roi_heads.mask_head.mask_fcn{index}.weight"] = random(256, 256, 3, 3, scale=0.02)
            state[f"roi_heads.mask_head.mask_fcn{index}.bias"] = random(256)
        state["roi_heads.mask_head.deconv.weight"] = random(256, 256, 2, 2)
        state["roi_heads.mask_head.deconv.bias"] = random(256)
        state["roi_heads.mask_head.predictor.weight"] = random(CLASSES, 256, 1, 1)
        state["roi_heads.mask_head.predictor.bias"] = random(CLASSES)
    return state


def resnet_names() -> dict[str, str]:
    """detectron2's names of the body to torchvision's."""
    with torch.device("meta"):
        keys = torchvision.models.resnet18(weights=None).state_dict()
    return {to_detectron2(k): k for k in keys if not k.startswith("fc.") and "tracked" not in k}


def maps_of(state: dict[str, Tensor], pixels: Tensor) -> list[Tensor]:
    net = torchvision.models.resnet18(weights=None).eval()
    names = resnet_names()
    own = {names[k.removeprefix("backbone.bottom_up.")]: v for k, v in state.items() if "bottom_up" in k}
    net.load_state_dict(own, strict=False)
    x, stages = net.maxpool(net.relu(net.bn1(net.conv1(pixels)))), []
    for stage in (net.layer1, net.layer2, net.layer3, net.layer4):
        x = stage(x)
        stages.append(x)
    above, found = None, []
    for level in (5, 4, 3, 2):
        lateral = F.conv2d(
            stages[level - 2],
            state[f"backbone.fpn_lateral{level}.weight"],
            state[f"backbone.fpn_lateral{level}.bias"],
        )
        above = lateral if above is None else lateral + F.interpolate(above, scale_factor=2)
        out = F.conv2d(
            above,
            state[f"backbone.fpn_output{level}.weight"],
            state[f"backbone.fpn_output{level}.bias"],
            padding=1,
        )
        found.insert(0, out)
    return [*found, F.max_pool2d(found[-1], 1, 2)]


def decoded(anchors: Tensor, deltas: Tensor, weights: tuple[float, ...]) -> Tensor:
    sides = anchors[:, 2:] - anchors[:, :2]
    centres = anchors[:, :2] + sides / 2
    moved = deltas[:, :2] / torch.tensor(weights[:2]) * sides + centres
    grown = (deltas[:, 2:] / torch.tensor(weights[2:])).clamp(max=math.log(1000 / 16)).exp() * sides
    return torch.cat([moved - grown / 2, moved + grown / 2], 1)


def clipped(boxes: Tensor) -> Tensor:
    return boxes.clamp(min=0).minimum(torch.tensor([128.0, 96, 128, 96]))


def seen(state: dict[str, Tensor]) -> Tensor:
    """The picture as detectron2 sees it: BGR, not scaled."""
    order = state["pixel_mean"].flatten()
    return (
        torch.from_numpy(IMAGE[..., ::-1].copy()).permute(2, 0, 1)[None].float() - order[None, :, None, None]
    )


@torch.no_grad()
def plain(state: dict[str, Tensor], pixels: Tensor | None = None) -> dict[str, Tensor]:
    """detectron2's inference as its papers and configuration say: boxes, scores, labels. pixels: as the network sees them."""
    maps = maps_of(state, seen(state) if pixels is None else pixels)
    proposals, scores, levels = [], [], []
    for level, x in enumerate(maps):
        stride, size = 4 * 2**level, 32 * 2**level
        h = F.conv2d(x, state[RPN + "conv.weight"], state[RPN + "conv.bias"], padding=1).relu()
        logits = F.conv2d(h, state[RPN + "objectness_logits.weight"], state[RPN + "objectness_logits.bias"])
        deltas = F.conv2d(h, state[RPN + "anchor_deltas.weight"], state[RPN + "anchor_deltas.bias"])
        cells = []
        for row in range(x.shape[-2]):
            for column in range(x.shape[-1]):
                for ratio in (0.5, 1.0, 2.0):
                    w = math.sqrt(size * size / ratio)
                    centre = torch.tensor([column * stride, row * stride] * 2, dtype=torch.float32)
                    cells.append(centre + torch.tensor([-w, -w * ratio, w, w * ratio]) / 2)
        flat = deltas[0].unflatten(0, (3, 4)).permute(2, 3, 0, 1).reshape(-1, 4)
        proposals.append(clipped(decoded(torch.stack(cells), flat, (1, 1, 1, 1))))
        scores.append(logits[0].permute(1, 2, 0).reshape(-1))
        first = scores[-1].argsort(descending=True)[:1000]
        proposals[-1], scores[-1] = proposals[-1][first], scores[-1][first]
        levels.append(torch.full((len(first),), level))
    boxes, scores, levels = (torch.cat(x) for x in (proposals, scores, levels))
    full = (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])
    boxes, scores, levels = boxes[full], scores[full], levels[full]
    boxes = boxes[batched_nms(boxes, scores, levels, 0.7)][:1000]
    level = (4 + torch.log2((boxes[:, 2:] - boxes[:, :2]).prod(1).sqrt() / 224 + 1e-8)).floor().clamp(
        2, 5
    ) - 2
    regions = torch.zeros(len(boxes), 256, 7, 7)
    for index in range(4):
        here = level == index
        rows = torch.cat([torch.zeros(int(here.sum()), 1), boxes[here]], 1)
        regions[here] = roi_align(maps[index], rows, 7, 1 / (4 * 2**index), 0, aligned=True)
    h = regions.flatten(1)
    for name in ("fc1", "fc2"):
        h = F.linear(
            h, state[f"roi_heads.box_head.{name}.weight"], state[f"roi_heads.box_head.{name}.bias"]
        ).relu()
    probabilities = F.linear(h, state[HEAD + "cls_score.weight"], state[HEAD + "cls_score.bias"]).softmax(1)[
        :, :-1
    ]
    deltas = F.linear(h, state[HEAD + "bbox_pred.weight"], state[HEAD + "bbox_pred.bias"])
    deltas = deltas.unflatten(1, (-1, 4)).expand(-1, CLASSES, -1)
    found = torch.stack([clipped(decoded(boxes, deltas[:, k], (10, 10, 5, 5))) for k in range(CLASSES)], 1)
    rows, labels = torch.nonzero(probabilities > 0.05, as_tuple=True)
    kept, scores = found[rows, labels], probabilities[rows, labels]
    order = batched_nms(kept, scores, labels, 0.5)[:100]
    return {"boxes": kept[order], "scores": scores[order], "labels": labels[order]}


def agree(found: dict[str, Tensor], expected: dict[str, Tensor], source: str, *, agnostic: bool) -> None:
    """The same boxes: what is suppressed by nearly equal scores may differ."""
    assert len(expected["scores"]) > 20
    distance = torch.cdist(found["boxes"], expected["boxes"])
    distance += 1e3 * (found["labels"][:, None] != expected["labels"])
    assert int((distance.min(1).values < 0.05).sum()) >= 0.97 * len(found["boxes"])
    torch.testing.assert_close(found["scores"][:20], expected["scores"][:20], rtol=1e-3, atol=1e-4)
    measured(
        "Faster R-CNN, FPN",
        source + (", boxes for all classes alike" if agnostic else ""),
        f"a plain reconstruction of {source}'s inference",
        scores=furthest(found["scores"][:20], expected["scores"][:20]),
        **{"97 % of the boxes, in pixels,": float(distance.min(1).values.quantile(0.97))},
    )


@pytest.mark.parametrize("agnostic", [False, True])
def test_boxes_are_those_of_a_plain_reconstruction(agnostic, convert_inline, tmp_path):
    state = state_of(agnostic=agnostic)
    torch.save({"model": state, "iteration": 9}, tmp_path / "x.pth")
    manifest = convert_inline(tmp_path / "x.pth", overrides=SEEN)
    assert (manifest.format, manifest.kind) == ("detectron2", "detector")
    assert (manifest.architecture, manifest.backbone) == ("detrank/fasterrcnn_fpn", "torchvision/resnet18")
    assert manifest.num_classes == CLASSES
    assert manifest.warnings == ()
    assert manifest.source["channel_order"] == "bgr"
    assert all(layer.trained for layer in manifest.layers)
    expected, found = plain(state), load_detector(tmp_path / "converted").predictions([IMAGE])[0]
    agree(found, expected, "detectron2", agnostic=agnostic)


def test_without_detectron2s_alignment_the_boxes_would_be_others(convert_inline, tmp_path):
    """The agreement above is worth something only if torchvision's own alignment fails it."""
    torch.save({"model": state_of()}, tmp_path / "x.pth")
    convert_inline(tmp_path / "x.pth", overrides={**SEEN, "options": {"roi_aligned": False}})
    found = load_detector(tmp_path / "converted").predictions([IMAGE])[0]
    distance = torch.cdist(found["boxes"], plain(state_of())["boxes"]).min(1).values
    assert int((distance < 0.05).sum()) < 0.5 * len(distance)


def test_mask_rcnn_and_what_else_can_be_done_with_it():
    file = {"model": state_of(masks=True)}
    found = formats.recognise(unwrap(file, ordered=True))
    assert (found.kind, found.architecture, found.num_classes) == ("detector", "detrank/maskrcnn", CLASSES)
    logits = found.tensors["roi_heads.mask_predictor.mask_fcn_logits.weight"]
    assert torch.equal(logits[1:], file["model"]["roi_heads.mask_head.predictor.weight"])
    assert not logits[0].any()
    body = formats.recognise(unwrap(file, ordered=True), take="body")
    assert (body.kind, body.num_classes) == ("backbone", None)
    placed = formats.recognise(unwrap(file, ordered=True), "detrank/retinanet")
    assert (placed.kind, placed.architecture) == ("backbone", "detrank/retinanet")
    assert all(key.startswith("backbone.body.") for key in placed.tensors)


def test_other_heads_leave_the_body_and_say_so():
    state = state_of()
    state["roi_heads.box_head.conv1.weight"] = torch.zeros(256, 256, 3, 3)
    found = formats.recognise(unwrap({"model": OrderedDict(state)}, ordered=True))
    assert found.kind == "backbone"
    assert any("are new" in note for note in found.notes)
    assert "backbone.fpn.inner_blocks.0.0.weight" in found.tensors
