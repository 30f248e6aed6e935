"""detectron2's names of a ResNet, to torchvision's and back."""

from __future__ import annotations

import re
from dataclasses import replace

from models_store.archs.wide_resnets import name_of
from models_store.errors import Unusable, some
from models_store.formats import classifiers
from models_store.formats.state import Recognised, StateDict

# In a whole detector the pyramid keeps the body here, and the C4 head owns the last stage.
BODY_PREFIXES = ("backbone.bottom_up.", "backbone.", "roi_heads.")
STEM = "stem.conv1.weight"
NORMS = re.compile(r"bn([123])\.")
THEIR_NORMS = re.compile(r"conv([123])\.norm\.")
CAFFE2 = re.compile(r"res\d_\d+_branch2a_(w|bn_s)")


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
    """None where no stem of detectron2's is there. Raises Unusable for Caffe2's names and incomplete bodies."""
    if any(CAFFE2.fullmatch(key) for key in state.tensors):
        raise Unusable(
            "unsuitable",
            "the file has Caffe2's names (MSRA's ResNets, as detectron2's model zoo has them): these networks stride in "
            "their 1x1 convolutions and see BGR, which torchvision's do not; send a file of torchvision's ResNet",
        )
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
    return replace(
        found,
        format="detectron2",
        dropped=(*state.dropped, *beside),
        notes=(*state.notes, *found.notes, *([WHOLE] if whole else [])),
    )


WHOLE = (
    "of a whole detectron2 detector the backbone was taken; its keys do not say whether it strides in the 1x1 convolutions "
    "and sees BGR, as those trained from MSRA's ResNets do: this is right for strides in the 3x3 and RGB only"
)
