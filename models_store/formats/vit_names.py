"""Plain ViTs as DINOv2, DINOv3, MAE and MoCo v3 save them, to timm's names of the same networks."""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

# Of pretraining, or computed again: masks, position tables, MAE's decoder.
BESIDE = re.compile(r"mask_token|decoder_.+|rope_embed\..+|.+\.bias_mask")
REGISTERS = ("register_tokens", "storage_tokens")
FIRST = "blocks.0.attn.qkv.weight"


def is_vit(tensors: Mapping[str, Tensor]) -> bool:
    return {"cls_token", FIRST} <= set(tensors)


@torch.no_grad()
def timm_names(tensors: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
    """(tensors under timm's names, keys that have no place there).

    DINOv2 with registers: timm keeps the class token's position in the token. DINOv3: scales are ``gamma_1`` and
    ``gamma_2``, and of the bias of queries, keys and values the keys' third is masked out.
    """
    third = "storage_tokens" in tensors or any(k.startswith("rope_embed.") for k in tensors)
    found: dict[str, Tensor] = {}
    beside = []
    for key, tensor in tensors.items():
        if BESIDE.fullmatch(key):
            beside.append(key)
        elif key in REGISTERS:
            found["reg_token"] = tensor
        elif third and key.endswith(".attn.qkv.bias"):
            q, _, v = tensor.chunk(3)
            found[key.replace("qkv.bias", "q_bias")] = q.clone()
            found[key.replace("qkv.bias", "v_bias")] = v.clone()
        elif third and (match := re.fullmatch(r"(blocks\.\d+)\.ls([12])\.gamma", key)):
            found[f"{match[1]}.gamma_{match[2]}"] = tensor
        else:
            found[re.sub(r"\.mlp\.w12\.", ".mlp.fc1.", re.sub(r"\.mlp\.w3\.", ".mlp.fc2.", key))] = tensor
    if "register_tokens" in tensors:
        found["cls_token"] = tensors["cls_token"] + tensors["pos_embed"][:, :1]
        found["pos_embed"] = tensors["pos_embed"][:, 1:].clone()
    return found, beside
