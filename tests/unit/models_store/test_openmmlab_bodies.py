"""Swin and ConvNeXt out of mmdetection and mmpretrain: the maps are those of timm's same network."""

import re

import pytest
import torch
from torch import Tensor, nn

from models_store import formats, load_detector
from models_store.formats.openmmlab_bodies import merged_by_pixel, renamed
from models_store.formats.reasons import UNKNOWN, why_dropped
from models_store.formats.wrappings import unwrap
from tests.unit.models_store.test_makers import convnext as released_convnext
from tests.unit.models_store.test_makers import network
from tests.unit.models_store.test_makers import swin as released_swin

State = dict[str, Tensor]
SWIN_NAMES = (
    (r"patch_embed\.proj\.", "patch_embed.projection."),
    (r"layers\.(\d)\.downsample\.", r"stages.\1.downsample."),
    (r"layers\.(\d)\.blocks\.(\d)\.attn\.", r"stages.\1.blocks.\2.attn.w_msa."),
    (r"layers\.(\d)\.blocks\.(\d)\.mlp\.fc1\.", r"stages.\1.blocks.\2.ffn.layers.0.0."),
    (r"layers\.(\d)\.blocks\.(\d)\.mlp\.fc2\.", r"stages.\1.blocks.\2.ffn.layers.1."),
    (r"layers\.(\d)\.blocks\.(\d)\.norm", r"stages.\1.blocks.\2.norm"),
    (r"norm\.", "norm3."),
)
CONVNEXT_NAMES = (
    (r"(stages.+)\.dwconv\.", r"\1.depthwise_conv."),
    (r"(stages.+)\.pwconv", r"\1.pointwise_conv"),
    (r"norm\.", "norm3."),
)


def gathered_by_channel(tensor: Tensor) -> Tensor:
    """Columns as `nn.Unfold` gathers pixels, from those of the original."""
    four = tensor.unflatten(-1, (4, tensor.shape[-1] // 4))[..., [0, 2, 1, 3], :]
    return four.transpose(-1, -2).flatten(-2)


def swin(state: State) -> State:
    found = {}
    for key, value in released_swin(state).items():
        if key.endswith(("attn_mask", "relative_position_index")) or key.startswith("head."):
            continue
        name = next((re.sub(old, new, key) for old, new in SWIN_NAMES if re.match(old, key)), key)
        found[name] = gathered_by_channel(value) if ".downsample." in key else value
    return found


def convnext(state: State) -> State:
    found = {}
    for key, value in released_convnext(state).items():
        if not key.startswith("head."):
            found[next((re.sub(old, new, key) for old, new in CONVNEXT_NAMES if re.match(old, key)), key)] = (
                value
            )
    return found


NETWORKS = {"swin_tiny_patch4_window7_224": swin, "convnext_tiny": convnext}


def stage_norms(name: str) -> State:
    return {f"norm{i}.{leaf}": torch.ones(96 * 2**i) for i in range(3) for leaf in ("weight", "bias")}


def test_pixels_are_gathered_as_unfold_does():
    """A map of numbers: what the original gathers is what OpenMMLab's gathers, in the order that its weights are in."""
    x = torch.arange(2 * 4 * 6.0).view(1, 2, 4, 6)
    original = torch.cat([x[:, :, row::2, column::2] for column in (0, 1) for row in (0, 1)], 1).flatten(2)
    unfolded = nn.Unfold(2, stride=2)(x)
    turned = merged_by_pixel(unfolded.transpose(1, 2)).transpose(1, 2)
    assert torch.equal(turned, original)
    assert not torch.equal(unfolded, original)
    assert torch.equal(gathered_by_channel(original.transpose(1, 2)), unfolded.transpose(1, 2))


@pytest.mark.parametrize("form", ["mmpretrain", "mmdetection"])
@pytest.mark.parametrize("name", NETWORKS)
def test_the_maps_are_those_of_the_network(name, form, convert_inline, tmp_path):
    net = network(name)
    state = {f"backbone.{k}": v for k, v in NETWORKS[name](net.state_dict()).items()}
    if form == "mmpretrain":
        state |= {"head.fc.weight": torch.ones(9, 768), "head.fc.bias": torch.zeros(9)}
    else:
        state |= {f"backbone.{k}": v for k, v in stage_norms(name).items()}
        state |= {"rpn_head.rpn_cls.bias": torch.zeros(3), "roi_head.bbox_head.fc_cls.bias": torch.zeros(4)}
        for part in ("lateral_convs", "fpn_convs"):
            for level in range(4):
                state[f"neck.{part}.{level}.conv.weight"] = torch.ones(256, 96, 1, 1)
                state[f"neck.{part}.{level}.conv.bias"] = torch.ones(256)
    torch.save({"state_dict": state, "meta": {"epoch": 3}}, tmp_path / "x.pth")
    manifest = convert_inline(tmp_path / "x.pth")
    assert (manifest.kind, manifest.backbone) == ("backbone", f"timm/{name}")
    assert [k for k in manifest.dropped_keys if why_dropped(manifest.format, k) == UNKNOWN] == []
    neck = {layer.name: layer.trained for layer in manifest.layers if layer.name.startswith("neck.")}
    assert neck
    assert not any(neck.values())
    if form == "mmdetection":
        assert any("through a norm" in note for note in manifest.notes)
        assert "backbone.norm0.weight" in manifest.dropped_keys
    pixels = torch.rand(1, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        ours = load_detector(tmp_path / "converted").feature_maps(pixels, ["backbone.c5"])["backbone.c5"]
        theirs = net.forward_intermediates(pixels, indices=1, output_fmt="NCHW", intermediates_only=True)[-1]
    assert float((ours - theirs).abs().max()) <= 1e-5 * float(theirs.abs().max())


def test_another_size_is_not_taken_for_it():
    state = swin(network("swin_tiny_patch4_window7_224").state_dict())
    del state["stages.2.blocks.5.norm1.weight"]
    file = {
        "state_dict": {f"backbone.{k}": v for k, v in state.items()}
        | {"rpn_head.rpn_cls.bias": torch.zeros(3)}
    }
    with pytest.raises(formats.Unusable, match="of no known network"):
        formats.recognise(unwrap(file, ordered=True))


@pytest.mark.parametrize("broken", [torch.tensor(1.0), torch.ones(192, 5), torch.ones(383)])
def test_columns_that_cannot_be_turned_are_refused(broken):
    state = swin(network("swin_tiny_patch4_window7_224").state_dict())
    state["stages.0.downsample.reduction.weight"] = broken
    with pytest.raises(formats.Unusable):
        formats.recognise(unwrap(state, ordered=True))


def test_only_the_body_is_turned():
    """What else a detector has under such a name stays as it is."""
    body = {"backbone.stages.0.blocks.0.attn.w_msa.qkv.weight": torch.ones(3, 3)}
    other = {"head.downsample.weight": torch.arange(8.0)}
    found, _ = renamed(body | other)
    assert torch.equal(found["head.downsample.weight"], other["head.downsample.weight"])
