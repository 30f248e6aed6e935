"""Original releases of RT-DETR, RT-DETRv2 and D-FINE (and DEIM, which trains these) to transformers' names in memory.

Names after the conversion tables that transformers publishes with these models; sizes are read from shapes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from models_store.detr.families import FAMILIES
from models_store.errors import Unusable
from models_store.formats.releases import count, recognised, renamed, without_counters
from models_store.formats.state import Recognised, StateDict

HEADS = 8
QUERIES = 300
DENOISING = 100
LAST = r"(weight|bias|running_mean|running_var)"
BODY = "model.backbone.model"
STAGE = rf"{BODY}.encoder.stages"
FIRST = "decoder.decoder.layers.0"
# Fixed tables that are computed again, and what deployment leaves behind.
DROPPED = re.compile(r"decoder\.(anchors|valid_mask)|decoder\.decoder\.(up|reg_scale|project)")
COMMON = (
    (r"encoder\.input_proj\.(\d+)\.(?:0|conv)\.weight", r"model.encoder_input_proj.\1.0.weight"),
    (rf"encoder\.input_proj\.(\d+)\.(?:1|norm)\.{LAST}", r"model.encoder_input_proj.\1.1.\2"),
    (
        rf"encoder\.encoder\.(\d+)\.layers\.(\d+)\.self_attn\.out_proj\.{LAST}",
        r"model.encoder.encoder.\1.layers.\2.self_attn.out_proj.\3",
    ),
    (
        r"encoder\.encoder\.(\d+)\.layers\.(\d+)\.self_attn\.in_proj_(weight|bias)",
        r"model.encoder.encoder.\1.layers.\2.self_attn.{qkv}.\3",
    ),
    (
        rf"encoder\.encoder\.(\d+)\.layers\.(\d+)\.linear([12])\.{LAST}",
        r"model.encoder.encoder.\1.layers.\2.fc\3.\4",
    ),
    (
        rf"encoder\.encoder\.(\d+)\.layers\.(\d+)\.norm1\.{LAST}",
        r"model.encoder.encoder.\1.layers.\2.self_attn_layer_norm.\3",
    ),
    (
        rf"encoder\.encoder\.(\d+)\.layers\.(\d+)\.norm2\.{LAST}",
        r"model.encoder.encoder.\1.layers.\2.final_layer_norm.\3",
    ),
    (r"encoder\.lateral_convs\.(.+)", r"model.encoder.lateral_convs.\1"),
    (
        rf"decoder\.decoder\.layers\.(\d+)\.self_attn\.out_proj\.{LAST}",
        r"model.decoder.layers.\1.self_attn.out_proj.\2",
    ),
    (
        r"decoder\.decoder\.layers\.(\d+)\.self_attn\.in_proj_(weight|bias)",
        r"model.decoder.layers.\1.self_attn.{qkv}.\2",
    ),
    (r"decoder\.decoder\.layers\.(\d+)\.cross_attn\.(.+)", r"model.decoder.layers.\1.encoder_attn.\2"),
    (rf"decoder\.decoder\.layers\.(\d+)\.linear([12])\.{LAST}", r"model.decoder.layers.\1.fc\2.\3"),
    (rf"decoder\.decoder\.layers\.(\d+)\.norm1\.{LAST}", r"model.decoder.layers.\1.self_attn_layer_norm.\2"),
    (
        rf"decoder\.decoder\.layers\.(\d+)\.norm2\.{LAST}",
        r"model.decoder.layers.\1.encoder_attn_layer_norm.\2",
    ),
    (rf"decoder\.decoder\.layers\.(\d+)\.norm3\.{LAST}", r"model.decoder.layers.\1.final_layer_norm.\2"),
    (r"decoder\.dec_score_head\.(.+)", r"model.decoder.class_embed.\1"),
    (r"decoder\.dec_bbox_head\.(.+)", r"model.decoder.bbox_embed.\1"),
    (r"decoder\.input_proj\.(\d+)\.conv\.weight", r"model.decoder_input_proj.\1.0.weight"),
    (rf"decoder\.input_proj\.(\d+)\.norm\.{LAST}", r"model.decoder_input_proj.\1.1.\2"),
    (r"decoder\.enc_output\.(?:0|proj)\.(.+)", r"model.enc_output.0.\1"),
    (r"decoder\.enc_output\.(?:1|norm)\.(.+)", r"model.enc_output.1.\1"),
    (r"decoder\.(enc_score_head|enc_bbox_head|denoising_class_embed)\.(.+)", r"model.\1.\2"),
    (r"decoder\.(query_pos_head|pre_bbox_head)\.(.+)", r"model.decoder.\1.\2"),
)
RT_DETR = (
    (r"backbone\.conv1\.conv1_1\.conv\.(.+)", rf"{BODY}.embedder.embedder.0.convolution.\1"),
    (r"backbone\.conv1\.conv1_2\.conv\.(.+)", rf"{BODY}.embedder.embedder.1.convolution.\1"),
    (r"backbone\.conv1\.conv1_3\.conv\.(.+)", rf"{BODY}.embedder.embedder.2.convolution.\1"),
    (r"backbone\.conv1\.conv1_1\.norm\.(.+)", rf"{BODY}.embedder.embedder.0.normalization.\1"),
    (r"backbone\.conv1\.conv1_2\.norm\.(.+)", rf"{BODY}.embedder.embedder.1.normalization.\1"),
    (r"backbone\.conv1\.conv1_3\.norm\.(.+)", rf"{BODY}.embedder.embedder.2.normalization.\1"),
    (
        r"backbone\.res_layers\.(\d+)\.blocks\.0\.short\.conv\.conv\.(.+)",
        rf"{STAGE}.\1.layers.0.shortcut.1.convolution.\2",
    ),
    (
        r"backbone\.res_layers\.(\d+)\.blocks\.0\.short\.conv\.norm\.(.+)",
        rf"{STAGE}.\1.layers.0.shortcut.1.normalization.\2",
    ),
    (
        r"backbone\.res_layers\.(\d+)\.blocks\.0\.short\.conv\.(weight)",
        rf"{STAGE}.\1.layers.0.shortcut.convolution.\2",
    ),
    (
        r"backbone\.res_layers\.(\d+)\.blocks\.0\.short\.norm\.(.+)",
        rf"{STAGE}.\1.layers.0.shortcut.normalization.\2",
    ),
    *(
        (
            rf"backbone\.res_layers\.(\d+)\.blocks\.(\d+)\.branch2{branch}\.{part}\.(.+)",
            rf"{STAGE}.\1.layers.\2.layer.{index}.{name}.\3",
        )
        for index, branch in enumerate("abc")
        for part, name in (("conv", "convolution"), ("norm", "normalization"))
    ),
    (r"encoder\.(fpn_blocks|pan_blocks|downsample_convs)\.(.+)", r"model.encoder.\1.\2"),
)
# HGNetV2's parts, and RepNCSPELAN4's.
D_FINE = (
    (r"backbone\.stem\.(stem\w+)\.conv\.(.+)", rf"{BODY}.embedder.\1.convolution.\2"),
    (r"backbone\.stem\.(stem\w+)\.bn\.(.+)", rf"{BODY}.embedder.\1.normalization.\2"),
    (r"backbone\.stem\.(stem\w+\.lab\..+)", rf"{BODY}.embedder.\1"),
    (r"backbone\.stages\.(.+)\.conv\.(weight)", rf"{STAGE}.\1.convolution.\2"),
    (r"backbone\.stages\.(.+)\.bn\.(.+)", rf"{STAGE}.\1.normalization.\2"),
    (r"backbone\.stages\.(.+\.lab\..+)", rf"{STAGE}.\1"),
    (r"encoder\.(fpn|pan)_blocks\.(\d+)\.cv1\.(.+)", r"model.encoder.\1_blocks.\2.conv1.\3"),
    (r"encoder\.(fpn|pan)_blocks\.(\d+)\.cv4\.(.+)", r"model.encoder.\1_blocks.\2.conv4.\3"),
    (r"encoder\.(fpn|pan)_blocks\.(\d+)\.cv2\.0\.(.+)", r"model.encoder.\1_blocks.\2.csp_rep1.\3"),
    (r"encoder\.(fpn|pan)_blocks\.(\d+)\.cv3\.0\.(.+)", r"model.encoder.\1_blocks.\2.csp_rep2.\3"),
    (r"encoder\.(fpn|pan)_blocks\.(\d+)\.cv2\.1\.(.+)", r"model.encoder.\1_blocks.\2.conv2.\3"),
    (r"encoder\.(fpn|pan)_blocks\.(\d+)\.cv3\.1\.(.+)", r"model.encoder.\1_blocks.\2.conv3.\3"),
    (r"encoder\.downsample_convs\.(\d+)\.0\.cv(\d+)\.(.+)", r"model.encoder.downsample_convs.\1.conv\2.\3"),
    (r"decoder\.decoder\.layers\.(\d+)\.(gateway\..+)", r"model.decoder.layers.\1.\2"),
    (r"decoder\.decoder\.lqe_layers\.(.+)", r"model.decoder.lqe_layers.\1"),
    (r"decoder\.(up|reg_scale)", r"model.decoder.\1"),
)
UNSAID = (
    "the number of queries is not in the file: {queries} was taken; options num_queries decides",
    "its activations are not in the file: those of {title}'s releases were taken; DEIM trains the same network, and where its "
    "configuration names others, options config says them",
)


def recognise(state: StateDict, hint: str | None) -> Recognised | None:
    """None where the keys are of none of these. Raises Unusable ``unmapped_keys``, ``missing_keys``, ``shape_mismatch``."""
    tensors = without_counters(state)
    if f"{FIRST}.cross_attn.sampling_offsets.weight" not in tensors:
        return None
    if not any(k.startswith("encoder.fpn_blocks.") for k in tensors):
        return None
    fine = any(k.startswith("decoder.decoder.lqe_layers.") for k in tensors)
    second = f"{FIRST}.cross_attn.num_points_scale" in tensors
    family = FAMILIES["d_fine" if fine else "rt_detr_v2" if second else "rt_detr"]
    mapped = renamed(tensors, (*COMMON, *(D_FINE if fine else RT_DETR)), DROPPED, family.title)
    if not fine:
        mapped = {k.replace(".num_points_scale", ".n_points_scale"): v for k, v in mapped.items()}
    try:
        given = {**_sizes(tensors), **(_fine(tensors) if fine else _vd(tensors))}
        labels = tensors["decoder.dec_score_head.0.weight"].shape[0]
    except KeyError as missing:
        raise Unusable(
            "missing_keys", f"the file is {family.title}'s, but lacks {missing}: send the whole state dict"
        ) from None
    queries = int(state.arguments.get("num_queries", QUERIES))
    given["num_queries"] = queries
    unsaid = UNSAID if "num_queries" not in state.arguments else UNSAID[1:]
    return recognised(
        state,
        family,
        given,
        mapped,
        labels,
        dropped=[k for k in tensors if DROPPED.fullmatch(k)],
        warnings=[text.format(queries=queries, title=family.title) for text in unsaid],
    )


def _sizes(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """What the families share: encoder and decoder."""
    levels = count(tensors, "encoder.input_proj")
    entry = "conv" if "encoder.input_proj.0.conv.weight" in tensors else "0"
    inputs = [tensors[f"encoder.input_proj.{i}.{entry}.weight"].shape for i in range(levels)]
    width = tensors[f"{FIRST}.linear1.weight"].shape[1]
    encoders = sorted({int(k.split(".")[2]) for k in tensors if k.startswith("encoder.encoder.")})
    decoder_levels = max(levels, count(tensors, "decoder.input_proj"))
    return {
        "encoder_hidden_dim": inputs[0][0],
        "encoder_in_channels": [shape[1] for shape in inputs],
        "encoder_layers": count(tensors, f"encoder.encoder.{encoders[0]}.layers"),
        "encoder_ffn_dim": tensors[f"encoder.encoder.{encoders[0]}.layers.0.linear1.weight"].shape[0],
        "encoder_attention_heads": HEADS,
        "encode_proj_layers": [levels - 1],
        "feat_strides": [32 >> (levels - 1 - i) for i in range(levels)],
        "d_model": width,
        "decoder_in_channels": [
            tensors[key].shape[1] if (key := f"decoder.input_proj.{i}.conv.weight") in tensors else width
            for i in range(decoder_levels)
        ],
        "num_feature_levels": decoder_levels,
        "decoder_layers": count(tensors, "decoder.decoder.layers"),
        "decoder_ffn_dim": tensors[f"{FIRST}.linear1.weight"].shape[0],
        "decoder_attention_heads": HEADS,
        "num_denoising": DENOISING if "decoder.denoising_class_embed.weight" in tensors else 0,
    }


def _vd(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """RT-DETR's ResNet-vd and its hybrid encoder."""
    layers = "backbone.res_layers"
    last = "c" if f"{layers}.0.blocks.0.branch2c.conv.weight" in tensors else "b"
    stages = count(tensors, layers)
    hidden = tensors["encoder.fpn_blocks.0.conv1.conv.weight"].shape
    rows = tensors[f"{FIRST}.cross_attn.attention_weights.weight"].shape[0]
    return {
        "backbone_config": {
            "model_type": "rt_detr_resnet",
            "embedding_size": tensors["backbone.conv1.conv1_3.conv.weight"].shape[0],
            "hidden_sizes": [
                tensors[f"{layers}.{s}.blocks.0.branch2{last}.conv.weight"].shape[0] for s in range(stages)
            ],
            "depths": [count(tensors, f"{layers}.{s}.blocks") for s in range(stages)],
            "layer_type": "bottleneck" if last == "c" else "basic",
            "out_features": ["stage2", "stage3", "stage4"],
        },
        "hidden_expansion": hidden[0] * 2 / hidden[1],
        "decoder_n_points": rows // (HEADS * count(tensors, "decoder.input_proj")),
    }


def _fine(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """D-FINE's HGNetV2, its encoder's depth, and how its boxes are distributions."""
    stages = count(tensors, "backbone.stages")
    parts = [_stage(tensors, f"backbone.stages.{s}") for s in range(stages)]
    taken = count(tensors, "encoder.input_proj")
    hidden = tensors["encoder.input_proj.0.conv.weight"].shape[0]
    block = "encoder.fpn_blocks.0.cv2.0"
    bins = tensors["decoder.dec_bbox_head.0.layers.2.weight"].shape[0] // 4
    quality = tensors["decoder.decoder.lqe_layers.0.reg_conf.layers.0.weight"].shape
    scales = tensors[f"{FIRST}.cross_attn.num_points_scale"].tolist()
    points = []
    while scales:
        points.append(round(1 / scales[0]))
        scales = scales[points[-1] :]
    return {
        "backbone_config": {
            "model_type": "hgnet_v2",
            "stem_channels": [
                3,
                tensors["backbone.stem.stem1.conv.weight"].shape[0],
                tensors["backbone.stem.stem4.conv.weight"].shape[0],
            ],
            **{name: [part[name] for part in parts] for name in parts[0]},
            "use_learnable_affine_block": "backbone.stem.stem1.lab.scale" in tensors,
            "embedding_size": tensors["backbone.stem.stem4.conv.weight"].shape[0],
            "hidden_sizes": [part["stage_out_channels"] for part in parts],
            "depths": [part["stage_num_blocks"] for part in parts],
            "out_features": [f"stage{s + 1}" for s in range(stages - taken, stages)],
        },
        "hidden_expansion": 2 * tensors[f"{block}.conv1.conv.weight"].shape[0] / hidden,
        "depth_mult": count(tensors, f"{block}.bottlenecks") / 3,
        "decoder_n_points": points,
        "max_num_bins": bins - 1,
        "lqe_hidden_dim": quality[0],
        "top_prob_values": quality[1] // 4 - 1,
    }


def _stage(tensors: Mapping[str, Tensor], stage: str) -> dict[str, Any]:
    first = f"{stage}.blocks.0.layers.0"
    light = f"{first}.conv1.conv.weight" in tensors
    outer = tensors[f"{first}.conv1.conv.weight" if light else f"{first}.conv.weight"]
    kernel = tensors[f"{first}.conv2.conv.weight"] if light else outer
    down = f"{stage}.downsample.conv.weight"
    return {
        "stage_in_channels": tensors[down].shape[0] if down in tensors else outer.shape[1],
        "stage_mid_channels": outer.shape[0],
        "stage_out_channels": tensors[f"{stage}.blocks.0.aggregation.1.conv.weight"].shape[0],
        "stage_num_blocks": count(tensors, f"{stage}.blocks"),
        "stage_downsample": down in tensors,
        "stage_light_block": light,
        "stage_kernel_size": kernel.shape[-1],
        "stage_numb_of_layers": count(tensors, f"{stage}.blocks.0.layers"),
    }
