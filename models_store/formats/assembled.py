"""torchvision's Faster R-CNN, Mask R-CNN, RetinaNet and FCOS as people assemble them: over any body, with a pyramid or one
map, other widths, levels and anchors. All of it is read from shapes; what shapes do not tell is said or asked for.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from models_store.bodies.build import TorchvisionBody, build_body
from models_store.formats import networks
from models_store.formats.expected import Shapes, expected_shapes
from models_store.formats.state import COUNTER, Recognised, StateDict

WIDTH, HEAD_WIDTH, ROI_CELLS = 256, 1024, 49
FPN = "backbone.fpn."
LOGITS = "head.classification_head.cls_logits.weight"
BOXES = "head.regression_head.bbox_reg.weight"
RPN = "rpn.head.cls_logits.weight"
ALL_SIZES = [32, 64, 128, 256, 512]
RATIOS = [0.5, 1.0, 2.0]
USUAL_LEVELS = 5
FROZEN_EPS = 1e-5
# Each class's own anchors, for the five levels that its builder has: sizes by level.
OWN_SIZES: dict[str, list[list[int]]] = {
    "detrank/fasterrcnn_fpn": [[x] for x in ALL_SIZES],
    "detrank/maskrcnn": [[x] for x in ALL_SIZES],
    "detrank/retinanet": [[x, int(x * 2 ** (1 / 3)), int(x * 2 ** (2 / 3))] for x in ALL_SIZES],
    "detrank/fcos": [[8], [16], [32], [64], [128]],
}
ANCHORS = "which anchors it has is not in the file: {taken} were taken; options anchors says others"
ASKED = (
    "its head has {count} anchors a cell on {levels} levels, and which they are is not in the file: give options anchors="
    '{{"sizes": [[32], ...], "aspect_ratios": [0.5, 1, 2]}}, sizes in pixels by level'
)
TAKES = (
    "where its pyramid reads the body is not all in the file: {takes} were taken, whose channels fit; options pyramid says "
    "others"
)
LAST = (
    "whether the body ends before or behind its last layers without weights is not in the file: the whole {body} was taken; "
    'options pyramid={{"single": "#{before}"}} ends it before'
)


def attempt(
    state: StateDict, tensors: Mapping[str, Tensor], backbone: str | None
) -> Recognised | tuple[str, Shapes] | None:
    """The detector; or (what it is nearest to, that one's tensors); None where its body is of no known network.

    ``tensors``: under torchvision's new names, without counters.
    """
    shapes = {key: tuple(value.shape) for key, value in tensors.items()}
    if (name := kind(shapes)) is None:
        return None
    prefix = _body_prefix(shapes)
    body = {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
    known = networks.named(body, backbone)
    found = known or networks.closest(body)
    if found is None:
        return None
    network, own = found
    module = build_body(network)
    try:
        options, warnings, asked = _read(state, shapes, name, module, own)
        classes = _classes(shapes, name)
    except (KeyError, ValueError):
        # Too much is missing to say what it should be.
        return None
    inner = "model." if network.startswith("timm/") else ""
    rest = {k: v for k, v in tensors.items() if not k.startswith(prefix) or k.startswith(FPN)}
    canonical = {**{f"backbone.body.{inner}{k}": v for k, v in own.items()}, **rest}
    wanted = expected_shapes(name, classes, options, network)
    if wanted != {key: tuple(value.shape) for key, value in canonical.items()}:
        # In the file's own names, so that what differs can be found there.
        theirs = _theirs(own, body, prefix)
        return f"{name} over {network}", {theirs.get(k, k): shape for k, shape in wanted.items()}
    return Recognised(
        format="torchvision_detection",
        kind="detector",
        architecture=name,
        backbone=network,
        tensors=canonical,
        num_classes=classes,
        dropped=state.dropped,
        options=options,
        notes=(*state.notes, f"torchvision's {name.removeprefix('detrank/')} assembled over {network}"),
        warnings=tuple(warnings),
        open_options=asked,
    )


def kind(shapes: Shapes) -> str | None:
    """The architecture by its heads."""
    if "roi_heads.box_head.fc6.weight" in shapes and RPN in shapes:
        if any(key.startswith("roi_heads.keypoint") for key in shapes):
            return None
        return (
            "detrank/maskrcnn" if any("mask_predictor" in key for key in shapes) else "detrank/fasterrcnn_fpn"
        )
    if LOGITS in shapes and BOXES in shapes:
        fcos = "head.regression_head.bbox_ctrness.weight" in shapes
        return "detrank/fcos" if fcos else "detrank/retinanet"
    return None


def _body_prefix(shapes: Shapes) -> str:
    """Of the body's tensors; beside a pyramid it has a name of its own, ``body`` in torchvision's."""
    if not any(key.startswith(FPN) for key in shapes):
        return "backbone."
    inside = [key.split(".")[1] for key in shapes if key.startswith("backbone.") and not key.startswith(FPN)]
    first = max(set(inside), key=inside.count) if inside else "body"
    return f"backbone.{first}."


def _theirs(own: Mapping[str, Tensor], body: Mapping[str, Tensor], prefix: str) -> dict[str, str]:
    """Canonical name to the file's, of the body's tensors."""
    places = {id(value): key for key, value in body.items()}
    return {f"backbone.body.{key}": prefix + places[id(value)] for key, value in own.items()}


def _classes(shapes: Shapes, name: str) -> int:
    if LOGITS in shapes:
        return shapes[LOGITS][0] // max(1, shapes[BOXES][0] // 4)
    return shapes["roi_heads.box_predictor.cls_score.weight"][0] - 1


def _read(
    state: StateDict, shapes: Shapes, name: str, module: nn.Module, own: Mapping[str, Tensor]
) -> tuple[dict[str, Any], list[str], dict[str, str]]:
    """(options, warnings, options that must be asked for)."""
    options: dict[str, Any] = {"labels_from": 0} if LOGITS in shapes else {}
    warnings: list[str] = []
    laterals = sum(bool(re.fullmatch(rf"{FPN}inner_blocks\.\d+\.0\.weight", key)) for key in shapes)
    if laterals:
        levels, said = _pyramid(shapes, name, module, laterals)
        if (width := shapes[f"{FPN}layer_blocks.0.0.weight"][0]) != WIDTH:
            options["neck_channels"] = width
    else:
        levels, said = 1, _single(module, own, warnings)
    if said["pyramid"] is not None:
        options["pyramid"] = said["pyramid"]
    warnings += said.get("warnings", [])
    box_head = shapes.get("roi_heads.box_head.fc6.weight")
    if box_head and box_head[0] != HEAD_WIDTH:
        options["head_width"] = box_head[0]
    if "head.classification_head.conv.0.1.weight" in shapes:
        options["head_norm"] = "gn"
    options |= _norms(state, module, own, warnings)
    anchors, more, asked = _anchors(shapes, name, levels, bool(laterals), said.get("first_stride", 4))
    return {**options, **anchors}, warnings + more, asked


def _pyramid(shapes: Shapes, name: str, module: nn.Module, count: int) -> tuple[int, dict[str, Any]]:
    """Number of levels, and the option ``pyramid`` where it is not the architecture's own."""
    channels = [shapes[f"{FPN}inner_blocks.{i}.0.weight"][1] for i in range(count)]
    taken, sure = _takes(module, channels)
    p6 = shapes.get(f"{FPN}extra_blocks.p6.weight")
    width = shapes[f"{FPN}layer_blocks.0.0.weight"][0]
    extra = "pool" if p6 is None else "p6p7" if p6[1] == width else "p6p7_c5"
    levels = count + (1 if p6 is None else 2)
    usual = ["c2", "c3", "c4", "c5"] if name.endswith(("rcnn_fpn", "maskrcnn")) else ["c3", "c4", "c5"]
    stages = {stage.name: stage.stride for stage in module.stages}
    first = stages.get(taken[0]) or module.shapes[module.index_of(taken[0])][0]
    own = taken == usual and extra == ("pool" if len(usual) == 4 else "p6p7")
    warnings = [] if sure else [TAKES.format(takes=", ".join(taken))]
    layout = None if own else {"takes": taken, "extra": extra}
    return levels, {"pyramid": layout, "warnings": warnings, "first_stride": first}


def _takes(module: nn.Module, channels: Sequence[int]) -> tuple[list[str], bool]:
    """Names of the maps with these channels, fine to coarse, and whether there is no doubt."""
    stages = [stage for stage in module.stages if stage.name != "c1"]
    names = {stage.index: stage.name for stage in stages}
    runs = [[(stage.index, stage.channels) for stage in stages]]
    sure = not isinstance(module, TorchvisionBody) or hasattr(module, "layer1")
    if isinstance(module, TorchvisionBody):
        every = [(i, c) for i, (_, c) in module.shapes.items()]
        sure = sure or all([c for _, c in every].count(wanted) == 1 for wanted in channels)
        # torchvision's own getter for MobileNets reads the blocks that halve the map.
        runs = [[(i, module.shapes[i][1]) for i in module.strided_steps], *runs, every]
    for run in runs:
        for start in range(len(run) - len(channels), -1, -1):
            window = run[start : start + len(channels)]
            if [c for _, c in window] == list(channels):
                return [names.get(i, f"#{i}") for i, _ in window], sure
    last = {c: i for i, c in runs[-1]}
    found = [names.get(last[c], f"#{last[c]}") for c in channels if c in last]
    return (found if len(found) == len(channels) else [s.name for s in stages][-len(channels) :]), False


def _single(module: nn.Module, own: Mapping[str, Tensor], warnings: list[str]) -> dict[str, Any]:
    """The one map: behind the last step that the file has weights of, and the steps without weights after it."""
    if not isinstance(module, TorchvisionBody):
        return {"pyramid": {"single": module.stages[-1].name}, "first_stride": module.stages[-1].stride}
    steps = module.steps()
    prefixes = [f"{name}." for name, _ in steps]
    given = max(i for i, prefix in enumerate(prefixes) if any(key.startswith(prefix) for key in own))
    last = given
    while last + 1 < len(steps) and not any(True for _ in steps[last + 1][1].parameters()):
        last += 1
    pooled = [i for i in range(given + 1, last + 1) if module.shapes[i][0] != module.shapes[given][0]]
    if pooled:
        warnings.append(LAST.format(body="of it", before=pooled[0] - 1))
    names = {stage.index: stage.name for stage in module.stages}
    return {"pyramid": {"single": names.get(last, f"#{last}")}, "first_stride": module.shapes[last][0]}


NORMS = (
    "whether the norms of its body were frozen, and so had epsilon {frozen} and not the network's own, is not in the file: they "
    "were read as not; options norm=frozen and norm_eps={frozen} otherwise"
)


def _norms(
    state: StateDict, module: nn.Module, own: Mapping[str, Tensor], warnings: list[str]
) -> dict[str, Any]:
    """Norms that were frozen in training have no counters, and torchvision's epsilon."""
    if not any(key.endswith(".running_var") for key in own):
        return {}
    if any(key.startswith("backbone.") and key.endswith(COUNTER) for key in state.tensors):
        return {}
    other = any(isinstance(m, nn.BatchNorm2d) and m.eps != FROZEN_EPS for m in module.modules())
    if not state.ordered:
        # Other writers of safetensors leave the counters out.
        warnings += [NORMS.format(frozen=FROZEN_EPS)] if other else []
        return {}
    return {"norm": "frozen", **({"norm_eps": FROZEN_EPS} if other else {})}


def _anchors(
    shapes: Shapes, name: str, levels: int, pyramid: bool, first_stride: int
) -> tuple[dict[str, Any], list[str], dict[str, str]]:
    """The option ``anchors`` where it is not the class's own for these levels, as far as the number a cell tells."""
    count = shapes[RPN][0] if RPN in shapes else shapes[BOXES][0] // 4
    own = OWN_SIZES[name]
    ratios = [1.0] if name == "detrank/fcos" else RATIOS
    if pyramid and levels == USUAL_LEVELS and count == len(own[0]) * len(ratios):
        # Theirs do not depend on the strides, ours do.
        same = first_stride == (4 if RPN in shapes else 8)
        return ({} if same else {"anchors": {"sizes": own, "aspect_ratios": ratios}}), [], {}
    if count == len(ALL_SIZES) * len(RATIOS):
        given = {"sizes": [ALL_SIZES] * levels, "aspect_ratios": RATIOS}
        said = ANCHORS.format(
            taken=f"sizes {ALL_SIZES} and ratios {RATIOS} a level, as in torchvision's examples,"
        )
        return {"anchors": given}, [said], {}
    if pyramid and count == len(own[0]) * len(ratios):
        return {}, [ANCHORS.format(taken="sizes in proportion to the strides")], {}
    stand_in = {"sizes": [[32 * (i + 1) for i in range(count)]] * levels, "aspect_ratios": [1.0]}
    return {"anchors": stand_in}, [], {"anchors": ASKED.format(count=count, levels=levels)}
