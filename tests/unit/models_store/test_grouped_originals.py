"""Original releases of RF-DETR, LW-DETR, Conditional DETR and DAB-DETR: every tensor finds its place.

The original code is not here. A file in its names is written from transformers' module by a table that goes the other
way (RF-DETR's is transformers' own), so a wrong or exchanged name in either shows in the outputs.
"""

import argparse
import re
from pathlib import Path

import pytest
import torch
import transformers
from detr_configs import CONFIGS, family_of
from safetensors.torch import load_file
from torch import Tensor, nn

from models_store import Unusable, formats, load_detector
from models_store.formats.wrappings import unwrap
from tests.unit.models_store.family_table import furthest, measured

LAYER = r"model\.decoder\.layers\.(\d+)\."
VIT = r"model\.backbone\.backbone\."
SCALE = r"model\.backbone\.projector\.scale_layers\.(\d+)\."
STAGE = r"backbone.0.projector.stages.\1."
LW = (
    (VIT + r"embeddings\.position_embeddings", "backbone.0.encoder.pos_embed"),
    (VIT + r"embeddings\.projection\.(.+)", r"backbone.0.encoder.patch_embed.proj.\1"),
    (VIT + r"encoder\.layer\.(\d+)\.(gamma_\d)", r"backbone.0.encoder.blocks.\1.\2"),
    (VIT + r"encoder\.layer\.(\d+)\.layernorm_before\.(.+)", r"backbone.0.encoder.blocks.\1.norm1.\2"),
    (VIT + r"encoder\.layer\.(\d+)\.layernorm_after\.(.+)", r"backbone.0.encoder.blocks.\1.norm2.\2"),
    (
        VIT + r"encoder\.layer\.(\d+)\.attention\.(q|v)_proj\.bias",
        r"backbone.0.encoder.blocks.\1.attn.\2_bias",
    ),
    (VIT + r"encoder\.layer\.(\d+)\.attention\.o_proj\.(.+)", r"backbone.0.encoder.blocks.\1.attn.proj.\2"),
    (VIT + r"encoder\.layer\.(\d+)\.intermediate\.(.+)", r"backbone.0.encoder.blocks.\1.mlp.\2"),
    (
        SCALE + r"sampling_layers\.(\d+)\.layers\.(\d+)\.norm\.(.+)",
        r"backbone.0.projector.stages_sampling.\1.\2.\3.bn.\4",
    ),
    (
        SCALE + r"sampling_layers\.(\d+)\.layers\.(\d+)\.(.+)",
        r"backbone.0.projector.stages_sampling.\1.\2.\3.\4",
    ),
    (SCALE + r"projector_layer\.conv(\d)\.norm\.(.+)", STAGE + r"0.cv\2.bn.\3"),
    (SCALE + r"projector_layer\.conv(\d)\.conv\.(.+)", STAGE + r"0.cv\2.conv.\3"),
    (SCALE + r"projector_layer\.bottlenecks\.(\d+)\.conv(\d)\.norm\.(.+)", STAGE + r"0.m.\2.cv\3.bn.\4"),
    (SCALE + r"projector_layer\.bottlenecks\.(\d+)\.conv(\d)\.conv\.(.+)", STAGE + r"0.m.\2.cv\3.conv.\4"),
    (SCALE + r"layer_norm\.(.+)", STAGE + r"1.\2"),
    (LAYER + r"self_attn\.o_proj\.(.+)", r"transformer.decoder.layers.\1.self_attn.out_proj.\2"),
    (LAYER + r"mlp\.fc(\d)\.(.+)", r"transformer.decoder.layers.\1.linear\2.\3"),
    (LAYER + r"self_attn_layer_norm\.(.+)", r"transformer.decoder.layers.\1.norm1.\2"),
    (LAYER + r"cross_attn_layer_norm\.(.+)", r"transformer.decoder.layers.\1.norm2.\2"),
    (LAYER + r"layer_norm\.(.+)", r"transformer.decoder.layers.\1.norm3.\2"),
    (LAYER + r"(cross_attn\..+)", r"transformer.decoder.layers.\1.\2"),
    (r"model\.decoder\.layernorm\.(.+)", r"transformer.decoder.norm.\1"),
    (r"model\.decoder\.(ref_point_head\..+)", r"transformer.decoder.\1"),
    (r"model\.(enc_out.+)", r"transformer.\1"),
    (r"model\.reference_point_embed\.weight", "refpoint_embed.weight"),
    (r"model\.(query_feat\.weight)", r"\1"),
    (r"((?:class|bbox)_embed\..+)", r"\1"),
)
ENCODER = r"model\.encoder\.layers\.(\d+)\."
THEIRS = "transformer.encoder.layers."
BOTH = (
    (r"model\.input_projection\.(.+)", r"input_proj.\1"),
    (ENCODER + r"self_attn\.(?:o_proj|out_proj)\.(.+)", THEIRS + r"\1.self_attn.out_proj.\2"),
    (ENCODER + r"(?:mlp\.)?fc(\d)\.(.+)", THEIRS + r"\1.linear\2.\3"),
    (ENCODER + r"activation_fn\.(.+)", THEIRS + r"\1.activation.\2"),
    (ENCODER + r"self_attn_layer_norm\.(.+)", THEIRS + r"\1.norm1.\2"),
    (ENCODER + r"final_layer_norm\.(.+)", THEIRS + r"\1.norm2.\2"),
    (r"model\.decoder\.layernorm\.(.+)", r"transformer.decoder.norm.\1"),
    (r"model\.(encoder|decoder)\.((?:query_scale|ref_\w+_head)\..+)", r"transformer.\1.\2"),
    (r"bbox_predictor\.(.+)", r"bbox_embed.\1"),
)
CONDITIONAL = (
    *BOTH,
    (r"model\.backbone\.model\.(?:_backbone\.)?(.+)", r"backbone.0.body.\1"),
    (r"model\.query_position_embeddings\.weight", "query_embed.weight"),
    (r"class_labels_classifier\.(.+)", r"class_embed.\1"),
    (LAYER + r"self_attn\.o_proj\.(.+)", r"transformer.decoder.layers.\1.self_attn.out_proj.\2"),
    (LAYER + r"encoder_attn\.o_proj\.(.+)", r"transformer.decoder.layers.\1.cross_attn.out_proj.\2"),
    (LAYER + r"self_attn\.([qk])_(content|pos)_proj\.(.+)", r"transformer.decoder.layers.\1.sa_\2\3_proj.\4"),
    (LAYER + r"self_attn\.v_proj\.(.+)", r"transformer.decoder.layers.\1.sa_v_proj.\2"),
    (
        LAYER + r"encoder_attn\.([qk])_(content|pos)_proj\.(.+)",
        r"transformer.decoder.layers.\1.ca_\2\3_proj.\4",
    ),
    (LAYER + r"encoder_attn\.q_pos_sine_proj\.(.+)", r"transformer.decoder.layers.\1.ca_qpos_sine_proj.\2"),
    (LAYER + r"encoder_attn\.v_proj\.(.+)", r"transformer.decoder.layers.\1.ca_v_proj.\2"),
    (LAYER + r"mlp\.fc(\d)\.(.+)", r"transformer.decoder.layers.\1.linear\2.\3"),
    (LAYER + r"self_attn_layer_norm\.(.+)", r"transformer.decoder.layers.\1.norm1.\2"),
    (LAYER + r"encoder_attn_layer_norm\.(.+)", r"transformer.decoder.layers.\1.norm2.\2"),
    (LAYER + r"final_layer_norm\.(.+)", r"transformer.decoder.layers.\1.norm3.\2"),
)
DAB = (
    *BOTH,
    (r"model\.backbone\.conv_encoder\.model\.(?:_backbone\.)?(.+)", r"backbone.0.body.\1"),
    (r"model\.query_refpoint_embeddings\.weight", "refpoint_embed.weight"),
    (r"(class_embed\..+)", r"\1"),
    (r"model\.decoder\.(bbox_embed\..+)", r"transformer.decoder.\1"),
    (
        LAYER + r"self_attn\.self_attn\.output_proj\.(.+)",
        r"transformer.decoder.layers.\1.self_attn.out_proj.\2",
    ),
    (
        LAYER + r"cross_attn\.cross_attn\.output_proj\.(.+)",
        r"transformer.decoder.layers.\1.cross_attn.out_proj.\2",
    ),
    (LAYER + r"self_attn\.self_attn_layer_norm\.(.+)", r"transformer.decoder.layers.\1.norm1.\2"),
    (LAYER + r"cross_attn\.cross_attn_layer_norm\.(.+)", r"transformer.decoder.layers.\1.norm2.\2"),
    (LAYER + r"mlp\.final_layer_norm\.(.+)", r"transformer.decoder.layers.\1.norm3.\2"),
    (LAYER + r"mlp\.fc(\d)\.(.+)", r"transformer.decoder.layers.\1.linear\2.\3"),
    (LAYER + r"mlp\.activation_fn\.(.+)", r"transformer.decoder.layers.\1.activation.\2"),
    (
        LAYER + r"self_attn\.self_attn_(query|key)_(content|pos)_proj\.(.+)",
        r"transformer.decoder.layers.\1.sa_<\2>\3_proj.\4",
    ),
    (LAYER + r"self_attn\.self_attn_value_proj\.(.+)", r"transformer.decoder.layers.\1.sa_v_proj.\2"),
    (
        LAYER + r"cross_attn\.cross_attn_(query|key)_(content|pos_sine|pos)_proj\.(.+)",
        r"transformer.decoder.layers.\1.ca_<\2>\3_proj.\4",
    ),
    (LAYER + r"cross_attn\.cross_attn_value_proj\.(.+)", r"transformer.decoder.layers.\1.ca_v_proj.\2"),
)
TABLES = {"lw_detr": LW, "conditional_detr": CONDITIONAL, "dab-detr": DAB}
RESNET18 = {
    "model_type": "timm_backbone",
    "backbone": "resnet18",
    "features_only": True,
    "use_pretrained_backbone": False,
    "out_indices": [1, 2, 3, 4],
}
# What the module is made with, and the training arguments of such a file.
MADE = {
    "rf_detr": (
        {"num_queries": 6},
        {
            "sa_nheads": 4,
            "ca_nheads": 4,
            "num_windows": 2,
            "out_feature_indexes": [2, 4],
            "resolution": 64,
            "class_names": ["a", "b"],
        },
    ),
    "lw_detr": (
        {},
        {
            "sa_nheads": 4,
            "ca_nheads": 4,
            "window_block_indexes": [0, 2],
            "out_feature_indexes": [1, 3],
            "vit_encoder_num_heads": 3,
        },
    ),
    "conditional_detr": ({"backbone_config": RESNET18}, {"nheads": 4, "dilation": False}),
    "dab-detr": ({"backbone_config": RESNET18}, {"nheads": 4, "dilation": False}),
}


def module_of(name: str) -> nn.Module:
    """transformers' own, every tensor random."""
    family = family_of(name)
    config = {**CONFIGS[name], **MADE[name][0]}
    if name == "lw_detr":
        config["backbone_config"] = {**config["backbone_config"], "num_windows": 16, "image_size": 128}
    if name == "rf_detr":
        config["backbone_config"] = {**config["backbone_config"], "hidden_size": 64, "num_attention_heads": 1}
    torch.manual_seed(0)
    made = getattr(transformers, family.config_class)(**config, num_labels=3)
    module = getattr(transformers, family.module_class)(made).eval()
    with torch.no_grad():
        for key, tensor in module.state_dict().items():
            if key.endswith("running_var"):
                tensor.uniform_(0.5, 1.5)
            elif tensor.is_floating_point():
                tensor.add_(torch.empty_like(tensor).normal_(0, 0.05))
    if name == "dab-detr":
        # One head in the original, and so one in transformers' file.
        module.model.decoder.bbox_embed.load_state_dict(module.bbox_predictor.state_dict())
    return module


def original(name: str, module: nn.Module, folder: Path) -> dict[str, Tensor]:
    """The module's tensors as the original release names and packs them."""
    if name == "rf_detr":
        module.save_pretrained(folder)
        return load_file(folder / "model.safetensors")
    found: dict[str, Tensor] = {}
    thirds: dict[str, dict[str, Tensor]] = {}
    for key, tensor in module.state_dict().items():
        if key.endswith("num_batches_tracked"):
            continue
        packed = re.fullmatch(
            r"model\.(decoder|encoder)\.layers\.(\d+)\.self_attn\.([qkv])_proj\.(weight|bias)", key
        )
        if packed and not (name == "conditional_detr" and packed[1] == "decoder"):
            owner = f"transformer.{packed[1]}.layers.{packed[2]}.self_attn.in_proj_{packed[4]}"
            thirds.setdefault(owner, {})[packed[3]] = tensor
            continue
        if block := re.fullmatch(VIT + r"encoder\.layer\.(\d+)\.attention\.([qkv])_proj\.weight", key):
            thirds.setdefault(f"backbone.0.encoder.blocks.{block[1]}.attn.qkv.weight", {})[block[2]] = tensor
            continue
        for pattern, target in TABLES[name]:
            if match := re.fullmatch(pattern, key):
                found[match.expand(target).replace("<query>", "q").replace("<key>", "k")] = tensor
                break
        else:
            raise AssertionError(f"{key} has no original name in this test")
    return found | {key: torch.cat([parts[p] for p in "qkv"]) for key, parts in thirds.items()}


@pytest.mark.parametrize("name", MADE)
def test_an_original_file_computes_what_the_module_does(name, convert_inline, tmp_path):
    module = module_of(name)
    weights = original(name, module, tmp_path / "saved")
    extra = {"segmentation_head.bias": torch.zeros(1)} if name == "rf_detr" else {}
    file = {"model": weights | extra, "args": argparse.Namespace(**MADE[name][1]), "epoch": 3}
    torch.save(file, tmp_path / "x.pth")
    manifest = convert_inline(tmp_path / "x.pth")
    assert manifest.architecture == "transformers/" + name.replace("-", "_")
    assert manifest.format == name.replace("-", "_") + "_original"
    assert (manifest.num_classes, manifest.warnings) == (3, ())
    assert set(extra) <= set(manifest.dropped_keys)
    side = {"rf_detr": 64, "lw_detr": 640}.get(name)
    assert manifest.input.fixed_size == ((side, side) if side else None)
    pixels = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = module(pixel_values=pixels)
        ours = load_detector(tmp_path / "converted").module(pixel_values=pixels)
    assert float(expected.logits.std()) > 0.01
    torch.testing.assert_close(ours.logits, expected.logits, rtol=0, atol=1e-5)
    torch.testing.assert_close(ours.pred_boxes, expected.pred_boxes, rtol=0, atol=1e-5)
    measured(
        family_of(name).title,
        "original release",
        "transformers' module, names by a table that goes the other way",
        logits=furthest(ours.logits, expected.logits),
        boxes=furthest(ours.pred_boxes, expected.pred_boxes),
    )


@pytest.mark.parametrize("name", ["rf_detr", "dab-detr"])
def test_what_arguments_do_not_say_is_warned_of(name, tmp_path):
    weights = original(name, module_of(name), tmp_path / "saved")
    if name == "rf_detr":
        # Of no published size: what the refusal asks for is all that is missing.
        with pytest.raises(Unusable, match="options out_feature_indexes"):
            formats.recognise(unwrap({"model": weights}, ordered=True))
        arguments = {"out_feature_indexes": [2, 4]}
        found = formats.recognise(unwrap({"model": weights, "args": arguments}, ordered=True))
        assert "attention heads and windows" in found.warnings[0]
    else:
        found = formats.recognise(unwrap({"model": weights}, ordered=True))
        assert any("DC5" in warning for warning in found.warnings)


@pytest.mark.parametrize("name", ["rf_detr", "lw_detr", "dab-detr"])
def test_what_is_missing_or_left_over_is_named(name, tmp_path):
    weights = original(name, module_of(name), tmp_path / "saved")
    arguments = {"args": MADE[name][1]}
    with pytest.raises(Unusable, match="no place") as refusal:
        formats.recognise(
            unwrap(
                {"model": weights | {"transformer.extra.weight": torch.zeros(2)}} | arguments, ordered=True
            )
        )
    assert "transformer.extra.weight" in refusal.value.errors[0]["key"]
    key = "transformer.decoder.layers.0.norm1.weight"
    with pytest.raises(Unusable, match="missing"):
        formats.recognise(
            unwrap({"model": {k: v for k, v in weights.items() if k != key}} | arguments, ordered=True)
        )


def test_rf_detr_of_two_scales_is_named(tmp_path):
    weights = original("rf_detr", module_of("rf_detr"), tmp_path / "saved")
    second = {k.replace("stages.0.", "stages.1."): v for k, v in weights.items() if "stages.0." in k}
    with pytest.raises(Unusable, match="Large of 2025") as refusal:
        formats.recognise(unwrap(weights | second, ordered=True))
    assert refusal.value.code == "unsuitable"
