"""mmdetection's detectors: Faster and Mask R-CNN over a pyramid whole, of others the body and a pyramid over C2 to C5.

Its two-stage heads (since 2.0, when background became the last class) are built as detectron2's, so they go by its names.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace

from torch import Tensor

from models_store.errors import Unusable, some
from models_store.formats import classifiers
from models_store.formats.detectron2 import LEAVES, neck_tensors, whole_detector
from models_store.formats.detectron2_heads import BOX, BOXES, MASK, RPN, SCORES
from models_store.formats.state import Recognised, StateDict

BODY = "backbone."
HEADS = ("rpn_head.", "roi_head.", "bbox_head.", "panoptic_head.", "mask_head.")
WHOLE = (
    "the whole detector was taken: its heads are torchvision's by other names, regions are aligned as mmdetection does; anchors are "
    "its usual ones (8 strides, ratios 0.5, 1 and 2), for the weights do not say: the option anchors says otherwise"
)
NAMES = (
    (r"rpn_head\.rpn_conv\.(\w+)", RPN + r"conv.\1"),
    (r"rpn_head\.rpn_cls\.(\w+)", RPN + r"objectness_logits.\1"),
    (r"rpn_head\.rpn_reg\.(\w+)", RPN + r"anchor_deltas.\1"),
    (r"roi_head\.bbox_head\.shared_fcs\.0\.(\w+)", BOX + r"fc1.\1"),
    (r"roi_head\.bbox_head\.shared_fcs\.1\.(\w+)", BOX + r"fc2.\1"),
    (r"roi_head\.bbox_head\.fc_cls\.(\w+)", SCORES + r"\1"),
    (r"roi_head\.bbox_head\.fc_reg\.(\w+)", BOXES + r"\1"),
    (r"roi_head\.mask_head\.convs\.(\d)\.conv\.(\w+)", MASK + r"mask_fcn\1.\2"),
    (r"roi_head\.mask_head\.upsample\.(\w+)", MASK + r"deconv.\1"),
    (r"roi_head\.mask_head\.conv_logits\.(\w+)", MASK + r"predictor.\1"),
)
STAGE_NORM = re.compile(r"norm[0-2]\.")
THROUGH_NORMS = (
    "its pyramid reads each stage through a norm, which has no place in the body, so the pyramid is new too"
)
PARTS = {
    True: "of a whole mmdetection detector the body and its pyramid were taken; its heads are built otherwise and are new",
    False: "of a whole mmdetection detector the body was taken alone",
}


def recognise(state: StateDict, hint: str | None) -> Recognised | None:
    """None where the keys are no mmdetection detector's. Raises Unusable where its body is not known."""
    keys = state.tensors
    if not any(k.startswith(BODY) for k in keys) or not any(
        k.startswith(HEADS) and not k.startswith("roi_heads.") for k in keys
    ):
        return None
    body = {k.removeprefix(BODY): v for k, v in keys.items() if k.startswith(BODY)}
    found = classifiers.recognise(replace(state, tensors=body, dropped=(), notes=()), hint)
    if found is None:
        raise Unusable(
            "unknown_architecture",
            f"the file is a detector of mmdetection, but its body ({len(body)} tensors: {some(list(body), 3)}) is of no known "
            "network: give architecture=timm/<name> where it is one of theirs; its heads are not read",
        )
    names = {
        f"{kind}{level + 2}.{leaf}": f"neck.{part}.{level}.conv.{leaf}"
        for kind, part in (("lateral", "lateral_convs"), ("output", "fpn_convs"))
        for level in range(4)
        for leaf in LEAVES
    }
    through_norms = any(STAGE_NORM.match(key) for key in found.dropped)
    neck = {} if through_norms else neck_tensors({ours: keys.get(theirs) for ours, theirs in names.items()})
    used = set(names.values()) if neck else set()
    beside = [k for k in keys if not k.startswith(BODY) and k not in used]
    found = replace(found, format="mmdetection", open_input="", warnings=())
    left = detectron2_names({key: keys[key] for key in beside})
    if neck and left and (whole := whole_detector(left, {**found.tensors, **neck}, found)):
        return replace(
            whole,
            dropped=(*state.dropped, *(BODY + key for key in found.dropped)),
            notes=(*state.notes, *found.notes, WHOLE),
        )
    return replace(
        found,
        tensors={**found.tensors, **neck},
        dropped=(*state.dropped, *beside, *(BODY + key for key in found.dropped)),
        notes=(*state.notes, *found.notes, PARTS[bool(neck)], *([THROUGH_NORMS] if through_norms else [])),
    )


def detectron2_names(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The heads of a Faster or Mask R-CNN under detectron2's names; empty where one of them has no place there."""
    found = {}
    for key, tensor in tensors.items():
        name = next((m.expand(new) for old, new in NAMES if (m := re.fullmatch(old, key))), None)
        if name is None:
            return {}
        found[name] = tensor
    # convolutions of the mask branch count from 0 here
    return {re.sub(r"mask_fcn(\d)", lambda m: f"mask_fcn{int(m[1]) + 1}", k): t for k, t in found.items()}
