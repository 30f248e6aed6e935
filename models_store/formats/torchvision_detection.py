"""State dicts of torchvision's detectors, new names and those before 0.13, recognised from keys and shapes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from torch import Tensor

from models_store.archs import ARCHITECTURES
from models_store.errors import Unusable, some
from models_store.formats import assembled, networks
from models_store.formats.expected import Shapes, differences, expected_shapes, misfit, new_name
from models_store.formats.signatures import lookup
from models_store.formats.state import COUNTER, Recognised, StateDict

RETINANET_ANCHORS = 9
LEAST_SHARED = 0.2
LEAST_ALIKE = 0.3
SSD300_FIRST_ANCHORS = 4
SSDLITE_V3_FIRST_ANCHORS = 6
SSDLITE_V2_FIRST_ANCHORS = 3

# Norms that were frozen in training have no counters.
BODY = "backbone.body."

# Their published COCO weights mean epsilon 0 in frozen norms, and so do weights that were fine-tuned from them.
ZERO_EPS = {
    f"torchvision/{name}_resnet50_fpn" for name in ("fasterrcnn", "maskrcnn", "keypointrcnn", "retinanet")
}
EPS_WARNING = (
    "its body's norms are frozen and their epsilon is not in the file: 1e-5 was taken; options frozen_bn_eps=0 for weights "
    "that were fine-tuned from torchvision's COCO_V1 (its builders set 0 there)"
)


def recognise(state: StateDict, hint: str | None, backbone: str | None = None) -> Recognised | None:
    """None where the keys are no torchvision detector's. Raises Unusable where they are, but not all.

    ``backbone``: the body's network, where it is not recognised by itself.
    """
    shapes = state.shapes
    is_fcos = "head.regression_head.bbox_ctrness.weight" in shapes
    tensors = state.tensors if is_fcos else {new_name(key): value for key, value in state.tensors.items()}
    tensors = {key: value for key, value in tensors.items() if not key.endswith(COUNTER)}
    shapes = {key: tuple(value.shape) for key, value in tensors.items()}
    renamed = sum(key not in state.tensors for key in tensors)
    candidates = _candidates(shapes)
    if not candidates and assembled.kind(shapes) is None:
        return None
    if hint is not None and hint in {name for name, _, _ in candidates}:
        candidates = [c for c in candidates if c[0] == hint]
    failures = []
    for name, outputs, options in candidates:
        wanted = expected_shapes(name, outputs - 1, options)
        if wanted == shapes:
            return _recognised(state, tensors, name, outputs - 1, options, renamed, hint)
        failures.append((name, wanted))
    if (placed := _placed(state, tensors, shapes, renamed)) is not None:
        return placed
    attempt = assembled.attempt(state, tensors, backbone)
    if isinstance(attempt, Recognised):
        return attempt
    if attempt is not None:
        failures.append(attempt)
    elif nearest := _nearest_placed(tensors, shapes):
        failures.append(nearest)
        attempt = nearest
    if not failures:
        raise _unknown_body(str(assembled.kind(shapes)), shapes)
    name, wanted = min(failures, key=lambda f: differences(f[1], shapes))
    # Other libraries share a name or two: theirs is not a torchvision file that went wrong.
    if len(set(wanted) & set(shapes)) < LEAST_SHARED * len(shapes):
        return None
    if attempt is None and _likeness(wanted, shapes, "backbone.") < LEAST_ALIKE:
        raise _unknown_body(assembled.kind(shapes) or name, shapes)
    raise misfit(name, wanted, shapes)


def _nearest_placed(tensors: dict[str, Tensor], shapes: Shapes) -> tuple[str, Shapes] | None:
    """One of ours over the network that the body is nearest to, for what to blame."""
    name = _placed_name(shapes)
    near = networks.closest({k.removeprefix(BODY): v for k, v in tensors.items() if k.startswith(BODY)})
    if name is None or near is None:
        return None
    try:
        return f"{name} over {near[0]}", expected_shapes(name, 1, {}, near[0])
    except Unusable:
        return None


def _likeness(wanted: Shapes, found: Shapes, prefix: str) -> float:
    """Share of the found tensors under ``prefix`` that are wanted."""
    ours, theirs = ({i for i in x.items() if i[0].startswith(prefix)} for x in (wanted, found))
    return len(ours & theirs) / max(len(theirs), 1)


def _unknown_body(name: str, shapes: Shapes) -> Unusable:
    body = [key for key in shapes if key.startswith("backbone.") and not key.startswith("backbone.fpn.")]
    if not body:
        return Unusable(
            "missing_keys",
            f"the file holds heads of {name} ({some(list(shapes), 3)}) and no body: send the whole state dict, "
            "torch.save(model.state_dict(), path)",
        )
    return Unusable(
        "unknown_architecture",
        f"the file's heads are those of {name}, but its body ({len(body)} tensors: {some(body, 3)}) is of no network that "
        "is known: give options backbone=torchvision/<name> or timm/<name> where it is one of theirs; others are not read",
    )


def _recognised(
    state: StateDict,
    tensors: dict[str, Tensor],
    name: str,
    classes: int,
    options: dict,
    renamed: int,
    hint: str | None,
) -> Recognised:
    notes = list(state.notes)
    body_norms = any(k.startswith(BODY) and k.endswith(".running_var") for k in tensors)
    counted = any(k.startswith(BODY) and k.endswith(COUNTER) for k in state.tensors)
    if body_norms and not counted and name.startswith("torchvision/"):
        options = {**options, "frozen_norm": True}
    if renamed:
        notes.append(f"{renamed} keys had their names of before torchvision 0.13")
    warnings: tuple[str, ...] = ()
    if name.endswith("mobilenet_v3_large_fpn") and hint != name:
        warnings = (
            "torchvision/fasterrcnn_mobilenet_v3_large_320_fpn has the same keys and another input size: give architecture= to "
            f"choose it, or architecture={name}",
        )
    if options.get("frozen_norm") and name in ZERO_EPS:
        warnings = (EPS_WARNING,)
    return Recognised(
        format="torchvision_detection",
        kind="detector",
        architecture=name,
        tensors=tensors,
        num_classes=classes,
        dropped=state.dropped,
        options=options,
        notes=tuple(notes),
        warnings=warnings,
    )


def _candidates(shapes: Shapes) -> list[tuple[str, int, dict]]:
    """(architecture, outputs of its head, options) in the order to try."""

    def first(key: str) -> int:
        return shapes.get(key, (0,))[0]

    two_stage = first("roi_heads.box_predictor.cls_score.weight")
    if two_stage:
        keypoints = shapes.get("roi_heads.keypoint_predictor.kps_score_lowres.weight", ())
        if len(keypoints) > 1:
            # A transposed convolution: its second dimension is the outputs.
            count = keypoints[1]
            return [("torchvision/keypointrcnn_resnet50_fpn", two_stage, {"num_keypoints": count})]
        mask = "roi_heads.mask_predictor.conv5_mask.weight" in shapes
        if "roi_heads.box_head.5.weight" in shapes:
            name = "maskrcnn_resnet50_fpn_v2" if mask else "fasterrcnn_resnet50_fpn_v2"
            return [(f"torchvision/{name}", two_stage, {})]
        if "backbone.body.0.0.weight" in shapes:
            names = ("fasterrcnn_mobilenet_v3_large_fpn", "fasterrcnn_mobilenet_v3_large_320_fpn")
            return [(f"torchvision/{name}", two_stage, {}) for name in names]
        name = "maskrcnn_resnet50_fpn" if mask else "fasterrcnn_resnet50_fpn"
        return [(f"torchvision/{name}", two_stage, {})]
    logits = first("head.classification_head.cls_logits.weight")
    if logits and "head.regression_head.bbox_ctrness.weight" in shapes:
        return [("torchvision/fcos_resnet50_fpn", logits + 1, {"labels_from": 0})]
    if logits and logits % RETINANET_ANCHORS == 0:
        outputs = logits // RETINANET_ANCHORS
        normed = "head.classification_head.conv.0.1.weight" in shapes
        name = "retinanet_resnet50_fpn_v2" if normed else "retinanet_resnet50_fpn"
        # Whether output 0 is reserved, the number of outputs does not tell: labels.py.
        return [(f"torchvision/{name}", outputs + 1, {"labels_from": 0})]
    if "backbone.scale_weight" in shapes:
        outputs = first("head.classification_head.module_list.0.weight") // SSD300_FIRST_ANCHORS
        return [("torchvision/ssd300_vgg16", outputs, {})] if outputs else []
    lite = first("head.classification_head.module_list.0.1.weight")
    if lite and "backbone.features.0.0.0.weight" in shapes:
        v3, v2 = lite // SSDLITE_V3_FIRST_ANCHORS, lite // SSDLITE_V2_FIRST_ANCHORS
        both: list[tuple[str, int, dict[str, Any]]] = [
            ("torchvision/ssdlite320_mobilenet_v3_large", v3, {}),
            ("detrank/ssdlite_mobilenet_v2", v2, {}),
        ]
        return [c for c in both if c[0] in ARCHITECTURES and c[1] > 1]
    return []


def _placed(state: StateDict, tensors: dict[str, Tensor], shapes: Shapes, renamed: int) -> Recognised | None:
    """A trained detector over another backbone: one of ours, or torchvision's ``resnet_fpn_backbone``, same names."""
    name = _placed_name(shapes)
    if name is None:
        return None
    options: dict[str, Any] = dict(_placed_norm(state, shapes, name))
    dense, last = "head.classification_head.cls_logits.weight", "roi_heads.box_predictor.cls_score.weight"
    if dense in shapes:
        options = {**options, "labels_from": 0}
    elif last not in shapes:
        # Many take the last layer off before they share a file; what is missing is said of the nearest.
        return None
    outputs = shapes[dense][0] // RETINANET_ANCHORS + 1 if dense in shapes else shapes[last][0]
    body = {k.removeprefix(BODY): s for k, s in shapes.items() if k.startswith(BODY)}
    in_timm = all(k.startswith("model.") for k in body)
    for backbone in lookup({k.removeprefix("model."): s for k, s in body.items()} if in_timm else body):
        if (
            backbone.startswith("timm/") == in_timm
            and expected_shapes(name, outputs - 1, options, backbone) == shapes
        ):
            recognised = _recognised(state, tensors, name, outputs - 1, options, renamed, None)
            return replace(recognised, backbone=backbone)
    return None


def _placed_name(shapes: Shapes) -> str | None:
    masks = "roi_heads.mask_predictor.mask_fcn_logits.weight" in shapes
    if "roi_heads.box_head.fc6.weight" in shapes:
        return None if masks else "detrank/fasterrcnn_fpn"
    if "roi_heads.box_head.5.weight" in shapes:
        return "detrank/maskrcnn_fpn" if masks else "detrank/fasterrcnn_fpn_v2"
    if "roi_heads.box_head.norm.weight" in shapes:
        return "detrank/maskrcnn_c4"
    return "detrank/retinanet" if "head.classification_head.cls_logits.weight" in shapes else None


# A norm of neck or head in each: with statistics it is a batch norm, without them groups.
NORM_OF = {
    "detrank/fasterrcnn_fpn_v2": "roi_heads.box_head.0.1",
    "detrank/maskrcnn_fpn": "roi_heads.box_head.0.1",
    "detrank/maskrcnn_c4": "roi_heads.box_head.norm",
    "detrank/retinanet": "head.classification_head.conv.0.1",
}


def _placed_norm(state: StateDict, shapes: Shapes, name: str) -> dict[str, str]:
    norm = NORM_OF.get(name)
    if norm is None or f"{norm}.weight" not in shapes:
        return {}
    if f"{norm}.running_var" not in shapes:
        return {"norm": "gn"}
    # A safetensors file often leaves the counters out, a torch file has them wherever norms are not frozen.
    counted = f"{norm}{COUNTER}" in state.tensors or not state.ordered
    return {"norm": "bn" if counted else "frozen"}
