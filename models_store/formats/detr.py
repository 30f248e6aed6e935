"""Published DETR code's files (DETR, Deformable DETR, DETReg, DETR_WSOD) to transformers' names in memory."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from models_store.detr.families import architecture_name
from models_store.errors import Unusable, some
from models_store.formats.state import COUNTER, Recognised, StateDict

DEFAULT_HEADS = 8
# DETReg gave every region this class of COCO's 91, because no script of it ever said otherwise.
OBJECT_CLASS = 1
TRANSFORMERS = ("model.decoder.layers.0.", "vit.embeddings.detection_tokens")
DEFAULT_QUERIES = 300
BODY = "backbone.0.body."
# Of DETR_WSOD's instance classifiers and of DETR's panoptic head.
DROPPED = (r"mil\..+", r"refinement_agents\..+", r"(mask_head|bbox_attention)\..+")

LINEAR = r"\.(weight|bias)"
FEED_FORWARD = {"linear1": "mlp.fc1", "linear2": "mlp.fc2"}
ENCODER_NORMS = {"norm1": "self_attn_layer_norm", "norm2": "final_layer_norm"}
DEFORMABLE_PARTS = r"(sampling_offsets|attention_weights|value_proj|output_proj)"

# depth of blocks per stage, bottleneck: torchvision's and timm's common name
RESNETS = {
    ((2, 2, 2, 2), False): "resnet18",
    ((3, 4, 6, 3), False): "resnet34",
    ((3, 4, 6, 3), True): "resnet50",
    ((3, 4, 23, 3), True): "resnet101",
    ((3, 8, 36, 3), True): "resnet152",
}
# width of the first 3x3 convolution in and out, where it is not a plain bottleneck's
WIDER = {
    ("resnet50", (4, 128)): "resnext50_32x4d",
    ("resnet101", (8, 256)): "resnext101_32x8d",
    ("resnet50", (128, 128)): "wide_resnet50_2",
    ("resnet101", (128, 128)): "wide_resnet101_2",
}


def recognise(state: StateDict, hint: str | None) -> Recognised | None:
    """None where the keys are not of this code. Raises Unusable ``unmapped_keys``, ``unknown_architecture``."""
    tensors = {k.removeprefix("detr."): v for k, v in state.tensors.items() if not k.endswith(COUNTER)}
    if "transformer.level_embed" in tensors:
        return _deformable(state, tensors)
    if "transformer.decoder.norm.weight" in tensors and "input_proj.weight" in tensors:
        return _detr(state, tensors)
    if any(key.startswith(TRANSFORMERS) for key in tensors):
        raise Unusable(
            "missing_config",
            "the tensors have transformers' names, but its config.json is not there: send the whole folder as .zip or "
            ".tar.gz, or name it as hf://org/repo",
        )
    return None


def _deformable(state: StateDict, tensors: Mapping[str, Tensor]) -> Recognised:
    levels, width = tensors["transformer.level_embed"].shape
    layer = "transformer.encoder.layers.0"
    _need(
        tensors,
        f"{layer}.self_attn.attention_weights.weight",
        f"{layer}.linear1.weight",
        "class_embed.0.weight",
        "transformer.decoder.layers.0.cross_attn.attention_weights.weight",
        "transformer.decoder.layers.0.linear1.weight",
        BODY + "conv1.weight",
    )
    heads, unsure = _heads(state, width)
    two_stage = "transformer.enc_output.weight" in tensors
    refine = "transformer.decoder.bbox_embed.0.layers.0.weight" in tensors
    queries = state.arguments.get("num_queries", DEFAULT_QUERIES)
    if not two_stage:
        _need(tensors, "query_embed.weight")
        queries = tensors["query_embed.weight"].shape[0]

    def points(name: str) -> int:
        rows = tensors[f"{name}.attention_weights.weight"].shape[0]
        if rows % (heads * levels):
            raise Unusable(
                "shape_mismatch",
                f"{rows} attention weights cannot be shared by {heads} heads and {levels} levels: give nheads in args",
            )
        return rows // (heads * levels)

    config = {
        **_backbone(state, tensors),
        "d_model": width,
        "encoder_layers": _count(tensors, "transformer.encoder.layers"),
        "decoder_layers": _count(tensors, "transformer.decoder.layers"),
        "encoder_attention_heads": heads,
        "decoder_attention_heads": heads,
        "encoder_ffn_dim": tensors[f"{layer}.linear1.weight"].shape[0],
        "decoder_ffn_dim": tensors["transformer.decoder.layers.0.linear1.weight"].shape[0],
        "num_queries": int(queries),
        "num_feature_levels": levels,
        "encoder_n_points": points(f"{layer}.self_attn"),
        "decoder_n_points": points("transformer.decoder.layers.0.cross_attn"),
        "with_box_refine": refine,
        "two_stage": two_stage,
        "two_stage_num_proposals": int(queries),
        **dropout(state),
    }
    mapped = _mapped(tensors, deformable_rules())
    _same_heads(mapped, "bbox_embed.")
    _same_heads(mapped, "class_embed.")
    pretraining = any(k.startswith("feature_embed.") for k in tensors)
    kind = "two_stage" if two_stage else "refine" if refine else "plain"
    return Recognised(
        format="detreg_deformable_detr" if pretraining else "deformable_detr",
        kind="detector",
        architecture=architecture_name("deformable_detr"),
        tensors=mapped,
        num_classes=tensors["class_embed.0.weight"].shape[0],
        dropped=(*state.dropped, *_dropped(tensors)),
        options={
            "config": config,
            "shared_heads": not refine and _equal_heads(mapped),
            **_of_pretraining(tensors),
        },
        notes=(
            *state.notes,
            f"Deformable DETR, {kind.replace('_', '-')}",
            *_pretraining_note(pretraining),
        ),
        warnings=(*unsure, *maybe_dilated(state)),
    )


def _detr(state: StateDict, tensors: Mapping[str, Tensor]) -> Recognised:
    first = "transformer.decoder.layers.0"
    _need(
        tensors,
        "query_embed.weight",
        "class_embed.weight",
        f"{first}.linear1.weight",
        "transformer.encoder.layers.0.linear1.weight",
        BODY + "conv1.weight",
    )
    queries, width = tensors["query_embed.weight"].shape
    heads, unsure = _heads(state, width)
    pre_norm = "transformer.encoder.norm.weight" in tensors
    pretraining = any(k.startswith("feature_embed.") for k in tensors)
    weak = any(k.startswith(("mil.", "refinement_agents.")) for k in tensors)
    centred, reason = _centred(state, tensors, pre_norm, pretraining)
    config = {
        **_backbone(state, tensors),
        "d_model": width,
        "encoder_layers": _count(tensors, "transformer.encoder.layers"),
        "decoder_layers": _count(tensors, "transformer.decoder.layers"),
        "encoder_attention_heads": heads,
        "decoder_attention_heads": heads,
        "encoder_ffn_dim": tensors["transformer.encoder.layers.0.linear1.weight"].shape[0],
        "decoder_ffn_dim": tensors[f"{first}.linear1.weight"].shape[0],
        "num_queries": queries,
        **dropout(state),
    }
    weak_note = (
        ("its class head was never trained: image labels moved the dropped heads only",) if weak else ()
    )
    return Recognised(
        format="detr_wsod" if weak else "detreg_detr" if pretraining else "detr",
        kind="detector",
        architecture=architecture_name("table-transformer" if pre_norm else "detr"),
        tensors=_mapped(tensors, detr_rules(pre_norm)),
        num_classes=tensors["class_embed.weight"].shape[0] - 1,
        dropped=(*state.dropped, *_dropped(tensors)),
        options={"config": config, "centred_sine": centred, **_of_pretraining(tensors)},
        notes=(*state.notes, *weak_note, *_pretraining_note(pretraining)),
        warnings=(*unsure, *reason, *maybe_dilated(state)),
    )


def _centred(
    state: StateDict, tensors: Mapping[str, Tensor], pre_norm: bool, pretraining: bool
) -> tuple[bool, tuple[str, ...]]:
    """DETReg's DETR counts positions from cell centres; keys alone do not always tell whose code it was."""
    theirs = "obj_embedding_head" in state.arguments or "object_embedding_loss" in state.arguments
    if pretraining or (pre_norm and theirs):
        return True, ()
    if pre_norm and not state.arguments and resnet(tensors) == "resnet18":
        return False, (
            "normalisation first over a ResNet-18 and no training arguments: read as Table Transformer; give options "
            "centred_sine=true for DETReg's DETR, whose positions are shifted by half a cell",
        )
    if pre_norm and not state.arguments:
        return True, (
            "normalisation first and no training arguments: read as DETReg's DETR, whose positions are shifted by "
            "half a cell; give options centred_sine=false for another code's",
        )
    return False, ()


def _of_pretraining(tensors: Mapping[str, Tensor]) -> dict[str, int]:
    """What a pretraining needs to go on, where the file has its head."""
    if not any(key.startswith("feature_embed.") for key in tensors):
        return {}
    _need(tensors, "feature_embed.layers.0.weight", "feature_embed.layers.1.weight")
    return {"embedding": tensors["feature_embed.layers.1.weight"].shape[0], "object_class": OBJECT_CLASS}


def _pretraining_note(pretraining: bool) -> tuple[str, ...]:
    return ("DETReg pretraining: only class 1 of the head was ever trained",) if pretraining else ()


def deformable_rules() -> list[tuple[str, str]]:
    rules = [
        (r"backbone\.0\.body\.(.+)", r"model.backbone.model.\1"),
        (rf"input_proj\.(\d+)\.([01]){LINEAR}", r"model.input_proj.\1.\2.\3"),
        (r"query_embed\.weight", "model.query_position_embeddings.weight"),
        (r"transformer\.level_embed", "model.level_embed"),
        (
            rf"transformer\.(reference_points|enc_output|enc_output_norm|pos_trans|pos_trans_norm){LINEAR}",
            r"model.\1.\2",
        ),
        (
            rf"transformer\.encoder\.layers\.(\d+)\.self_attn\.{DEFORMABLE_PARTS}{LINEAR}",
            r"model.encoder.layers.\1.self_attn.\2.\3",
        ),
        (
            rf"transformer\.decoder\.layers\.(\d+)\.cross_attn\.{DEFORMABLE_PARTS}{LINEAR}",
            r"model.decoder.layers.\1.encoder_attn.\2.\3",
        ),
        (rf"feature_embed\.layers\.([01]){LINEAR}", r"feature_embed.layers.\1.\2"),
        (rf"(class_embed\.\d+|bbox_embed\.\d+\.layers\.\d+){LINEAR}", r"\1.\2"),
        (
            rf"transformer\.decoder\.(class_embed\.\d+|bbox_embed\.\d+\.layers\.\d+){LINEAR}",
            r"model.decoder.\1.\2",
        ),
    ]
    # Cross attention comes first in the code but second in the names.
    norms = {"norm2": "self_attn_layer_norm", "norm1": "encoder_attn_layer_norm", "norm3": "final_layer_norm"}
    rules += _layer_rules("encoder", ENCODER_NORMS | FEED_FORWARD)
    rules += _layer_rules("decoder", norms | FEED_FORWARD)
    return rules + _attention_rules("decoder", "self_attn", "self_attn", "o_proj")


def detr_rules(pre_norm: bool) -> list[tuple[str, str]]:
    # transformers' Table Transformer kept the older names.
    body = "model.backbone.conv_encoder.model." if pre_norm else "model.backbone.model."
    feed_forward = {"linear1": "fc1", "linear2": "fc2"} if pre_norm else FEED_FORWARD
    output = "out_proj" if pre_norm else "o_proj"
    rules = [
        (r"backbone\.0\.body\.(.+)", rf"{body}\1"),
        (rf"input_proj{LINEAR}", r"model.input_projection.\1"),
        (r"query_embed\.weight", "model.query_position_embeddings.weight"),
        (rf"transformer\.(encoder|decoder)\.norm{LINEAR}", r"model.\1.layernorm.\2"),
        (rf"class_embed{LINEAR}", r"class_labels_classifier.\1"),
        (rf"feature_embed\.layers\.([01]){LINEAR}", r"feature_embed.layers.\1.\2"),
        (rf"bbox_embed\.layers\.(\d+){LINEAR}", r"bbox_predictor.layers.\1.\2"),
    ]
    norms = {"norm1": "self_attn_layer_norm", "norm2": "encoder_attn_layer_norm", "norm3": "final_layer_norm"}
    rules += _layer_rules("encoder", ENCODER_NORMS | feed_forward) + _layer_rules(
        "decoder", norms | feed_forward
    )
    rules += _attention_rules("encoder", "self_attn", "self_attn", output)
    rules += _attention_rules("decoder", "self_attn", "self_attn", output)
    return rules + _attention_rules("decoder", "multihead_attn", "encoder_attn", output)


def _layer_rules(side: str, names: Mapping[str, str]) -> list[tuple[str, str]]:
    return [
        (rf"transformer\.{side}\.layers\.(\d+)\.{theirs}{LINEAR}", rf"model.{side}.layers.\1.{ours}.\2")
        for theirs, ours in names.items()
    ]


def _attention_rules(side: str, theirs: str, ours: str, output: str) -> list[tuple[str, str]]:
    layer, target = rf"transformer\.{side}\.layers\.(\d+)\.{theirs}", rf"model.{side}.layers.\1.{ours}"
    return [
        (rf"{layer}\.out_proj{LINEAR}", rf"{target}.{output}.\2"),
        (rf"{layer}\.in_proj_(weight|bias)", rf"{target}.{{qkv}}.\2"),
    ]


def _mapped(tensors: Mapping[str, Tensor], rules: list[tuple[str, str]]) -> dict[str, Tensor]:
    """Every tensor under its new name; the packed query, key and value rows become three tensors."""
    found: dict[str, Tensor] = {}
    unknown: list[str] = []
    compiled = [(re.compile(pattern), target) for pattern, target in rules]
    for key, tensor in tensors.items():
        if any(re.fullmatch(pattern, key) for pattern in DROPPED):
            continue
        target = next((m.expand(t) for p, t in compiled if (m := p.fullmatch(key))), None)
        if target is None:
            unknown.append(key)
        else:
            found |= packed_thirds(key, target, tensor)
    if unknown:
        raise Unusable(
            "unmapped_keys",
            f"{len(unknown)} tensors have no place in the architecture: {some(unknown)}",
            [{"key": key, "message": "no place"} for key in sorted(unknown)],
        )
    return found


def packed_thirds(key: str, target: str, tensor: Tensor) -> dict[str, Tensor]:
    """The tensor under its new name; where that has ``{qkv}``, its three thirds are query, key and value.

    Raises Unusable ``shape_mismatch``.
    """
    if "{qkv}" not in target:
        return {target: tensor}
    if tensor.shape[0] % 3:
        raise Unusable("shape_mismatch", f"{key} has {tensor.shape[0]} rows, not three times the width")
    parts = ("q_proj", "k_proj", "v_proj")
    return {target.replace("{qkv}", p): x for p, x in zip(parts, tensor.chunk(3), strict=True)}


def _dropped(tensors: Mapping[str, Tensor]) -> list[str]:
    return sorted(k for k in tensors if any(re.fullmatch(pattern, k) for pattern in DROPPED))


def _same_heads(mapped: Mapping[str, Tensor], name: str) -> None:
    """Files of the refining variants hold the heads twice; they are one module and must agree."""
    prefix = "model.decoder."
    both = [k for k in mapped if k.startswith(prefix + name) and k.removeprefix(prefix) in mapped]
    other = [k for k in both if not torch.equal(mapped[k], mapped[k.removeprefix(prefix)])]
    if other:
        raise Unusable(
            "corrupt",
            f"the file holds two different copies of {some(other)}, which one module writes: save it again",
        )


def _equal_heads(mapped: Mapping[str, Tensor]) -> bool:
    """Without refinement one head serves all layers and is written once for each."""
    heads = {k: v for k, v in mapped.items() if k.startswith(("class_embed.", "bbox_embed."))}
    first = {k: re.sub(r"^(class_embed|bbox_embed)\.\d+", r"\1.0", k) for k in heads}
    return all(first[k] in heads and torch.equal(v, heads[first[k]]) for k, v in heads.items())


def _heads(state: StateDict, width: int) -> tuple[int, tuple[str, ...]]:
    heads = state.arguments.get("nheads")
    notes: tuple[str, ...] = ()
    if heads is None:
        heads = DEFAULT_HEADS
        notes = (
            f"the number of attention heads is not in the file; {heads}, as published, was taken: options nheads decides",
        )
    if not isinstance(heads, int) or heads < 1 or width % heads:
        raise Unusable(
            "shape_mismatch", f"{heads} attention heads do not divide the width {width}: correct nheads"
        )
    return heads, notes


def maybe_dilated(state: StateDict) -> tuple[str, ...]:
    if "dilation" in state.arguments:
        return ()
    return (
        "whether the body's last stage is dilated (DC5) is not in the file; it was read as not: options dilation=true for a "
        "DC5 model",
    )


def _backbone(state: StateDict, tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    return {"backbone": resnet(tensors), "dilation": bool(state.arguments.get("dilation", False))}


def resnet(tensors: Mapping[str, Tensor]) -> str:
    """The common name of the ResNet under ``backbone.0.body``. Raises Unusable ``unknown_architecture``."""
    one, two, three, four = (_count(tensors, f"{BODY}layer{i}") for i in (1, 2, 3, 4))
    counts = (one, two, three, four)
    bottleneck = f"{BODY}layer1.0.conv3.weight" in tensors
    name = RESNETS.get((counts, bottleneck))
    if name is None:
        raise Unusable(
            "unknown_architecture",
            f"the backbone has {counts} blocks ({'bottleneck' if bottleneck else 'basic'}) and is no published ResNet",
        )
    if bottleneck:
        rows, columns = tensors[f"{BODY}layer1.0.conv2.weight"].shape[:2]
        name = WIDER.get((name, (columns, rows)), name)
    return name


def dropout(state: StateDict) -> dict[str, float]:
    """The published attention and feed-forward use one rate everywhere; transformers' defaults do not."""
    rate = state.arguments.get("dropout", 0.1)
    rate = float(rate) if isinstance(rate, int | float) and 0 <= rate < 1 else 0.1
    return {"dropout": rate, "attention_dropout": rate, "activation_dropout": rate}


def _count(tensors: Mapping[str, Tensor], prefix: str) -> int:
    return len(Counter(m[1] for k in tensors if (m := re.match(re.escape(prefix) + r"\.(\d+)\.", k))))


def _need(tensors: Mapping[str, Tensor], *keys: str) -> None:
    missing = [key for key in keys if key not in tensors]
    if missing:
        raise Unusable(
            "missing_keys",
            f"the file looks like DETR but lacks {some(missing)}: send the whole state dict",
            [{"key": key, "message": "missing"} for key in missing],
        )
