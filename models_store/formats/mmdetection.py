"""mmdetection's detectors: their body, torchvision's by name, and a pyramid over C2 to C5; the heads are new."""

from __future__ import annotations

from dataclasses import replace

from models_store.errors import Unusable, some
from models_store.formats import classifiers
from models_store.formats.detectron2 import LEAVES, neck_tensors
from models_store.formats.state import Recognised, StateDict

BODY = "backbone."
HEADS = ("rpn_head.", "roi_head.", "bbox_head.", "panoptic_head.", "mask_head.")
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
    neck = neck_tensors({ours: keys.get(theirs) for ours, theirs in names.items()})
    used = set(names.values()) if neck else set()
    beside = [k for k in keys if not k.startswith(BODY) and k not in used]
    return replace(
        found,
        format="mmdetection",
        tensors={**found.tensors, **neck},
        dropped=(*state.dropped, *beside, *(BODY + key for key in found.dropped)),
        notes=(*state.notes, *found.notes, PARTS[bool(neck)]),
        open_input="",
        warnings=(),
    )
