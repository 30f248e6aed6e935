"""State dicts of torchvision's detectors, new names and those before 0.13, recognised from keys and shapes."""

from __future__ import annotations

import re
from dataclasses import replace

from torch import Tensor

from models_store.archs import ARCHITECTURES
from models_store.archs.base import BuildSpec
from models_store.archs.outline import outline, shapes_of
from models_store.errors import Unusable, some
from models_store.formats.signatures import lookup
from models_store.formats.state import COUNTER, Recognised, StateDict

Shapes = dict[str, tuple[int, ...]]

RETINANET_ANCHORS = 9
SSD300_FIRST_ANCHORS = 4
SSDLITE_V3_FIRST_ANCHORS = 6
SSDLITE_V2_FIRST_ANCHORS = 3

# Norms that were frozen in training have no counters.
BODY = "backbone.body."

# Names before torchvision 0.13, when norms moved inside their convolution's block.
OLD_NAMES = (
    (re.compile(r"^(backbone\.fpn\.(?:inner|layer)_blocks\.\d+)\.(weight|bias)$"), r"\1.0.\2"),
    (re.compile(r"^rpn\.head\.conv\.(weight|bias)$"), r"rpn.head.conv.0.0.\1"),
)
OLD_MASK = re.compile(r"^(roi_heads\.mask_head)\.mask_fcn(\d+)\.(weight|bias)$")
OLD_TOWER = re.compile(r"^(head\.(?:classification|regression)_head\.conv)\.(\d+)\.(weight|bias)$")


def new_name(key: str) -> str:
    """The name since torchvision 0.13 of a RetinaNet, Faster or Mask R-CNN key."""
    for pattern, replacement in OLD_NAMES:
        key = pattern.sub(replacement, key)
    key = OLD_MASK.sub(lambda m: f"{m[1]}.{int(m[2]) - 1}.0.{m[3]}", key)
    return OLD_TOWER.sub(lambda m: f"{m[1]}.{int(m[2]) // 2}.0.{m[3]}", key)


def recognise(state: StateDict, hint: str | None) -> Recognised | None:
    """None where the keys are no torchvision detector's. Raises Unusable where they are, but not all."""
    shapes = state.shapes
    is_fcos = "head.regression_head.bbox_ctrness.weight" in shapes
    tensors = state.tensors if is_fcos else {new_name(key): value for key, value in state.tensors.items()}
    tensors = {key: value for key, value in tensors.items() if not key.endswith(COUNTER)}
    shapes = {key: tuple(value.shape) for key, value in tensors.items()}
    renamed = sum(key not in state.tensors for key in tensors)
    candidates = _candidates(shapes)
    if not candidates:
        return None
    if hint is not None and hint in {name for name, _, _ in candidates}:
        candidates = [c for c in candidates if c[0] == hint]
    failures = []
    for name, outputs, options in candidates:
        wanted = expected_shapes(name, outputs - 1, options)
        if wanted == shapes:
            return _recognised(state, tensors, name, outputs - 1, options, renamed, hint)
        failures.append((name, wanted))
    placed = _placed(state, tensors, shapes, renamed)
    if placed is not None:
        return placed
    name, wanted = min(failures, key=lambda f: len(set(f[1]) ^ set(shapes)))
    raise _misfit(name, wanted, shapes)


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
    if name.endswith("mobilenet_v3_large_fpn") and hint != name:
        notes.append(
            "torchvision/fasterrcnn_mobilenet_v3_large_320_fpn has the same keys and another input size: "
            "give architecture= to choose it"
        )
    return Recognised(
        format="torchvision_detection",
        kind="detector",
        architecture=name,
        tensors=tensors,
        num_classes=classes,
        dropped=state.dropped,
        options=options,
        notes=tuple(notes),
    )


def _candidates(shapes: Shapes) -> list[tuple[str, int, dict]]:
    """(architecture, outputs of its head, options) in the order to try."""

    def first(key: str) -> int:
        return shapes.get(key, (0,))[0]

    two_stage = first("roi_heads.box_predictor.cls_score.weight")
    if two_stage:
        keypoints = first("roi_heads.keypoint_predictor.kps_score_lowres.weight")
        if keypoints:
            # A transposed convolution: its second dimension is the outputs.
            count = shapes["roi_heads.keypoint_predictor.kps_score_lowres.weight"][1]
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
        return [("torchvision/fcos_resnet50_fpn", logits, {})]
    if logits and logits % RETINANET_ANCHORS == 0:
        outputs = logits // RETINANET_ANCHORS
        normed = "head.classification_head.conv.0.1.weight" in shapes
        name = "retinanet_resnet50_fpn_v2" if normed else "retinanet_resnet50_fpn"
        return [(f"torchvision/{name}", outputs, {})]
    if "backbone.scale_weight" in shapes:
        outputs = first("head.classification_head.module_list.0.weight") // SSD300_FIRST_ANCHORS
        return [("torchvision/ssd300_vgg16", outputs, {})] if outputs else []
    lite = first("head.classification_head.module_list.0.1.weight")
    if lite and "backbone.features.0.0.0.weight" in shapes:
        v3, v2 = lite // SSDLITE_V3_FIRST_ANCHORS, lite // SSDLITE_V2_FIRST_ANCHORS
        both = [
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
    options = _placed_norm(state, shapes, name)
    dense = "head.classification_head.cls_logits.weight"
    outputs = (
        shapes[dense][0] // RETINANET_ANCHORS
        if dense in shapes
        else shapes["roi_heads.box_predictor.cls_score.weight"][0]
    )
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


def expected_shapes(name: str, classes: int, options: dict, backbone: str | None = None) -> Shapes:
    """Key to shape of the architecture, built without memory."""
    architecture = ARCHITECTURES[name]
    spec = BuildSpec(max(classes, 1), architecture.input, backbone, options)
    shapes = shapes_of(outline(lambda: architecture.build(spec)))
    return {key: shape for key, shape in shapes.items() if not key.endswith(COUNTER)}


def _misfit(name: str, wanted: Shapes, found: Shapes) -> Unusable:
    missing, unknown = set(wanted) - set(found), set(found) - set(wanted)
    wrong = sorted(k for k in set(wanted) & set(found) if wanted[k] != found[k])
    said = [
        text
        for text in (
            f"{len(missing)} of its {len(wanted)} tensors are missing ({some(missing)})" if missing else "",
            f"{len(unknown)} tensors have no place ({some(unknown)})" if unknown else "",
            f"{len(wrong)} have another shape ({some(wrong)})" if wrong else "",
        )
        if text
    ]
    errors = [{"key": k, "message": "missing"} for k in sorted(missing)]
    errors += [{"key": k, "message": "no place"} for k in sorted(unknown)]
    errors += [{"key": k, "message": f"{list(found[k])} instead of {list(wanted[k])}"} for k in wrong]
    code = "missing_keys" if missing else "unmapped_keys" if unknown else "shape_mismatch"
    return Unusable(code, f"the file looks like {name}, but {'; '.join(said)}", errors)
