"""Original releases of RT-DETR, RT-DETRv2 and D-FINE: every tensor finds its place, sizes are read from shapes.

The original code is not here. A file in its names is written from transformers' module by a table that goes the other
way, so a wrong or exchanged name in either table shows in the outputs.
"""

import re

import pytest
import torch
from detr_configs import random_detr
from torch import Tensor

from models_store import Unusable, formats, load_detector
from models_store.detr.families import FAMILIES
from models_store.formats.wrappings import unwrap
from tests.unit.models_store.family_table import furthest, measured

BODY = r"model\.backbone\.model\."
DECODER = r"model\.decoder\.layers\.(\d+)\."
AIFI = r"model\.encoder\.(?:aifi|encoder)\.(\d+)\.layers\.(\d+)\."
NAMES = {"convolution": "conv", "normalization": "norm"}


def shared(second: bool) -> list[tuple[str, str]]:
    """transformers' names in memory to the original ones; the second releases name parts instead of counting them."""
    conv, norm, proj = ("conv", "norm", "proj") if second else ("0", "1", "0")
    return [
        (r"model\.encoder_input_proj\.(\d+)\.0\.(.+)", rf"encoder.input_proj.\1.{conv}.\2"),
        (r"model\.encoder_input_proj\.(\d+)\.1\.(.+)", rf"encoder.input_proj.\1.{norm}.\2"),
        (AIFI + r"self_attn\.o_proj\.(.+)", r"encoder.encoder.\1.layers.\2.self_attn.out_proj.\3"),
        (AIFI + r"mlp\.fc([12])\.(.+)", r"encoder.encoder.\1.layers.\2.linear\3.\4"),
        (AIFI + r"mlp\.layers\.0\.(.+)", r"encoder.encoder.\1.layers.\2.linear1.\3"),
        (AIFI + r"mlp\.layers\.1\.(.+)", r"encoder.encoder.\1.layers.\2.linear2.\3"),
        (AIFI + r"self_attn_layer_norm\.(.+)", r"encoder.encoder.\1.layers.\2.norm1.\3"),
        (AIFI + r"final_layer_norm\.(.+)", r"encoder.encoder.\1.layers.\2.norm2.\3"),
        (DECODER + r"self_attn\.o_proj\.(.+)", r"decoder.decoder.layers.\1.self_attn.out_proj.\2"),
        (
            DECODER + r"encoder_attn\.(?:n|num)_points_scale",
            r"decoder.decoder.layers.\1.cross_attn.num_points_scale",
        ),
        (DECODER + r"encoder_attn\.(.+)", r"decoder.decoder.layers.\1.cross_attn.\2"),
        (DECODER + r"mlp\.fc([12])\.(.+)", r"decoder.decoder.layers.\1.linear\2.\3"),
        (DECODER + r"mlp\.layers\.0\.(.+)", r"decoder.decoder.layers.\1.linear1.\2"),
        (DECODER + r"mlp\.layers\.1\.(.+)", r"decoder.decoder.layers.\1.linear2.\2"),
        (DECODER + r"self_attn_layer_norm\.(.+)", r"decoder.decoder.layers.\1.norm1.\2"),
        (DECODER + r"encoder_attn_layer_norm\.(.+)", r"decoder.decoder.layers.\1.norm2.\2"),
        (DECODER + r"final_layer_norm\.(.+)", r"decoder.decoder.layers.\1.norm3.\2"),
        (DECODER + r"(gateway\..+)", r"decoder.decoder.layers.\1.\2"),
        (r"model\.decoder\.lqe_layers\.(.+)", r"decoder.decoder.lqe_layers.\1"),
        (r"model\.decoder\.class_embed\.(.+)", r"decoder.dec_score_head.\1"),
        (r"model\.decoder\.bbox_embed\.(.+)", r"decoder.dec_bbox_head.\1"),
        (r"model\.decoder_input_proj\.(\d+)\.0\.(.+)", r"decoder.input_proj.\1.conv.\2"),
        (r"model\.decoder_input_proj\.(\d+)\.1\.(.+)", r"decoder.input_proj.\1.norm.\2"),
        (r"model\.enc_output\.0\.(.+)", rf"decoder.enc_output.{proj}.\1"),
        (r"model\.enc_output\.1\.(.+)", rf"decoder.enc_output.{norm}.\1"),
        (r"model\.(enc_score_head|enc_bbox_head|denoising_class_embed)\.(.+)", r"decoder.\1.\2"),
        (r"model\.decoder\.(query_pos_head|pre_bbox_head|up|reg_scale)(.*)", r"decoder.\1\2"),
    ]


RESNET_VD = [
    (
        BODY + r"encoder\.stages\.(\d+)\.layers\.0\.shortcut\.1\.(\w+)\.(.+)",
        r"backbone.res_layers.\1.blocks.0.short.conv.<\2>.\3",
    ),
    (
        BODY + r"encoder\.stages\.(\d+)\.layers\.0\.shortcut\.(\w+)\.(.+)",
        r"backbone.res_layers.\1.blocks.0.short.<\2>.\3",
    ),
    (
        BODY + r"encoder\.stages\.(\d+)\.layers\.(\d+)\.layer\.0\.(\w+)\.(.+)",
        r"backbone.res_layers.\1.blocks.\2.branch2a.<\3>.\4",
    ),
    (
        BODY + r"encoder\.stages\.(\d+)\.layers\.(\d+)\.layer\.1\.(\w+)\.(.+)",
        r"backbone.res_layers.\1.blocks.\2.branch2b.<\3>.\4",
    ),
    (
        BODY + r"encoder\.stages\.(\d+)\.layers\.(\d+)\.layer\.2\.(\w+)\.(.+)",
        r"backbone.res_layers.\1.blocks.\2.branch2c.<\3>.\4",
    ),
    (BODY + r"embedder\.embedder\.0\.(\w+)\.(.+)", r"backbone.conv1.conv1_1.<\1>.\2"),
    (BODY + r"embedder\.embedder\.1\.(\w+)\.(.+)", r"backbone.conv1.conv1_2.<\1>.\2"),
    (BODY + r"embedder\.embedder\.2\.(\w+)\.(.+)", r"backbone.conv1.conv1_3.<\1>.\2"),
    (r"model\.encoder\.(lateral_convs|fpn_blocks|pan_blocks|downsample_convs)\.(.+)", r"encoder.\1.\2"),
]
HGNET = [
    (BODY + r"embedder\.(stem\w+)\.(lab\..+)", r"backbone.stem.\1.\2"),
    (BODY + r"embedder\.(stem\w+)\.convolution\.(.+)", r"backbone.stem.\1.conv.\2"),
    (BODY + r"embedder\.(stem\w+)\.normalization\.(.+)", r"backbone.stem.\1.bn.\2"),
    (BODY + r"encoder\.stages\.(.+)\.convolution\.(.+)", r"backbone.stages.\1.conv.\2"),
    (BODY + r"encoder\.stages\.(.+)\.normalization\.(.+)", r"backbone.stages.\1.bn.\2"),
    (BODY + r"encoder\.stages\.(.+)", r"backbone.stages.\1"),
    (r"model\.encoder\.(\w+_blocks)\.(\d+)\.conv1\.(.+)", r"encoder.\1.\2.cv1.\3"),
    (r"model\.encoder\.(\w+_blocks)\.(\d+)\.conv2\.(.+)", r"encoder.\1.\2.cv2.1.\3"),
    (r"model\.encoder\.(\w+_blocks)\.(\d+)\.conv3\.(.+)", r"encoder.\1.\2.cv3.1.\3"),
    (r"model\.encoder\.(\w+_blocks)\.(\d+)\.conv4\.(.+)", r"encoder.\1.\2.cv4.\3"),
    (r"model\.encoder\.(\w+_blocks)\.(\d+)\.csp_rep1\.(.+)", r"encoder.\1.\2.cv2.0.\3"),
    (r"model\.encoder\.(\w+_blocks)\.(\d+)\.csp_rep2\.(.+)", r"encoder.\1.\2.cv3.0.\3"),
    (r"model\.encoder\.downsample_convs\.(\d+)\.conv(\d)\.(.+)", r"encoder.downsample_convs.\1.0.cv\2.\3"),
    (r"model\.encoder\.lateral_convs\.(.+)", r"encoder.lateral_convs.\1"),
]


def original(name: str, module: torch.nn.Module) -> dict[str, Tensor]:
    """The module's tensors as the original release names and packs them."""
    second = name != "rt_detr"
    rules = [*shared(second), *(HGNET if name == "d_fine" else RESNET_VD)]
    found: dict[str, Tensor] = {}
    thirds: dict[str, dict[str, Tensor]] = {}
    for key, tensor in module.state_dict().items():
        if key.endswith("num_batches_tracked") or key.startswith(("class_embed.", "bbox_embed.")):
            continue
        if part := re.fullmatch(r"(.+self_attn)\.([qkv])_proj\.(weight|bias)", key):
            owner = re.sub(r"^model\.encoder\.(?:aifi|encoder)", "encoder.encoder", part[1])
            owner = re.sub(r"^model\.decoder\.layers", "decoder.decoder.layers", owner)
            thirds.setdefault(f"{owner}.in_proj_{part[3]}", {})[part[2]] = tensor
            continue
        for pattern, target in rules:
            if match := re.fullmatch(pattern, key):
                name_of = re.sub(r"<(\w+)>", lambda m: NAMES[m[1]], match.expand(target))
                found[name_of] = tensor
                break
        else:
            raise AssertionError(f"{key} has no original name in this test")
    found |= {key: torch.cat([parts[p] for p in "qkv"]) for key, parts in thirds.items()}
    return found | {"decoder.anchors": torch.zeros(1, 9, 4), "decoder.valid_mask": torch.ones(1, 9, 1)}


def wide(name: str) -> torch.nn.Module:
    """Eight heads, as the releases have; names count what this file's other sizes do not."""
    import detr_configs

    kept = dict(detr_configs.CONFIGS[name])
    detr_configs.CONFIGS[name] = {**kept, "encoder_attention_heads": 8, "decoder_attention_heads": 8}
    try:
        module = random_detr(name)
        for key, tensor in module.state_dict().items():
            if key.endswith("num_points_scale"):
                # A fixed table, from which the points of each level are read.
                tensor.copy_(torch.tensor([1 / n for n in (3, 6, 3) for _ in range(n)]))
        return module
    finally:
        detr_configs.CONFIGS[name] = kept


@pytest.mark.parametrize("name", ["rt_detr", "rt_detr_v2", "d_fine"])
def test_an_original_file_computes_what_the_module_does(name, convert_inline, tmp_path):
    module = wide(name)
    weights = original(name, module)
    other = {k: v + 1 if v.is_floating_point() else v for k, v in weights.items()}
    file = {"model": other, "ema": {"module": weights, "updates": 3}, "last_epoch": 71}
    torch.save(file, tmp_path / "x.pth")
    manifest = convert_inline(tmp_path / "x.pth", overrides={"options": {"num_queries": 6}})
    assert manifest.architecture == f"transformers/{name}"
    assert manifest.format == f"{name}_original"
    assert manifest.num_classes == 3
    assert manifest.input.fixed_size == (640, 640)
    assert not any("num_queries" in warning for warning in manifest.warnings)
    pixels = torch.rand(1, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    detector = load_detector(tmp_path / "converted")
    with torch.no_grad():
        expected, ours = module(pixel_values=pixels), detector.module(pixel_values=pixels)
    torch.testing.assert_close(ours.logits, expected.logits, rtol=0, atol=1e-5)
    torch.testing.assert_close(ours.pred_boxes, expected.pred_boxes, rtol=0, atol=1e-5)
    measured(
        FAMILIES[name].title,
        "original release",
        "transformers' module, names by a table that goes the other way",
        logits=furthest(ours.logits, expected.logits),
        boxes=furthest(ours.pred_boxes, expected.pred_boxes),
    )
    assert "decoder.anchors" in manifest.dropped_keys


def test_exchanged_names_would_be_noticed(convert_inline, tmp_path):
    module = wide("rt_detr")
    weights = original("rt_detr", module)
    a, b = (f"decoder.decoder.layers.{i}.norm1.bias" for i in (0, 1))
    torch.save({"model": weights | {a: weights[b], b: weights[a]}}, tmp_path / "x.pth")
    convert_inline(tmp_path / "x.pth", overrides={"options": {"num_queries": 6}})
    pixels = torch.rand(1, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = module(pixel_values=pixels).logits
        ours = load_detector(tmp_path / "converted").module(pixel_values=pixels).logits
    assert float((expected - ours).abs().max()) > 1e-3


def test_what_is_missing_or_left_over_is_named():
    weights = original("rt_detr", wide("rt_detr"))
    with pytest.raises(Unusable, match="no place") as refusal:
        formats.recognise(unwrap(weights | {"decoder.extra.weight": torch.zeros(2)}, ordered=True))
    assert refusal.value.errors == [{"key": "decoder.extra.weight", "message": "no place"}]
    del weights["decoder.enc_output.0.weight"]
    with pytest.raises(Unusable) as refusal:
        formats.recognise(unwrap(weights, ordered=True))
    assert refusal.value.code == "missing_keys"


def test_what_the_file_does_not_say_is_warned_of():
    found = formats.recognise(unwrap(original("d_fine", wide("d_fine")), ordered=True))
    assert any("options num_queries" in warning for warning in found.warnings)
    assert any("DEIM" in warning for warning in found.warnings)
