"""YOLOX's published files and those that its training saves: every size is read from shapes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from models_store.errors import Unusable
from models_store.formats.expected import expected_shapes, misfit
from models_store.formats.state import COUNTER, Recognised, StateDict

BODY = "backbone.backbone."
STEM = BODY + "stem.conv.conv.weight"
ARCHITECTURE = "detrank/yolox"
SMALL_BASE, SMALL_SIDE = 24, 416
UNSAID = (
    "read as of YOLOX 0.1.1 and later: pixels in 0 to 255, blue first, and SiLU; the first weights of 2021 saw RGB normalised as "
    "ImageNet: channel_order, mean, std and options activation say so"
)


def recognise(state: StateDict, hint: str | None) -> Recognised | None:
    """None where the keys are not YOLOX's. Raises Unusable ``unsuitable``, ``missing_keys``, ``unmapped_keys``."""
    if not any(key.startswith(("head.cls_preds.", "head.obj_preds.")) for key in state.tensors):
        return None
    tensors = {k: v for k, v in state.tensors.items() if not k.endswith(COUNTER)}
    if any(key.startswith(BODY + "stem.0.") for key in tensors):
        raise Unusable(
            "unsuitable",
            "the file is YOLOX over Darknet-53 (yolox_darknet), which is not read: send YOLOX nano, tiny, s, m, l or x",
        )
    try:
        sizes = _sizes(tensors)
        classes = tensors["head.cls_preds.0.weight"].shape[0]
    except KeyError as missing:
        raise Unusable(
            "missing_keys",
            f"the file is YOLOX's, but lacks tensors such as {missing}: send the whole state dict",
        ) from None
    shapes = {key: tuple(value.shape) for key, value in tensors.items()}
    wanted = expected_shapes(ARCHITECTURE, classes, {"sizes": sizes})
    if wanted != shapes:
        raise misfit(ARCHITECTURE, wanted, shapes)
    side = {"min_size": SMALL_SIDE, "max_size": SMALL_SIDE} if sizes["base"] <= SMALL_BASE else {}
    return Recognised(
        format="yolox",
        kind="detector",
        architecture=ARCHITECTURE,
        tensors=tensors,
        num_classes=classes,
        dropped=state.dropped,
        input=side,
        options={"sizes": sizes},
        notes=state.notes,
        warnings=(UNSAID,),
        channel_order="bgr",
    )


def _sizes(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    return {
        "base": tensors[STEM].shape[0],
        "blocks": [_bottlenecks(tensors, f"{BODY}dark{k}.{2 if k == 5 else 1}") for k in (2, 3, 4, 5)],
        "neck_blocks": _bottlenecks(tensors, "backbone.C3_p4"),
        "head": tensors["head.stems.0.conv.weight"].shape[0],
        "depthwise": f"{BODY}dark2.0.dconv.conv.weight" in tensors,
    }


def _bottlenecks(tensors: Mapping[str, Tensor], part: str) -> int:
    pattern = re.compile(re.escape(part) + r"\.m\.(\d+)\.")
    return len({match[1] for key in tensors if (match := pattern.match(key))})
