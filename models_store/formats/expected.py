"""What an architecture's file holds, key by key, and in what a given one differs from it."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any

from models_store.archs import ARCHITECTURES
from models_store.archs.base import BuildSpec
from models_store.bodies.outline import outline, shapes_of
from models_store.errors import Unusable, some
from models_store.formats.state import COUNTER

Shapes = dict[str, tuple[int, ...]]

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


def expected_shapes(
    name: str, classes: int, options: Mapping[str, Any], backbone: str | None = None
) -> Shapes:
    """Key to shape of the architecture, built without memory."""
    architecture = ARCHITECTURES[name]
    spec = BuildSpec(max(classes, 1), architecture.input, backbone, options)
    shapes = shapes_of(outline(lambda: architecture.build(spec)))
    return {key: shape for key, shape in shapes.items() if not key.endswith(COUNTER)}


def differences(wanted: Shapes, found: Shapes) -> int:
    """How many tensors are missing, left over or of another shape."""
    keys = set(wanted) | set(found)
    return sum(wanted.get(key) != found.get(key) for key in keys)


GROUPS = (
    "its norms have no running statistics, as group or layer norms have none: {name} with such norms in its body is not read; "
    "train it with batch norms, or frozen ones"
)


def without_statistics(missing: Collection[str]) -> bool:
    """Whether nothing is missing but what batch norms alone have."""
    return bool(missing) and all(key.endswith((".running_mean", ".running_var")) for key in missing)


BODY_ALONE = ", or give options take=body for its body alone"


def heads_alone(missing: Collection[str]) -> bool:
    """Whether of a detector nothing but heads is missing, as where the last layer was taken off before the file was shared."""
    return bool(missing) and all(key.startswith(("roi_heads.", "rpn.", "head.")) for key in missing)


def misfit(name: str, wanted: Shapes, found: Shapes) -> Unusable:
    missing, unknown = set(wanted) - set(found), set(found) - set(wanted)
    if without_statistics(missing):
        return Unusable("unsuitable", GROUPS.format(name=name))
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
    step = f": send the whole state dict{BODY_ALONE}" if heads_alone(missing) else ""
    return Unusable(code, f"the file looks like {name}, but {'; '.join(said)}{step}", errors)
