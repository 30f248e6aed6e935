"""Original releases of LW-DETR and RF-DETR, whose queries are trained in groups, to transformers' names."""

from __future__ import annotations

import re
from collections.abc import Mapping
from math import isqrt
from typing import Any

from torch import Tensor

from models_store.detr.families import FAMILIES
from models_store.errors import Unusable
from models_store.formats.releases import count, recognised, renamed, without_counters
from models_store.formats.state import Recognised, StateDict

L = r"\.(weight|bias)"
LAST = r"(weight|bias|running_mean|running_var)"
VIT, OURS = r"backbone\.0\.encoder\.", "model.backbone.backbone."
SCALE = r"backbone\.0\.projector\.stages\.(\d+)\."
SCALED = r"model.backbone.projector.scale_layers.\1."
DECODER = r"transformer\.decoder\.layers\.(\d+)\."
WINDOWED = "backbone.0.encoder.encoder."
FIRST = "transformer.decoder.layers.0."
LW_DETR = (
    (rf"{VIT}pos_embed", rf"{OURS}embeddings.position_embeddings"),
    (rf"{VIT}patch_embed\.proj{L}", rf"{OURS}embeddings.projection.\1"),
    (rf"{VIT}blocks\.(\d+)\.(gamma_[12])", rf"{OURS}encoder.layer.\1.\2"),
    (rf"{VIT}blocks\.(\d+)\.norm1{L}", rf"{OURS}encoder.layer.\1.layernorm_before.\2"),
    (rf"{VIT}blocks\.(\d+)\.norm2{L}", rf"{OURS}encoder.layer.\1.layernorm_after.\2"),
    (rf"{VIT}blocks\.(\d+)\.attn\.qkv\.weight", rf"{OURS}encoder.layer.\1.attention.{{qkv}}.weight"),
    (rf"{VIT}blocks\.(\d+)\.attn\.([qv])_bias", rf"{OURS}encoder.layer.\1.attention.\2_proj.bias"),
    (rf"{VIT}blocks\.(\d+)\.attn\.proj{L}", rf"{OURS}encoder.layer.\1.attention.o_proj.\2"),
    (rf"{VIT}blocks\.(\d+)\.mlp\.fc([12]){L}", rf"{OURS}encoder.layer.\1.intermediate.fc\2.\3"),
    *(
        (rf"{SCALE}0\.cv([12])\.{theirs}\.{LAST}", rf"{SCALED}projector_layer.conv\2.{ours}.\3")
        for theirs, ours in (("conv", "conv"), ("bn", "norm"))
    ),
    *(
        (
            rf"{SCALE}0\.m\.(\d+)\.cv([12])\.{theirs}\.{LAST}",
            rf"{SCALED}projector_layer.bottlenecks.\2.conv\3.{ours}.\4",
        )
        for theirs, ours in (("conv", "conv"), ("bn", "norm"))
    ),
    (rf"{SCALE}1{L}", rf"{SCALED}layer_norm.\2"),
    *(
        (
            rf"backbone\.0\.projector\.stages_sampling\.(\d+)\.(\d+)\.(\d+)\.{theirs}{LAST}",
            rf"{SCALED}sampling_layers.\2.layers.\3.{ours}\4",
        )
        for theirs, ours in ((r"conv\.", "conv."), (r"bn\.", "norm."), ("", ""))
    ),
    (rf"{DECODER}self_attn\.in_proj_(weight|bias)", r"model.decoder.layers.\1.self_attn.{qkv}.\2"),
    (rf"{DECODER}self_attn\.out_proj{L}", r"model.decoder.layers.\1.self_attn.o_proj.\2"),
    (rf"{DECODER}(cross_attn\.\w+){L}", r"model.decoder.layers.\1.\2.\3"),
    (rf"{DECODER}linear([12]){L}", r"model.decoder.layers.\1.mlp.fc\2.\3"),
    (rf"{DECODER}norm1{L}", r"model.decoder.layers.\1.self_attn_layer_norm.\2"),
    (rf"{DECODER}norm2{L}", r"model.decoder.layers.\1.cross_attn_layer_norm.\2"),
    (rf"{DECODER}norm3{L}", r"model.decoder.layers.\1.layer_norm.\2"),
    (rf"transformer\.decoder\.norm{L}", r"model.decoder.layernorm.\1"),
    (rf"transformer\.decoder\.(ref_point_head\.layers\.\d+){L}", r"model.decoder.\1.\2"),
    (rf"transformer\.(enc_out\w+\.\d+(?:\.layers\.\d+)?){L}", r"model.\1.\2"),
    (r"refpoint_embed\.weight", "model.reference_point_embed.weight"),
    (r"query_feat\.weight", "model.query_feat.weight"),
    (rf"(class_embed|bbox_embed\.layers\.\d+){L}", r"\1.\2"),
)
# RF-DETR's names on disk are those that transformers itself reads.
RF_DETR = ((r"(.+)", r"\1"),)
# Its instance segmentation head.
DROPPED = re.compile(r"segmentation_head\..+")
SIZE = 640
VIT_HEADS = 12
WINDOWS = 16
# Which blocks attend within windows and which give maps, by the number of blocks, as published.
LW_BLOCKS = {6: ([0, 2, 4], [1, 3, 5]), 10: ([0, 1, 3, 6, 7, 9], [2, 4, 5, 9])}
# By patch size: windows a side, blocks that give maps, input side where the position table does not say it; as published.
RF_SIZES = {
    14: (4, [2, 5, 8, 11], 560),
    16: (2, [3, 6, 9, 12], None),
    12: (2, [3, 6, 9, 12], None),
}
# Width of the decoder to its heads in self and in cross attention; as published.
HEADS = {256: (8, 16), 384: (12, 24)}
UNSAID = (
    "the training arguments are not in the file: {what} of {title}'s releases were taken for a network of these sizes; options "
    "config says others"
)


def recognise(state: StateDict, hint: str | None) -> Recognised | None:
    """None where the keys are of neither. Raises Unusable ``unmapped_keys``, ``missing_keys``, ``shape_mismatch``."""
    tensors = {k.removeprefix("model."): v for k, v in without_counters(state).items()}
    if "refpoint_embed.weight" not in tensors or f"{FIRST}cross_attn.sampling_offsets.weight" not in tensors:
        return None
    windowed = any(k.startswith(WINDOWED) for k in tensors)
    family = FAMILIES["rf_detr" if windowed else "lw_detr"]
    if windowed and any(k.startswith("backbone.0.projector.stages.1.") for k in tensors):
        raise Unusable(
            "unsuitable",
            "the file is RF-DETR Large of 2025, which mixes two scales and is not read: send RF-DETR Nano, Small, Base, "
            "Medium, or Large of 2026",
        )
    mapped = renamed(tensors, RF_DETR if windowed else LW_DETR, DROPPED, family.title)
    try:
        given, unsaid = _sizes(state, tensors)
        body, more = (_windowed if windowed else _plain)(state, tensors)
        labels = tensors["class_embed.weight"].shape[0]
    except KeyError as missing:
        raise Unusable(
            "missing_keys", f"the file is {family.title}'s, but lacks {missing}: send the whole state dict"
        ) from None
    side = body.pop("side")
    what = [*unsaid, *more]
    return recognised(
        state,
        family,
        {**given, **body},
        mapped,
        labels,
        dropped=[k for k in tensors if DROPPED.fullmatch(k)],
        warnings=[UNSAID.format(what=" and ".join(what), title=family.title)] if what else (),
        input={"fixed_size": (side, side)},
    )


def _sizes(state: StateDict, tensors: Mapping[str, Tensor]) -> tuple[dict[str, Any], list[str]]:
    """Projector and decoder, alike in both; and what had to be taken from the releases."""
    said = state.arguments
    width = tensors["class_embed.weight"].shape[1]
    usual = HEADS.get(width, (8, 16))
    mine, cross = int(said.get("sa_nheads") or usual[0]), int(said.get("ca_nheads") or usual[1])
    stages = count(tensors, "backbone.0.projector.stages")
    rows = tensors[f"{FIRST}cross_attn.attention_weights.weight"].shape[0]
    if rows % (cross * stages):
        raise Unusable(
            "shape_mismatch",
            f"{rows} attention weights cannot be shared by {cross} heads and {stages} levels: give options ca_nheads",
        )
    groups = count(tensors, "transformer.enc_output")
    block = "backbone.0.projector.stages.0.0"
    return {
        "d_model": width,
        "decoder_layers": count(tensors, "transformer.decoder.layers"),
        "decoder_ffn_dim": tensors[f"{FIRST}linear1.weight"].shape[0],
        "decoder_self_attention_heads": mine,
        "decoder_cross_attention_heads": cross,
        "decoder_n_points": rows // (cross * stages),
        "group_detr": groups,
        "num_queries": tensors["refpoint_embed.weight"].shape[0] // groups,
        "hidden_expansion": tensors[f"{block}.cv1.conv.weight"].shape[0] / 2 / width,
        "c2f_num_blocks": count(tensors, f"{block}.m"),
    }, [] if "ca_nheads" in said and "sa_nheads" in said else ["attention heads"]


def _plain(state: StateDict, tensors: Mapping[str, Tensor]) -> tuple[dict[str, Any], list[str]]:
    """LW-DETR's plain ViT with windows, and the scales of its projector."""
    said = state.arguments
    blocks = count(tensors, "backbone.0.encoder.blocks")
    patch = tensors["backbone.0.encoder.patch_embed.proj.weight"]
    places = tensors["backbone.0.encoder.pos_embed"].shape[1]
    usual = LW_BLOCKS.get(blocks)
    windows = said.get("window_block_indexes") or (usual and usual[0])
    taken = said.get("out_feature_indexes") or (usual and usual[1])
    if not windows or not taken:
        raise Unusable(
            "missing_keys",
            f"a ViT of {blocks} blocks is of no published LW-DETR, and which of them have windows is not in the file: give "
            "options window_block_indexes and out_feature_indexes",
        )
    stages = count(tensors, "backbone.0.projector.stages")
    body = {
        "model_type": "lw_detr_vit",
        "hidden_size": patch.shape[0],
        "num_hidden_layers": blocks,
        "num_attention_heads": int(said.get("vit_encoder_num_heads") or VIT_HEADS),
        "mlp_ratio": tensors["backbone.0.encoder.blocks.0.mlp.fc1.weight"].shape[0] // patch.shape[0],
        "patch_size": patch.shape[-1],
        "image_size": 1024,
        "pretrain_image_size": isqrt(places - 1) * patch.shape[-1],
        "num_windows": WINDOWS,
        "window_block_indices": list(windows),
        "out_indices": list(taken),
    }
    return {
        "backbone_config": body,
        "projector_scale_factors": [_scale(tensors, index) for index in range(stages)],
        "side": SIZE,
    }, [] if "window_block_indexes" in said else ["windows"]


def _scale(tensors: Mapping[str, Tensor], index: int) -> float:
    sampling = f"backbone.0.projector.stages_sampling.{index}.0."
    inside = [k.removeprefix(sampling) for k in tensors if k.startswith(sampling)]
    if not inside:
        return 1.0
    # Maps are made smaller by a convolution alone, larger by a transposed one.
    return 2.0 if any(re.fullmatch(r"\d+\.weight", name) for name in inside) else 0.5


def _windowed(state: StateDict, tensors: Mapping[str, Tensor]) -> tuple[dict[str, Any], list[str]]:
    """RF-DETR's DINOv2 with windows."""
    said = state.arguments
    inner = WINDOWED + "embeddings."
    patch = tensors[inner + "patch_embeddings.projection.weight"]
    width, side = patch.shape[0], patch.shape[-1]
    grid = isqrt(tensors[inner + "position_embeddings"].shape[1] - 1) * side
    usual = RF_SIZES.get(side, RF_SIZES[16])
    blocks = count(tensors, WINDOWED + "encoder.layer")
    taken = said.get("out_feature_indexes") or usual[1]
    if max(taken) > blocks:
        raise Unusable(
            "missing_keys",
            f"a DINOv2 of {blocks} blocks is of no published RF-DETR, and which of them give maps is not in the file: give "
            "options out_feature_indexes",
        )
    body = {
        "model_type": "rf_detr_dinov2",
        "hidden_size": width,
        "num_hidden_layers": blocks,
        "num_attention_heads": max(1, width // 64),
        "mlp_ratio": tensors[WINDOWED + "encoder.layer.0.mlp.fc1.weight"].shape[0] // width,
        "patch_size": side,
        "image_size": grid,
        "num_windows": int(said.get("num_windows") or usual[0]),
        "out_features": [f"stage{index}" for index in taken],
        "use_mask_token": inner + "mask_token" in tensors,
    }
    resolution = int(said.get("resolution") or usual[2] or grid)
    return {"backbone_config": body, "side": resolution}, [] if "num_windows" in said else ["windows"]
