"""ViTs of DINOv2, DINOv3, MAE and MoCo v3 in their own files: the maps are those of timm's same network."""

import re
from collections.abc import Callable

import pytest
import timm
import torch
import torchvision
from torch import Tensor

from models_store import formats, load_detector
from models_store.formats.reasons import UNKNOWN, why_dropped
from models_store.formats.wrappings import unwrap

State = dict[str, Tensor]
Saved = Callable[[State], dict]


def dinov2(state: State) -> dict:
    return state | {"mask_token": torch.zeros(1, 192)}


def dinov2_with_registers(state: State) -> dict:
    """The class token's position is a row of the position table, not in the token."""
    position = torch.randn(1, 1, state["cls_token"].shape[-1])
    named = {("register_tokens" if k == "reg_token" else k): v for k, v in state.items()}
    named["cls_token"] = state["cls_token"] - position
    named["pos_embed"] = torch.cat([position, state["pos_embed"]], dim=1)
    return dinov2(named)


def dinov3(state: State) -> dict:
    found: State = {"mask_token": torch.zeros(1, 192), "rope_embed.periods": torch.ones(16)}
    for key, value in state.items():
        if key.endswith((".q_bias", ".v_bias", ".k_bias")):
            continue
        key = key.replace("reg_token", "storage_tokens")
        found[re.sub(r"gamma_([12])", r"ls\1.gamma", key)] = value
    for key in [k for k in state if k.endswith("q_bias")]:
        q, v = state[key], state[key.replace("q_bias", "v_bias")]
        # What is masked out may hold anything.
        found[key.replace("q_bias", "qkv.bias")] = torch.cat([q, torch.full_like(q, 7.0), v])
        found[key.replace("q_bias", "qkv.bias_mask")] = torch.ones(3 * len(q))
    return found


def mae(state: State) -> dict:
    beside = {"mask_token": torch.zeros(1, 1, 8), "decoder_embed.weight": torch.zeros(8, 192)}
    return {"model": state | beside | {"decoder_blocks.0.norm1.weight": torch.zeros(8)}}


def moco_v3(state: State) -> dict:
    other = {f"module.momentum_encoder.{k}": v + 1 for k, v in state.items()}
    heads = {
        "module.base_encoder.head.0.weight": torch.zeros(8, 192),
        "module.predictor.0.weight": torch.zeros(8, 8),
    }
    return {
        "state_dict": {f"module.base_encoder.{k}": v for k, v in state.items()} | other | heads,
        "arch": "vit",
    }


CASES: dict[str, tuple[str, Saved, str]] = {
    "DINOv2": ("vit_small_patch14_dinov2", dinov2, "dinov2"),
    "DINOv2 with registers": ("vit_small_patch14_reg4_dinov2", dinov2_with_registers, "dinov2"),
    "DINOv3": ("vit_small_patch16_dinov3_qkvb", dinov3, "dinov2"),
    "MAE": ("vit_base_patch16_224", mae, "mae"),
    "MoCo v3": ("vit_small_patch16_224", moco_v3, "moco_v3"),
}


@pytest.mark.parametrize("case", CASES)
def test_maps_are_those_of_the_same_network_in_timm(case, convert_inline, tmp_path):
    name, saved, format = CASES[case]
    torch.manual_seed(0)
    sized = {} if "dinov3" in name else {"dynamic_img_size": True}
    net = timm.create_model(name, num_classes=0, **sized).eval()
    with torch.no_grad():
        for tensor in net.parameters():
            tensor.add_(torch.randn_like(tensor) * 0.02)
    torch.save(saved({k: v.clone() for k, v in net.state_dict().items()}), tmp_path / "x.pth")
    manifest = convert_inline(tmp_path / "x.pth")
    assert (manifest.format, manifest.kind) == (format, "backbone")
    assert manifest.input.mean == (0.485, 0.456, 0.406)
    assert not any("twin" in warning for warning in manifest.warnings)
    assert [k for k in manifest.dropped_keys if why_dropped(format, k) == UNKNOWN] == []
    detector = load_detector(tmp_path / "converted")
    body = detector.module.backbone.body
    pixels = torch.rand(1, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        size = [side * body.patch // 16 for side in (64, 96)]
        resized = torch.nn.functional.interpolate(pixels, size=size, mode="bilinear", align_corners=False)
        expected = net.forward_intermediates(
            resized if body.patch != 16 else pixels,
            indices=1,
            norm=True,
            output_fmt="NCHW",
            intermediates_only=True,
        )[-1]
        ours = detector.feature_maps(pixels, ["backbone.c4"])["backbone.c4"]
    assert float((ours - expected).abs().max()) <= 1e-4
    assert float(ours.abs().max()) > 0.1


RESNETS = {
    "byol": lambda s: (
        {f"online_encoder.net.{k}": v for k, v in s.items()}
        | {f"target_encoder.net.{k}": v + 1 for k, v in s.items()}
    ),
    "simsiam": lambda s: (
        {f"module.encoder.{k}": v for k, v in s.items()}
        | {"module.predictor.0.weight": torch.zeros(2, 2), "module.encoder.fc.0.weight": torch.zeros(2, 512)}
    ),
    "mmpretrain": lambda s: (
        {f"backbone.{k}": v for k, v in s.items()} | {"head.fc.weight": torch.zeros(2, 512)}
    ),
    "lightly": lambda s: (
        {f"backbone.{k}": v for k, v in s.items()} | {"projection_head.layers.0.weight": torch.zeros(2, 512)}
    ),
}


@pytest.mark.parametrize("format", RESNETS)
def test_encoders_of_other_methods(format):
    net = torchvision.models.resnet18(weights=None)
    state = {k: v for k, v in net.state_dict().items() if not k.startswith("fc.")}
    found = formats.recognise(unwrap({"state_dict": RESNETS[format](state)}, ordered=False))
    assert (found.format, found.backbone) == (format, "torchvision/resnet18")
    assert all(value is state[key.removeprefix("backbone.body.")] for key, value in found.tensors.items())
    assert [k for k in found.dropped if why_dropped(format, k) == UNKNOWN] == []


def test_vissl_and_densecl_need_no_table():
    net = torchvision.models.resnet18(weights=None)
    state = {k: v for k, v in net.state_dict().items() if not k.startswith("fc.")}
    vissl = {
        "base_model": {"model": {"trunk": {f"_feature_blocks.{k}": v for k, v in state.items()}, "heads": {}}}
    }
    for file in ({"classy_state_dict": vissl, "phase_idx": 1}, {"state_dict": state, "author": "DenseCL"}):
        found = formats.recognise(unwrap(file, ordered=True))
        assert found.backbone == "torchvision/resnet18"
        assert len(found.tensors) == 100
