"""ViTs that were trained on pictures of another size than timm's network of that name, which their position embedding shows."""

from __future__ import annotations

import math

import timm

from models_store.errors import Unusable
from models_store.formats.classifiers import full_shapes
from models_store.formats.state import StateDict

POSITIONS, PATCHES = "pos_embed", "patch_embed.proj.weight"
WIDTHS = {192: "tiny", 384: "small", 768: "base", 1024: "large"}
# A token for the class, and one for what it was distilled from.
MOST_EXTRA = 2


def of_another_size(state: StateDict) -> Unusable | None:
    """The refusal of such a file, None for any other."""
    prefix = next((k.removesuffix(POSITIONS) for k in state.tensors if k.endswith(POSITIONS)), None)
    if prefix is None or prefix + PATCHES not in state.tensors:
        return None
    positions, patches = (tuple(state.tensors[prefix + key].shape) for key in (POSITIONS, PATCHES))
    if len(positions) != 3 or len(patches) != 4:
        return None
    name = f"vit_{WIDTHS.get(positions[2])}_patch{patches[2]}_224"
    if not timm.is_model(name):
        return None
    wanted = full_shapes(f"timm/{name}")[POSITIONS]
    sides = [math.isqrt(positions[1] - extra) for extra in range(min(MOST_EXTRA, positions[1]) + 1)]
    side = next((s for extra, s in enumerate(sides) if s * s == positions[1] - extra), 0)
    if wanted == positions or not side:
        return None
    pixels = side * patches[2]
    return Unusable(
        "shape_mismatch",
        f"the file's position embedding has {positions[1]} places (pictures of {pixels} x {pixels}), that of the nearest network, "
        f"timm/{name}, {wanted[1]}: bring it to that number with timm.layers.resample_abs_pos_embed and save it again, or send "
        "the weights of a network that timm lists by this size",
    )
