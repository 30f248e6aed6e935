"""What original releases of query-based detectors share: names by rules, sizes by counting, transformers' module around."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import transformers
from torch import Tensor

from models_store.detr.build import config_of, plain
from models_store.detr.families import Family, architecture_name
from models_store.errors import Unusable, some
from models_store.formats.detr import packed_thirds
from models_store.formats.state import COUNTER, Recognised, StateDict
from models_store.formats.transformers_folder import loaded

# (pattern of an original name, transformers' name; with {qkv} in it the tensor is three)
Rules = Sequence[tuple[str, str]]


def without_counters(state: StateDict) -> dict[str, Tensor]:
    return {k: v for k, v in state.tensors.items() if not k.endswith(COUNTER)}


def renamed(
    tensors: Mapping[str, Tensor], rules: Rules, dropped: re.Pattern[str], title: str
) -> dict[str, Tensor]:
    """Every tensor under transformers' name, the dropped ones left out. Raises Unusable ``unmapped_keys``."""
    compiled = [(re.compile(pattern), target) for pattern, target in rules]
    found: dict[str, Tensor] = {}
    unknown = []
    for key, tensor in tensors.items():
        if dropped.fullmatch(key):
            continue
        target = next((m.expand(t) for p, t in compiled if (m := p.fullmatch(key))), None)
        if target is None:
            unknown.append(key)
        else:
            found |= packed_thirds(key, target, tensor)
    if unknown:
        raise Unusable(
            "unmapped_keys",
            f"the file is {title}'s, but {len(unknown)} tensors have no place in it ({some(unknown)}): send what "
            "training saved, not a deployed or changed network; a changed network is not read",
            [{"key": key, "message": "no place"} for key in unknown],
        )
    return found


def count(tensors: Mapping[str, Tensor], prefix: str) -> int:
    """How many numbered parts there are behind ``prefix``."""
    return len({m[1] for k in tensors if (m := re.match(re.escape(prefix) + r"\.(\d+)\.", k))})


def recognised(
    state: StateDict,
    family: Family,
    given: Mapping[str, Any],
    tensors: Mapping[str, Tensor],
    labels: int,
    *,
    dropped: Sequence[str] = (),
    warnings: Sequence[str] = (),
    input: Mapping[str, Any] | None = None,
) -> Recognised:
    """``tensors``, under any names that transformers reads, as its module with the configuration ``given``.

    Raises Unusable ``bad_config``, ``missing_keys``, ``unmapped_keys``, ``shape_mismatch``.
    """
    config = config_of(family, given, labels)
    found = loaded(family, config, tensors)
    resolved = plain(config.to_dict())
    body = resolved["backbone_config"]
    resolved["backbone_config"] = {k: v for k, v in body.items() if not k.startswith("_")} | {
        "model_type": config.backbone_config.model_type
    }
    kind = architecture_name(family.model_type)
    return Recognised(
        format=f"{kind.partition('/')[2]}_original",
        kind="detector",
        architecture=kind,
        tensors=found,
        num_classes=labels,
        dropped=(*state.dropped, *dropped),
        input=dict(input or {}),
        options={"config": resolved},
        notes=(
            *state.notes,
            f"an original release's names, brought to transformers {transformers.__version__}'s",
        ),
        warnings=tuple(warnings),
    )
