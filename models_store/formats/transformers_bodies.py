"""transformers' classifiers and self-supervised encoders, as folders or files, as backbones to place in a detector.

A table of names for each kind brings them to what timm or the method's own release calls the same tensors; the network
is then found, and every key and shape compared, as of any other file. The names are those of the files on the hub.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from models_store.errors import Unusable, some
from models_store.formats import classifiers, self_supervised
from models_store.formats.preprocessor import preprocessing
from models_store.formats.state import Recognised, StateDict

Rules = tuple[tuple[str, str], ...]
# the name of the whole model before a part's, which a part saved alone lacks
MODEL = r"(?:[a-z0-9_]+\.)?"
PARTS = ("query", "key", "value")
# Classifiers, decoders of pretraining, and what is computed again.
BESIDE = re.compile(
    r"(?:\w+_)?classifier\..+|(?:\w+\.)?pooler\..+|decoder\..+|(?:vit\.)?embeddings\.mask_token"
    r"|.+\.relative_position_index|.+\.relative_coords_table|hidden_states_norms\..+"
)


@dataclass(frozen=True)
class Names:
    """rules: (pattern of a whole name behind `MODEL`, template of the new one), in which ``{a1}`` is one more than ``{a}``.
    telling: a name that says the kind where no config.json does. only: what config.json must say, where it does."""

    rules: Rules
    telling: str
    only: Mapping[str, Any]


_STEM = r"embedder\.embedder\."
_LAYER = r"encoder\.stages\.(?P<a>\d+)\.layers\.(?P<b>\d+)\."
_NORM = r"normalization\.(?P<w>\w+)"
_CONV = r"convolution\.(?P<w>\w+)"
RESNET: Rules = (
    (_STEM + _CONV, "conv1.{w}"),
    (_STEM + _NORM, "bn1.{w}"),
    (_LAYER + r"shortcut\." + _CONV, "layer{a1}.{b}.downsample.0.{w}"),
    (_LAYER + r"shortcut\." + _NORM, "layer{a1}.{b}.downsample.1.{w}"),
    (_LAYER + r"layer\.(?P<c>\d+)\." + _CONV, "layer{a1}.{b}.conv{c1}.{w}"),
    (_LAYER + r"layer\.(?P<c>\d+)\." + _NORM, "layer{a1}.{b}.bn{c1}.{w}"),
)
# the third step of a RegNet Y is its attention, so its last convolution is the fourth
REGNET: Rules = (
    (_STEM + _CONV, "stem.conv.{w}"),
    (_STEM + _NORM, "stem.bn.{w}"),
    (_LAYER + r"shortcut\." + _CONV, "s{a1}.b{b1}.downsample.conv.{w}"),
    (_LAYER + r"shortcut\." + _NORM, "s{a1}.b{b1}.downsample.bn.{w}"),
    (_LAYER + r"layer\.2\.attention\.0\.(?P<w>\w+)", "s{a1}.b{b1}.se.fc1.{w}"),
    (_LAYER + r"layer\.2\.attention\.2\.(?P<w>\w+)", "s{a1}.b{b1}.se.fc2.{w}"),
    (_LAYER + r"layer\.(?P<c>[01])\." + _CONV, "s{a1}.b{b1}.conv{c1}.conv.{w}"),
    (_LAYER + r"layer\.(?P<c>[01])\." + _NORM, "s{a1}.b{b1}.conv{c1}.bn.{w}"),
    (_LAYER + r"layer\.[23]\." + _CONV, "s{a1}.b{b1}.conv3.conv.{w}"),
    (_LAYER + r"layer\.[23]\." + _NORM, "s{a1}.b{b1}.conv3.bn.{w}"),
)
CONVNEXT: Rules = (
    (r"embeddings\.patch_embeddings\.(?P<w>\w+)", "stem.0.{w}"),
    (r"embeddings\.layernorm\.(?P<w>\w+)", "stem.1.{w}"),
    (_LAYER + r"dwconv\.(?P<w>\w+)", "stages.{a}.blocks.{b}.conv_dw.{w}"),
    (_LAYER + r"layernorm\.(?P<w>\w+)", "stages.{a}.blocks.{b}.norm.{w}"),
    (_LAYER + r"pwconv(?P<c>\d)\.(?P<w>\w+)", "stages.{a}.blocks.{b}.mlp.fc{c}.{w}"),
    (_LAYER + r"grn\.(?P<w>\w+)", "stages.{a}.blocks.{b}.mlp.grn.{w}"),
    (_LAYER + r"layer_scale_parameter", "stages.{a}.blocks.{b}.gamma"),
    (
        r"encoder\.stages\.(?P<a>\d+)\.downsampling_layer\.(?P<c>\d)\.(?P<w>\w+)",
        "stages.{a}.downsample.{c}.{w}",
    ),
    (r"layernorm\.(?P<w>\w+)", "head.norm.{w}"),
)
_BLOCK = r"encoder\.layers\.(?P<a>\d+)\.blocks\.(?P<b>\d+)\."
_WINDOWS: Rules = (
    (r"embeddings\.patch_embeddings\.projection\.(?P<w>\w+)", "patch_embed.proj.{w}"),
    (r"embeddings\.norm\.(?P<w>\w+)", "patch_embed.norm.{w}"),
    (_BLOCK + r"attention\.output\.dense\.(?P<w>\w+)", "layers.{a}.blocks.{b}.attn.proj.{w}"),
    (_BLOCK + r"layernorm_before\.(?P<w>\w+)", "layers.{a}.blocks.{b}.norm1.{w}"),
    (_BLOCK + r"layernorm_after\.(?P<w>\w+)", "layers.{a}.blocks.{b}.norm2.{w}"),
    (_BLOCK + r"intermediate\.dense\.(?P<w>\w+)", "layers.{a}.blocks.{b}.mlp.fc1.{w}"),
    (_BLOCK + r"output\.dense\.(?P<w>\w+)", "layers.{a}.blocks.{b}.mlp.fc2.{w}"),
    (r"encoder\.layers\.(?P<a>\d+)\.downsample\.(?P<p>\w+)\.(?P<w>\w+)", "layers.{a1}.downsample.{p}.{w}"),
    (r"layernorm\.(?P<w>\w+)", "norm.{w}"),
)
_SELF = _BLOCK + r"attention\.self\."
SWIN: Rules = (
    (_SELF + r"(?P<p>query|key|value)\.(?P<w>\w+)", "layers.{a}.blocks.{b}.attn.{p}.{w}"),
    (_SELF + r"relative_position_bias_table", "layers.{a}.blocks.{b}.attn.relative_position_bias_table"),
    *_WINDOWS,
)
SWIN_V2: Rules = (
    (_SELF + r"query\.bias", "layers.{a}.blocks.{b}.attn.q_bias"),
    (_SELF + r"value\.bias", "layers.{a}.blocks.{b}.attn.v_bias"),
    (_SELF + r"(?P<p>query|key|value)\.(?P<w>weight)", "layers.{a}.blocks.{b}.attn.{p}.{w}"),
    (_SELF + r"logit_scale", "layers.{a}.blocks.{b}.attn.logit_scale"),
    (
        _SELF + r"continuous_position_bias_mlp\.(?P<c>\d)\.(?P<w>\w+)",
        "layers.{a}.blocks.{b}.attn.cpb_mlp.{c}.{w}",
    ),
    *_WINDOWS,
)
_TOKENS = r"encoder\.layer\.(?P<a>\d+)\."
_PATCHES: Rules = (
    (r"embeddings\.(?P<p>cls_token|register_tokens)", "{p}"),
    (r"embeddings\.distillation_token", "dist_token"),
    (r"embeddings\.position_embeddings", "pos_embed"),
    (r"embeddings\.patch_embeddings\.projection\.(?P<w>\w+)", "patch_embed.proj.{w}"),
    (_TOKENS + r"attention\.attention\.(?P<p>query|key|value)\.(?P<w>\w+)", "blocks.{a}.attn.{p}.{w}"),
    (_TOKENS + r"attention\.output\.dense\.(?P<w>\w+)", "blocks.{a}.attn.proj.{w}"),
    (r"layernorm\.(?P<w>\w+)", "norm.{w}"),
)
VIT: Rules = (
    *_PATCHES,
    (_TOKENS + r"layernorm_before\.(?P<w>\w+)", "blocks.{a}.norm1.{w}"),
    (_TOKENS + r"layernorm_after\.(?P<w>\w+)", "blocks.{a}.norm2.{w}"),
    (_TOKENS + r"intermediate\.dense\.(?P<w>\w+)", "blocks.{a}.mlp.fc1.{w}"),
    (_TOKENS + r"output\.dense\.(?P<w>\w+)", "blocks.{a}.mlp.fc2.{w}"),
)
DINO_V2: Rules = (
    *_PATCHES,
    (r"embeddings\.mask_token", "mask_token"),
    (_TOKENS + r"norm(?P<c>\d)\.(?P<w>\w+)", "blocks.{a}.norm{c}.{w}"),
    (_TOKENS + r"layer_scale(?P<c>\d)\.lambda1", "blocks.{a}.ls{c}.gamma"),
    (_TOKENS + r"mlp\.fc(?P<c>\d)\.(?P<w>\w+)", "blocks.{a}.mlp.fc{c}.{w}"),
    (_TOKENS + r"mlp\.weights_in\.(?P<w>\w+)", "blocks.{a}.mlp.w12.{w}"),
    (_TOKENS + r"mlp\.weights_out\.(?P<w>\w+)", "blocks.{a}.mlp.w3.{w}"),
)
_VIT_BLOCK = r"(?:vit\.)?encoder\.layer\.0\.layernorm_before\.weight"
# By model_type. What a file computes otherwise than timm's network of the same tensors stands in its config.json.
KINDS: Mapping[str, Names] = {
    "resnet": Names(
        RESNET,
        r".*embedder\.embedder\.convolution\.weight",
        {"hidden_act": "relu", "downsample_in_bottleneck": False, "downsample_in_first_stage": False},
    ),
    "regnet": Names(REGNET, r".*embedder\.embedder\.convolution\.weight", {"hidden_act": "relu"}),
    "convnext": Names(CONVNEXT, r".*stages\.0\.layers\.0\.layer_scale_parameter", {"hidden_act": "gelu"}),
    "convnextv2": Names(CONVNEXT, r".*stages\.0\.layers\.0\.grn\.weight", {"hidden_act": "gelu"}),
    "swin": Names(
        SWIN,
        r".*blocks\.0\.attention\.self\.relative_position_bias_table",
        {"hidden_act": "gelu", "patch_size": 4},
    ),
    "swinv2": Names(
        SWIN_V2, r".*blocks\.0\.attention\.self\.logit_scale", {"hidden_act": "gelu", "patch_size": 4}
    ),
    "vit": Names(VIT, _VIT_BLOCK, {"hidden_act": "gelu"}),
    "vit_mae": Names(VIT, _VIT_BLOCK, {"hidden_act": "gelu"}),
    "vit_msn": Names(VIT, _VIT_BLOCK, {"hidden_act": "gelu"}),
    "deit": Names(VIT, r"(?:deit\.)?embeddings\.distillation_token", {"hidden_act": "gelu"}),
    "dinov2": Names(DINO_V2, r".*encoder\.layer\.0\.layer_scale1\.lambda1", {"hidden_act": "gelu"}),
    "dinov2_with_registers": Names(
        DINO_V2, r".*encoder\.layer\.0\.layer_scale1\.lambda1", {"hidden_act": "gelu"}
    ),
}


def recognise(state: StateDict, hint: str | None) -> Recognised | None:
    """None where neither config.json nor the names say one of `KINDS`. ``hint``: the backbone's name.

    Raises Unusable: ``unsuitable`` where config.json says what timm's networks do not do, ``unmapped_keys``,
    ``unknown_architecture`` where there is no network of these sizes, ``bad_config``.
    """
    refusal: Unusable | None = None
    for kind in _kinds(state):
        try:
            return _as(kind, state, hint)
        except Unusable as error:
            refusal = refusal or error
    if refusal is not None:
        raise refusal
    return None


def _kinds(state: StateDict) -> list[str]:
    if state.config is not None:
        said = str(state.config.get("model_type"))
        return [said] if said in KINDS else []
    return [
        kind
        for kind, names in KINDS.items()
        if any(re.fullmatch(names.telling, key) for key in state.tensors)
    ]


def _as(kind: str, state: StateDict, hint: str | None) -> Recognised:
    names = KINDS[kind]
    for key, wanted in names.only.items() if state.config is not None else ():
        if (said := (state.config or {}).get(key, wanted)) != wanted:
            raise Unusable(
                "unsuitable",
                f"config.json says {key} {str(said)[:60]}; of a {kind} only {wanted} is read",
            )
    tensors, beside = renamed(state.tensors, names.rules, kind)
    found = None
    for form in _forms(tensors, names.rules):
        alone = replace(state, tensors=form, config=None, ordered=False, dropped=(), notes=())
        found = found or self_supervised.recognise(alone, hint) or classifiers.recognise(alone, hint)
    if found is None:
        raise Unusable(
            "unknown_architecture",
            f"the file is a {kind} of transformers, of sizes that no network of timm or torchvision has; of other sizes none is "
            "read",
        )
    pixels, warnings = _pixels(state, found, kind)
    return replace(
        found,
        format="transformers_backbone",
        input={**found.input, **pixels},
        open_input="",
        dropped=(*state.dropped, *beside, *found.dropped),
        notes=(
            *state.notes,
            f"{len(tensors)} tensors were brought from transformers' names to those of {found.backbone}",
        ),
        warnings=warnings,
    )


def _pixels(state: StateDict, found: Recognised, kind: str) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Mean and std, and what is to be said of them. Its size is a classifier's, and no detector's."""
    if state.preprocessor is not None:
        spec, _, _ = preprocessing(state.preprocessor)
        return {key: spec[key] for key in ("mean", "std")}, ()
    mean, std = classifiers.seen_as(found.backbone or "")
    taken = {"mean": mean, "std": std, **found.input}
    said = classifiers.said((tuple(taken["mean"]), tuple(taken["std"])))
    return dict(taken), (
        f"there was no preprocessor_config.json, and pictures of a {kind} are normalised in more than one way: {said} was taken; "
        "send the folder with it, or give mean and std",
    )


def _forms(tensors: Mapping[str, Tensor], rules: Rules) -> Iterator[dict[str, Tensor]]:
    """timm's smaller ConvNeXts have 1x1 convolutions where the others have linear layers, which compute the same."""
    yield dict(tensors)
    if rules is CONVNEXT:
        yield {k: t[:, :, None, None] if t.dim() == 2 else t for k, t in tensors.items()}


@torch.no_grad()
def renamed(
    tensors: Mapping[str, Tensor], rules: Rules, kind: str
) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """(tensors by their new names, keys of what has no place in a backbone). Raises Unusable ``unmapped_keys``."""
    compiled = [(re.compile(MODEL + pattern), template) for pattern, template in rules]
    found: dict[str, Tensor] = {}
    beside, unknown = [], []
    for key, tensor in tensors.items():
        name = next((_filled(t, match) for p, t in compiled if (match := p.fullmatch(key))), None)
        if name is not None:
            # normalisation over positions keeps an axis for each of them here
            found[name] = tensor.flatten() if ".grn." in name else tensor
        elif BESIDE.fullmatch(key):
            beside.append(key)
        else:
            unknown.append(key)
    if unknown:
        raise Unusable(
            "unmapped_keys",
            f"the file is a {kind} of transformers, but {len(unknown)} tensors have no place in it ({some(unknown)}): send the "
            "classifier or the encoder as transformers saves it",
            [{"key": key, "message": "no place"} for key in unknown],
        )
    return dict(_joined(found)), tuple(beside)


def _filled(template: str, match: re.Match[str]) -> str:
    groups = match.groupdict()
    return template.format(**groups, **{f"{n}1": int(v) + 1 for n, v in groups.items() if v.isdigit()})


def _joined(tensors: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    """Queries, keys and values are one tensor in timm; where their shapes differ they stay, and have no place."""
    for name, tensor in tensors.items():
        head, _, last = name.rpartition(".")
        owner, _, part = head.rpartition(".")
        if part == PARTS[0]:
            three = [tensors.get(f"{owner}.{each}.{last}") for each in PARTS]
            whole = [t for t in three if t is not None and t.shape == tensor.shape]
            if tensor.dim() and len(whole) == len(three):
                yield f"{owner}.qkv.{last}", torch.cat(whole)
                continue
        elif part in PARTS and f"{owner}.{PARTS[0]}.{last}" in tensors:
            continue
        yield name, tensor
