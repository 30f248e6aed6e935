"""Swin and ConvNeXt as mmdetection and mmpretrain name them, to the names of their original releases and timm's.

OpenMMLab's Swin gathers the four pixels that it merges channel by channel (`nn.Unfold`), the original pixel by pixel, so the
columns of what merges them stand in another order. A norm follows each stage there whose map is read; in a network that
classifies only the last one has it, and that is the classifier's own.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

# of the pixels that are merged: (row, column) by columns first, which is the original's order
PIXELS = [0, 2, 1, 3]
_SWIN_BLOCK = r"stages\.(?P<a>\d+)\.blocks\.(?P<b>\d+)\."
SWIN = (
    (r"patch_embed\.projection\.(?P<w>\w+)", "patch_embed.proj.{w}"),
    (r"patch_embed\.norm\.(?P<w>\w+)", "patch_embed.norm.{w}"),
    (_SWIN_BLOCK + r"(?P<p>norm[12])\.(?P<w>\w+)", "layers.{a}.blocks.{b}.{p}.{w}"),
    (_SWIN_BLOCK + r"attn\.w_msa\.(?P<w>.+)", "layers.{a}.blocks.{b}.attn.{w}"),
    (_SWIN_BLOCK + r"ffn\.layers\.0\.0\.(?P<w>\w+)", "layers.{a}.blocks.{b}.mlp.fc1.{w}"),
    (_SWIN_BLOCK + r"ffn\.layers\.1\.(?P<w>\w+)", "layers.{a}.blocks.{b}.mlp.fc2.{w}"),
    (r"stages\.(?P<a>\d+)\.downsample\.(?P<w>.+)", "layers.{a}.downsample.{w}"),
    (r"norm3\.(?P<w>\w+)", "norm.{w}"),
)
_CONVNEXT_BLOCK = r"stages\.(?P<a>\d+)\.(?P<b>\d+)\."
CONVNEXT = (
    (r"downsample_layers\.(?P<w>.+)", "downsample_layers.{w}"),
    (_CONVNEXT_BLOCK + r"depthwise_conv\.(?P<w>\w+)", "stages.{a}.{b}.dwconv.{w}"),
    (_CONVNEXT_BLOCK + r"pointwise_conv(?P<c>\d)\.(?P<w>\w+)", "stages.{a}.{b}.pwconv{c}.{w}"),
    (_CONVNEXT_BLOCK + r"(?P<w>gamma|norm\.\w+)", "stages.{a}.{b}.{w}"),
    (r"norm3\.(?P<w>\w+)", "norm.{w}"),
)
# of the stages before the last, and what is computed again
BESIDE = re.compile(r"norm[0-2]\.\w+|.+\.relative_position_index")
TELLING = {
    "stages.0.blocks.0.attn.w_msa.qkv.weight": SWIN,
    "stages.0.0.depthwise_conv.weight": CONVNEXT,
}


def renamed(tensors: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], tuple[str, ...]] | None:
    """(tensors under the original release's names, keys that have no place there), without the prefix that the body has in a
    larger network, whose other keys stay as they are; None for other networks."""
    told = (
        (key.removesuffix(end), rules)
        for key in tensors
        for end, rules in TELLING.items()
        if key.endswith(end)
    )
    prefix, rules = next(told, ("", ()))
    if not rules:
        return None
    found: dict[str, Tensor] = {}
    beside = []
    for key, tensor in tensors.items():
        own = key.removeprefix(prefix)
        if not key.startswith(prefix):
            found[key] = tensor
        elif BESIDE.fullmatch(own):
            beside.append(key)
        else:
            matches = ((re.fullmatch(pattern, own), template) for pattern, template in rules)
            name = next((template.format(**m.groupdict()) for m, template in matches if m), own)
            merges = rules is SWIN and ".downsample." in own
            found[name] = merged_by_pixel(tensor) if merges else tensor
    return found, tuple(beside)


@torch.no_grad()
def merged_by_pixel(tensor: Tensor) -> Tensor:
    """Columns of the four merged pixels (its last axis, 4 C) from C times four to four times C; of another shape as it is."""
    if not tensor.dim() or tensor.shape[-1] % 4:
        return tensor
    channels = tensor.shape[-1] // 4
    return tensor.unflatten(-1, (channels, 4))[..., PIXELS].transpose(-1, -2).flatten(-2)
