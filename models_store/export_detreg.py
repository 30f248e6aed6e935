"""A pretrained DETR in the file of DETReg's own code: its names, its packed attention, its arguments."""

from __future__ import annotations

import argparse
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from models_store.detector import load_detector
from models_store.detr.detector import DetrDetector
from models_store.detr.embedding import EMBEDDING_HEAD
from models_store.detr.placed import BODY_PREFIX
from models_store.errors import Unusable, some
from models_store.formats.detr import OBJECT_CLASS, deformable_rules, detr_rules

# COCO's, which every pretraining script of the code has.
OUTPUTS = 91
# Of a class that never was: with sigmoids the initial prior of 0.01, in a softmax next to nothing.
NEVER_SIGMOID, NEVER_SOFTMAX = -4.59511985013459, -100.0
# A placed body has a wrapper of ours around it.
PLACED, BODY = BODY_PREFIX, "model.backbone.model."
CLASS_HEAD = re.compile(r"(transformer\.decoder\.)?class_embed(\.\d+)?\.(weight|bias)")
GROUP = re.compile(r"\([^()]*\)")
THIRDS = ("q_proj", "k_proj", "v_proj")


def to_detreg_file(folder: Path, out: Path) -> int:
    """Write the converted checkpoint in ``folder`` to ``out`` as DETReg saves it; the number of tensors written.

    What came from such a file is written tensor for tensor as it was. Of one class, the class head gets the code's 91
    outputs (and "no object" where it has that): the object in the place of class 1, which is the one that the code
    trains. Raises Unusable: ``unsuitable`` for what the code has no model for, ``missing``, ``corrupt``.
    """
    detector = load_detector(folder)
    if not isinstance(detector, DetrDetector) or detector.family.model_type not in _RULES:
        raise Unusable(
            "unsuitable",
            f"DETReg's code has no {detector.manifest.architecture}: only DETR and Deformable DETR can be written for it",
        )
    options = detector.manifest.options
    if detector.family.model_type != "deformable_detr" and not options.get("centred_sine"):
        raise Unusable(
            "unsuitable",
            "this DETR counts positions from cell corners; DETReg's code counts from centres and would read it wrongly",
        )
    if EMBEDDING_HEAD + ".layers.0.weight" not in detector.module.state_dict():
        raise Unusable(
            "unsuitable",
            "the checkpoint has no embedding head, so it is none of a pretraining: nothing to go on with",
        )
    tensors = original_names(detector)
    if detector.manifest.num_classes == 1:
        tensors = {k: _widened(k, v, detector.family.no_object) for k, v in tensors.items()}
    arguments = argparse.Namespace(**_arguments(detector))
    out.parent.mkdir(parents=True, exist_ok=True)
    beside = out.with_name(out.name + ".partial")
    torch.save({"model": tensors, "epoch": 0, "args": arguments}, beside)
    beside.replace(out)
    return len(tensors)


def original_names(detector: DetrDetector) -> dict[str, Tensor]:
    """The module's tensors under the names of the published code; query, key and value packed into one."""
    rules = [_inverted(pattern, target) for pattern, target in _RULES[detector.family.model_type]()]
    named: dict[str, Tensor] = {}
    packed: dict[str, dict[str, Tensor]] = {}
    unknown = []
    for key, tensor in detector.module.state_dict().items():
        plain = BODY + key.removeprefix(PLACED) if key.startswith(PLACED) else key
        found = next((m.expand(t) for p, t in rules if (m := p.fullmatch(plain))), None)
        if found is None:
            unknown.append(key)
            continue
        part = next((third for third in THIRDS if f".{third}." in plain), None)
        value = tensor.detach().cpu().clone()
        if part is None:
            named[found] = value
        else:
            packed.setdefault(found, {})[part] = value
    if unknown:
        raise Unusable(
            "unsuitable",
            f"DETReg's code has no place for {len(unknown)} tensors of {detector.manifest.architecture}: {some(unknown)}",
        )
    named |= {key: torch.cat([parts[third] for third in THIRDS]) for key, parts in packed.items()}
    return {key: tensor for key, tensor in named.items() if not key.endswith("num_batches_tracked")}


def _inverted(pattern: str, target: str) -> tuple[re.Pattern[str], str]:
    """A rule of the reader, from our name to the code's."""
    groups = GROUP.findall(pattern)
    ours = re.escape(target.replace("{qkv}", "QKV"))
    for number, group in enumerate(groups, 1):
        ours = ours.replace(f"\\\\{number}", f"(?P<g{number}>{group[1:-1]})")
    ours = ours.replace("QKV", "(?:q_proj|k_proj|v_proj)")
    theirs = pattern
    for number, group in enumerate(groups, 1):
        theirs = theirs.replace(group, f"\\g<g{number}>", 1)
    return re.compile(ours), theirs.replace("\\.", ".")


def _widened(key: str, tensor: Tensor, no_object: bool) -> Tensor:
    if not CLASS_HEAD.fullmatch(key):
        return tensor
    wide = tensor.new_zeros((OUTPUTS + int(no_object), *tensor.shape[1:]))
    if tensor.dim() == 1:
        wide.fill_(NEVER_SOFTMAX if no_object else NEVER_SIGMOID)
    wide[OBJECT_CLASS] = tensor[0]
    if no_object:
        wide[-1] = tensor[-1]
    return wide


def _arguments(detector: DetrDetector) -> dict[str, Any]:
    """What the code has to be started with to read the file."""
    config = detector.module.config
    deformable = detector.family.model_type == "deformable_detr"
    body = getattr(getattr(config, "backbone_config", None), "backbone", None)
    heads: Mapping[str, Any] = (
        {
            "num_feature_levels": config.num_feature_levels,
            "dec_n_points": config.decoder_n_points,
            "enc_n_points": config.encoder_n_points,
            "with_box_refine": bool(config.with_box_refine),
            "two_stage": bool(config.two_stage),
        }
        if deformable
        else {}
    )
    inner = dict(detector.manifest.options.get("config", {})).get("backbone_config") or {}
    return {
        "model": "deformable_detr" if deformable else "detr",
        "backbone": (detector.manifest.backbone or str(body or "")).rpartition("/")[2],
        "dilation": bool(
            detector.manifest.options.get("config", {}).get("dilation") or inner.get("dilation", False)
        ),
        "position_embedding": "sine",
        "enc_layers": config.encoder_layers,
        "dec_layers": config.decoder_layers,
        "dim_feedforward": config.encoder_ffn_dim,
        "hidden_dim": config.d_model,
        "dropout": float(config.dropout),
        "nheads": config.encoder_attention_heads,
        "num_queries": config.num_queries,
        "pre_norm": detector.family.model_type == "table-transformer",
        "masks": False,
        "object_embedding_loss": True,
        "obj_embedding_head": "intermediate",
        "dataset_file": "coco",
        **heads,
    }


_RULES = {
    "deformable_detr": deformable_rules,
    "detr": lambda: detr_rules(pre_norm=False),
    "table-transformer": lambda: detr_rules(pre_norm=True),
}
