"""Classifiers under the names of their original releases, which timm's own tables rename."""

import re
from collections.abc import Callable

import pytest
import timm
import torch
from torch import Tensor

from models_store import load_detector
from models_store.errors import Unusable

State = dict[str, Tensor]


def convnext(state: State) -> State:
    rules = (
        (r"^stem\.", "downsample_layers.0."),
        (r"^stages\.(\d+)\.downsample\.", r"downsample_layers.\1."),
        (r"^stages\.(\d+)\.blocks\.", r"stages.\1."),
        (r"\.conv_dw\.", ".dwconv."),
        (r"\.mlp\.fc(\d)\.", r".pwconv\1."),
        (r"^head\.norm\.", "norm."),
        (r"^head\.fc\.", "head."),
    )
    found = {}
    for key, value in state.items():
        for pattern, new in rules:
            key = re.sub(pattern, new, key)
        if ".mlp.grn." in key:
            key = key.replace(".mlp.grn.weight", ".grn.gamma").replace(".mlp.grn.bias", ".grn.beta")
            value = value[None, None, None]
        found[key] = value.flatten(1) if ".pwconv" in key and value.dim() == 4 else value
    return found


def swin(state: State) -> State:
    found = {}
    for key, value in state.items():
        key = re.sub(r"^layers\.(\d+)\.downsample", lambda m: f"layers.{int(m[1]) - 1}.downsample", key)
        found[key.replace("head.fc.", "head.")] = value
    for key in [k for k in state if k.endswith(".relative_position_bias_table")]:
        found[key.replace("_bias_table", "_index")] = torch.zeros(49, 49, dtype=torch.long)
    return found | {"layers.0.blocks.1.attn_mask": torch.zeros(64, 49, 49)}


def pvt(state: State) -> State:
    found = {}
    for key, value in state.items():
        key = re.sub(r"^patch_embed\.", "patch_embed1.", key)
        key = re.sub(r"^stages\.(\d+)\.downsample\.", lambda m: f"patch_embed{int(m[1]) + 1}.", key)
        key = re.sub(r"^stages\.(\d+)\.blocks\.", lambda m: f"block{int(m[1]) + 1}.", key)
        key = re.sub(r"^stages\.(\d+)\.norm\.", lambda m: f"norm{int(m[1]) + 1}.", key)
        found[key.replace(".mlp.dwconv.", ".mlp.dwconv.dwconv.")] = value
    return found


CASES: dict[str, Callable[[State], State]] = {
    "convnext_tiny": convnext,
    "convnextv2_atto": convnext,
    "swin_tiny_patch4_window7_224": swin,
    "pvt_v2_b0": pvt,
}


def network(name: str, **given: object) -> torch.nn.Module:
    torch.manual_seed(0)
    net = timm.create_model(name, **given).eval()
    with torch.no_grad():
        for tensor in net.parameters():
            tensor.add_(torch.randn_like(tensor) * 0.02)
    return net


@pytest.mark.parametrize("name", CASES)
def test_the_maps_are_those_of_the_network(name, convert_inline, tmp_path):
    net = network(name, num_classes=7)
    own = {k: v.clone() for k, v in net.state_dict().items()}
    released = CASES[name](own)
    assert set(released) != set(own)
    torch.save({"model": released}, tmp_path / "x.pth")
    manifest = convert_inline(tmp_path / "x.pth")
    assert manifest.backbone == f"timm/{name}"
    assert "renamed to timm/" + name in " ".join(manifest.notes)
    pixels = torch.rand(1, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        ours = load_detector(tmp_path / "converted").feature_maps(pixels, ["backbone.c5"])["backbone.c5"]
        theirs = net.forward_intermediates(pixels, indices=1, output_fmt="NCHW", intermediates_only=True)[-1]
    assert float((ours - theirs).abs().max()) <= 1e-5 * float(theirs.abs().max())


def test_a_release_without_its_classifier_is_read(convert_inline, tmp_path):
    released = convnext(network("convnext_tiny").state_dict())
    torch.save({k: v for k, v in released.items() if not k.startswith("head.")}, tmp_path / "x.pth")
    assert convert_inline(tmp_path / "x.pth").backbone == "timm/convnext_tiny"


def test_the_name_that_is_given_is_taken_from_the_table_too(convert_inline, tmp_path):
    released = convnext(network("convnext_tiny").state_dict())
    torch.save(released, tmp_path / "x.pth")
    manifest = convert_inline(tmp_path / "x.pth", architecture="timm/convnext_tiny")
    assert manifest.backbone == "timm/convnext_tiny"


def test_what_the_table_leaves_out_in_silence_refuses_the_file(convert_inline, tmp_path):
    """timm's table of ConvNeXt throws these away."""
    released = convnext(network("convnext_tiny").state_dict())
    torch.save(released | {"projectors.0.weight": torch.ones(4, 768)}, tmp_path / "x.pth")
    with pytest.raises(Unusable):
        convert_inline(tmp_path / "x.pth", architecture="timm/convnext_tiny")


@pytest.mark.parametrize("change", ["lacks", "has more"])
def test_another_network_is_not_taken_for_it(change, convert_inline, tmp_path):
    released = convnext(network("convnext_tiny").state_dict())
    if change == "lacks":
        del released["stages.2.3.dwconv.weight"]
    else:
        released["stages.2.3.adapter.weight"] = torch.ones(5)
    torch.save(released, tmp_path / "x.pth")
    with pytest.raises(Unusable) as refusal:
        convert_inline(tmp_path / "x.pth")
    assert refusal.value.code == "unknown_architecture"


def test_a_table_that_falls_over_refuses_the_file(convert_inline, tmp_path):
    """timm's table asks for a tensor by name that is not there."""
    released = swin(network("swin_tiny_patch4_window7_224").state_dict())
    renamed = {k.replace("layers.3.", "layers.9."): v for k, v in released.items()}
    torch.save(renamed, tmp_path / "x.pth")
    with pytest.raises(Unusable):
        convert_inline(tmp_path / "x.pth")
