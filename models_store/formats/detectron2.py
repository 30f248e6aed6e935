"""detectron2's names of a ResNet, to torchvision's and back."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from models_store.bodies.wide_resnets import name_of
from models_store.errors import Unusable, some
from models_store.formats import classifiers
from models_store.formats.caffe import looks_like_caffe
from models_store.formats.detectron2_heads import BESIDE, heads
from models_store.formats.expected import expected_shapes
from models_store.formats.state import Recognised, StateDict

# In a whole detector the pyramid keeps the body here, and the C4 head owns the last stage.
BODY_PREFIXES = ("backbone.bottom_up.", "backbone.", "roi_heads.")
STEM = "stem.conv1.weight"
NORMS = re.compile(r"bn([123])\.")
THEIR_NORMS = re.compile(r"conv([123])\.norm\.")
CAFFE2 = re.compile(r"res\d_\d+_branch2a_(w|bn_s)")
CAFFE2_KEY = re.compile(
    r"(?:(?:res_)?conv1|res(?P<stage>\d)_(?P<block>\d+)_(?P<branch>branch1|branch2[abc]))_(?P<leaf>w|b|bn_s|bn_b)"
)
CAFFE2_BRANCHES = {"branch1": "shortcut", "branch2a": "conv1", "branch2b": "conv2", "branch2c": "conv3"}
NECK_CHANNELS = 256


def to_detectron2(key: str) -> str:
    """``layer1.0.bn2.bias`` to ``res2.0.conv2.norm.bias``. Raises ValueError for a key outside a ResNet's body."""
    match = re.fullmatch(r"layer([1-4])\.(\d+)\.(.+)", key)
    rest = match[3] if match else key
    if not re.fullmatch(r"(conv[123]|bn[123]|downsample\.[01])\.\w+", rest) or (
        match is None and not rest.startswith(("conv1.", "bn1."))
    ):
        raise ValueError(f"{key!r} is not of a ResNet's body")
    rest = NORMS.sub(r"conv\1.norm.", rest)
    rest = rest.replace("downsample.0.", "shortcut.").replace("downsample.1.", "shortcut.norm.")
    return f"res{int(match[1]) + 1}.{match[2]}.{rest}" if match else f"stem.{rest}"


def from_detectron2(key: str) -> str | None:
    """torchvision's name, None for what is no part of a ResNet's body."""
    match = re.fullmatch(r"(?:stem|res([2-5])\.(\d+))\.((?:conv[123]|shortcut)\.(?:norm\.)?\w+)", key)
    if match is None or (match[1] is None and not match[3].startswith("conv1.")):
        return None
    rest = match[3].replace("shortcut.norm.", "downsample.1.").replace("shortcut.", "downsample.0.")
    rest = THEIR_NORMS.sub(r"bn\1.", rest)
    return f"layer{int(match[1]) - 1}.{match[2]}.{rest}" if match[1] else rest


def recognise(state: StateDict, hint: str | None) -> Recognised | None:
    """None where no stem of detectron2's, nor Caffe2's names, are there. Raises Unusable for incomplete bodies."""
    if any(CAFFE2.fullmatch(key) for key in state.tensors):
        state = _from_caffe2(state)
    prefix = next((p for p in ("", *BODY_PREFIXES[:2]) if p + STEM in state.tensors), None)
    if prefix is None:
        return None
    body, beside = {}, []
    for key, tensor in state.tensors.items():
        # Only C4 detectors keep res5 outside the body.
        ours = [p for p in (prefix, BODY_PREFIXES[2]) if key.startswith(p)]
        name = next((n for p in ours if (n := from_detectron2(key.removeprefix(p)))), None)
        if name is None or (not key.startswith(prefix) and not name.startswith("layer4.")):
            beside.append(key)
        else:
            body[name] = tensor
    alone = replace(state, tensors=body, dropped=(), notes=())
    found = classifiers.recognise(alone, hint)
    if found is None and (wide := name_of(alone.shapes)):
        found = classifiers.recognise(alone, wide)
    if found is None:
        raise Unusable(
            "missing_keys",
            f"the file has detectron2's names, but its {len(body)} body tensors ({some(list(body), 3)}) are of no whole "
            "ResNet: send all of stem and res2 to res5, with their norms",
        )
    whole = any(key.startswith(("proposal_generator.", "roi_heads.", "backbone.fpn")) for key in beside)
    neck = neck_tensors(
        {f"{k}.{leaf}": state.tensors.get(f"backbone.fpn_{k}.{leaf}") for k in LEVELS for leaf in LEAVES}
    )
    used = {f"backbone.fpn_{k}.{leaf}" for k in LEVELS for leaf in LEAVES} if neck else set()
    pixels, order = _pixels(state)
    known = bool(pixels) or looks_like_caffe(found.tensors) is not None
    left = {key: state.tensors[key] for key in beside if key not in used}
    found = replace(
        found,
        format="detectron2",
        warnings=(WHOLE,) if whole and not known else (),
        input={**found.input, **pixels},
        channel_order=order,
        open_input="",
    )
    if neck and (detector := whole_detector(left, {**found.tensors, **neck}, found)):
        return replace(
            detector,
            dropped=(*state.dropped, *(key for key in left if BESIDE.fullmatch(key))),
            notes=(*state.notes, *found.notes, HEADS),
        )
    return replace(
        found,
        tensors={**found.tensors, **neck},
        dropped=(*state.dropped, *left),
        notes=(*state.notes, *found.notes, *([PARTS[bool(neck)]] if whole else [])),
    )


def whole_detector(
    left: Mapping[str, Tensor], inside: dict[str, Tensor], body: Recognised
) -> Recognised | None:
    """The whole detector, where its heads are built as torchvision's.

    left: all beside body and pyramid, under detectron2's names; inside: body and pyramid under torchvision's.
    """
    made = heads(left)
    if made is None:
        return None
    name, classes, tensors = made
    options: dict[str, Any] = {"roi_aligned": True}
    first = tensors.get("roi_heads.box_head.fc6.weight")
    if first is not None and first.shape[0] != HEAD_WIDTH:
        options["head_width"] = first.shape[0]
    whole = {**inside, **tensors}
    shapes = {key: tuple(value.shape) for key, value in whole.items()}
    if expected_shapes(name, classes, options, body.backbone) != shapes:
        return None
    return replace(
        body,
        kind="detector",
        architecture=name,
        tensors=whole,
        num_classes=classes,
        options={**body.options, **options},
    )


LEVELS = tuple(f"{kind}{level}" for kind in ("lateral", "output") for level in (2, 3, 4, 5))
LEAVES = ("weight", "bias")
PARTS = {
    True: "of a whole detectron2 detector the backbone and its pyramid were taken; its heads are built otherwise than "
    "torchvision's and are new",
    False: "of a whole detectron2 detector the backbone was taken alone",
}
HEADS = "the whole detector was taken: its heads are torchvision's by other names, regions are aligned as detectron2 does"
HEAD_WIDTH = 1024
WHOLE = (
    "of a whole detectron2 detector the keys do not say whether it strides in the 1x1 convolutions and sees BGR, as most of "
    "its configurations do: read as RGB with strides in the 3x3; options stride_in_1x1=true and channel_order=bgr otherwise"
)


def neck_tensors(given: Mapping[str, Tensor | None]) -> dict[str, Tensor]:
    """A pyramid over C2 to C5 under torchvision's names, from ``lateral<k>`` and ``output<k>``; empty where it is not whole."""
    found = {}
    for name, tensor in given.items():
        kind, level, leaf = name[: name.index(".") - 1], name[name.index(".") - 1], name.rpartition(".")[2]
        block = "inner_blocks" if kind == "lateral" else "layer_blocks"
        if tensor is None or tensor.shape[0] != NECK_CHANNELS:
            return {}
        found[f"backbone.fpn.{block}.{int(level) - 2}.0.{leaf}"] = tensor
    return found


def _pixels(state: StateDict) -> tuple[dict[str, tuple[float, ...]], str | None]:
    """Mean and std (RGB, in 0 to 1) and channel order that older files keep beside the weights."""
    mean, std = (state.tensors.get(key) for key in ("pixel_mean", "pixel_std"))
    if mean is None or std is None or mean.numel() != 3 or std.numel() != 3:
        return {}, None
    low, _, high = mean.flatten().tolist()
    # Of everyday pictures red is brightest, so the order shows in the means.
    order = "bgr" if low < high else "rgb"
    turned = -1 if order == "bgr" else 1
    values = [tuple(float(v) / 255 for v in x.flatten().tolist())[::turned] for x in (mean, std)]
    return {"mean": values[0], "std": values[1]}, order


def _from_caffe2(state: StateDict) -> StateDict:
    """MSRA's names as detectron2's model zoo keeps them, to detectron2's; norms there are scales and shifts alone."""
    found: dict[str, Tensor] = {}
    beside = []
    for key, tensor in state.tensors.items():
        match = CAFFE2_KEY.fullmatch(key)
        if match is None:
            beside.append(key)
            continue
        stage, block, branch, leaf = match["stage"], match["block"], match["branch"], match["leaf"]
        where = "stem.conv1" if stage is None else f"res{stage}.{block}.{CAFFE2_BRANCHES[branch]}"
        if leaf == "w":
            found[f"{where}.weight"] = tensor
        elif leaf in ("bn_s", "bn_b"):
            found[f"{where}.norm.{'weight' if leaf == 'bn_s' else 'bias'}"] = tensor
        elif bool((tensor != 0).any()):
            raise Unusable("unmapped_keys", f"{key} is a convolution's bias beside a norm: it has no place")
    for key in [k for k in found if k.endswith(".norm.weight")]:
        found[key.replace(".weight", ".running_mean")] = torch.zeros_like(found[key])
        found[key.replace(".weight", ".running_var")] = torch.ones_like(found[key])
    note = "Caffe2's names (MSRA's networks): norms are scales and shifts alone"
    return replace(
        state, tensors=found, dropped=(*state.dropped, *beside), notes=(*state.notes, note), ordered=False
    )
