"""Original releases of Conditional DETR and DAB-DETR to transformers' names."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from models_store.detr.families import FAMILIES
from models_store.errors import Unusable
from models_store.formats.detr import DEFAULT_HEADS, dropout, maybe_dilated, resnet
from models_store.formats.releases import count, recognised, renamed, without_counters
from models_store.formats.state import Recognised, StateDict

L = r"\.(weight|bias)"
ENCODER, DECODER = r"transformer\.encoder\.layers\.(\d+)\.", r"transformer\.decoder\.layers\.(\d+)\."
# Conditional DETR's panoptic head.
DROPPED = re.compile(r"(mask_head|bbox_attention)\..+")
FIRST = "transformer.decoder.layers.0."
COMMON = (
    (rf"input_proj{L}", r"model.input_projection.\1"),
    (rf"{ENCODER}self_attn\.in_proj_(weight|bias)", r"model.encoder.layers.\1.self_attn.{qkv}.\2"),
    (rf"{ENCODER}self_attn\.out_proj{L}", r"model.encoder.layers.\1.self_attn.out_proj.\2"),
    (rf"{ENCODER}linear([12]){L}", r"model.encoder.layers.\1.fc\2.\3"),
    (rf"{ENCODER}norm1{L}", r"model.encoder.layers.\1.self_attn_layer_norm.\2"),
    (rf"{ENCODER}norm2{L}", r"model.encoder.layers.\1.final_layer_norm.\2"),
    (rf"class_embed{L}", r"{CLASSES}.\1"),
    (rf"bbox_embed\.layers\.(\d+){L}", r"bbox_predictor.layers.\1.\2"),
    (rf"transformer\.decoder\.norm{L}", r"model.decoder.layernorm.\1"),
    (
        rf"transformer\.(encoder|decoder)\.(query_scale|ref_point_head|ref_anchor_head)\.layers\.(\d+){L}",
        r"model.\1.\2.layers.\3.\4",
    ),
)
CONDITIONAL = (
    *((pattern, target.replace("{CLASSES}", "class_labels_classifier")) for pattern, target in COMMON),
    (r"backbone\.0\.body\.(.+)", r"model.backbone.model.\1"),
    (r"query_embed\.weight", "model.query_position_embeddings.weight"),
    (rf"{DECODER}((?:sa|ca)_\w+_proj){L}", r"model.decoder.layers.\1.\2.\3"),
    (rf"{DECODER}self_attn\.out_proj{L}", r"model.decoder.layers.\1.self_attn.out_proj.\2"),
    (rf"{DECODER}cross_attn\.out_proj{L}", r"model.decoder.layers.\1.encoder_attn.out_proj.\2"),
    (rf"{DECODER}linear([12]){L}", r"model.decoder.layers.\1.fc\2.\3"),
    (rf"{DECODER}norm1{L}", r"model.decoder.layers.\1.self_attn_layer_norm.\2"),
    (rf"{DECODER}norm2{L}", r"model.decoder.layers.\1.encoder_attn_layer_norm.\2"),
    (rf"{DECODER}norm3{L}", r"model.decoder.layers.\1.final_layer_norm.\2"),
)
ATTENTION = {"sa": "self_attn", "ca": "cross_attn"}
PROJECTED = {
    "qcontent": "query_content",
    "kcontent": "key_content",
    "qpos": "query_pos",
    "kpos": "key_pos",
    "v": "value",
    "qpos_sine": "query_pos_sine",
}
DAB = (
    *((pattern, target.replace("{CLASSES}", "class_embed")) for pattern, target in COMMON),
    (r"backbone\.0\.body\.(.+)", r"model.backbone.conv_encoder.model._backbone.\1"),
    (r"refpoint_embed\.weight", "model.query_refpoint_embeddings.weight"),
    (r"transformer\.patterns\.weight", "model.patterns.weight"),
    (rf"transformer\.decoder\.bbox_embed\.layers\.(\d+){L}", r"model.decoder.bbox_embed.layers.\1.\2"),
    (rf"{ENCODER}activation\.weight", r"model.encoder.layers.\1.activation_fn.weight"),
    (rf"{DECODER}activation\.weight", r"model.decoder.layers.\1.mlp.activation_fn.weight"),
    *(
        (
            rf"{DECODER}{short}_{theirs}_proj{L}",
            rf"model.decoder.layers.\1.{long}.{long}_{ours}_proj.\2",
        )
        for short, long in ATTENTION.items()
        for theirs, ours in PROJECTED.items()
    ),
    *(
        (rf"{DECODER}{long}\.out_proj{L}", rf"model.decoder.layers.\1.{long}.{long}.output_proj.\2")
        for long in ATTENTION.values()
    ),
    (rf"{DECODER}linear([12]){L}", r"model.decoder.layers.\1.mlp.fc\2.\3"),
    (rf"{DECODER}norm1{L}", r"model.decoder.layers.\1.self_attn.self_attn_layer_norm.\2"),
    (rf"{DECODER}norm2{L}", r"model.decoder.layers.\1.cross_attn.cross_attn_layer_norm.\2"),
    (rf"{DECODER}norm3{L}", r"model.decoder.layers.\1.mlp.final_layer_norm.\2"),
)
DC5_TEMPERATURE = 10
TEMPERATURE = 20


def recognise(state: StateDict, hint: str | None) -> Recognised | None:
    """None where the keys are of neither. Raises Unusable ``unmapped_keys``, ``missing_keys``, ``shape_mismatch``."""
    tensors = {k.removeprefix("detr."): v for k, v in without_counters(state).items()}
    if FIRST + "ca_qcontent_proj.weight" not in tensors:
        return None
    anchors = "refpoint_embed.weight" in tensors
    family = FAMILIES["dab-detr" if anchors else "conditional_detr"]
    mapped = renamed(tensors, DAB if anchors else CONDITIONAL, DROPPED, family.title)
    try:
        given = _sizes(state, tensors, anchors)
        labels = tensors["class_embed.weight"].shape[0]
    except KeyError as missing:
        raise Unusable(
            "missing_keys", f"the file is {family.title}'s, but lacks {missing}: send the whole state dict"
        ) from None
    return recognised(
        state,
        family,
        given,
        mapped,
        labels,
        dropped=[k for k in tensors if DROPPED.fullmatch(k)],
        warnings=maybe_dilated(state),
    )


def _sizes(state: StateDict, tensors: Mapping[str, Tensor], anchors: bool) -> dict[str, Any]:
    queries = tensors["refpoint_embed.weight" if anchors else "query_embed.weight"]
    width = tensors["class_embed.weight"].shape[1]
    heads = int(state.arguments.get("nheads") or DEFAULT_HEADS)
    dilated = bool(state.arguments.get("dilation", False))
    given = {
        "backbone_config": {
            "model_type": "timm_backbone",
            "backbone": resnet(tensors),
            "features_only": True,
            "use_pretrained_backbone": False,
            "out_indices": [1, 2, 3, 4],
            **({"output_stride": 16} if dilated else {}),
        },
        "encoder_layers": count(tensors, "transformer.encoder.layers"),
        "decoder_layers": count(tensors, "transformer.decoder.layers"),
        "encoder_attention_heads": heads,
        "decoder_attention_heads": heads,
        "encoder_ffn_dim": tensors["transformer.encoder.layers.0.linear1.weight"].shape[0],
        "decoder_ffn_dim": tensors[FIRST + "linear1.weight"].shape[0],
        "num_queries": queries.shape[0],
        **dropout(state),
    }
    if not anchors:
        return {**given, "d_model": width}
    patterns = tensors.get("transformer.patterns.weight")
    # As published: its DC5 networks have flatter positions.
    heat = int(state.arguments.get("pe_temperatureH") or (DC5_TEMPERATURE if dilated else TEMPERATURE))
    wide = int(state.arguments.get("pe_temperatureW") or heat)
    return {
        **given,
        "hidden_size": width,
        "temperature_height": heat,
        "temperature_width": wide,
        "num_patterns": 0 if patterns is None else patterns.shape[0],
        "keep_query_pos": FIRST.replace(".0.", ".1.") + "ca_qpos_proj.weight" in tensors,
        "random_refpoints_xy": bool(state.arguments.get("random_refpoints_xy", False)),
        "activation_function": "prelu" if FIRST + "activation.weight" in tensors else "relu",
    }
