"""Whether weights were learned at all: what a network begins with, or holds nothing but zeros, is said or refused."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from models_store.errors import Unusable, some

# Of norms and biases; with fewer of them nothing is concluded.
LEAST_VECTORS = 10
# Heads of torchvision's detectors begin with biases drawn at random, or set for rare objects.
HEADS = ("roi_heads.", "head.")
FIRST_VALUES = (
    "its {count} scales, shifts and biases are all still 0 or 1, as a network begins with: its weights look untrained, as of a "
    "state dict that was saved before weights were loaded or trained; send the trained one where there is one"
)
ZEROS = (
    "{count} of its {whole} weights are 0 throughout ({names}): what lies behind them sees nothing of the picture; save it again "
    "where they were lost"
)


def check_learned(tensors: Mapping[str, Tensor]) -> None:
    """Refuse a network of zeros: what was saved before its weights were gathered or loaded."""
    kernels = [tensor for tensor in tensors.values() if tensor.dim() > 1]
    if kernels and not any(bool(tensor.any()) for tensor in kernels):
        raise Unusable(
            "not_finite",
            "every weight of it is 0: it was saved before its weights were loaded, or gathered from the processes that share "
            "them; save it again after that",
        )


def doubtful(tensors: Mapping[str, Tensor]) -> tuple[str, ...]:
    """Warnings of weights that may be read as they are and look untrained, or lost in part."""
    floats = {key: tensor for key, tensor in tensors.items() if tensor.is_floating_point()}
    vectors = [t for key, t in floats.items() if t.dim() == 1 and not key.startswith(HEADS)]
    if len(vectors) >= LEAST_VECTORS and all(bool(((v == 0) | (v == 1)).all()) for v in vectors):
        # Many of its kernels may be 0 by design then.
        return (FIRST_VALUES.format(count=len(vectors)),)
    kernels = {key: t for key, t in floats.items() if t.dim() > 1 and key.endswith(".weight")}
    lost = [key for key, tensor in kernels.items() if not bool(tensor.any())]
    return (ZEROS.format(count=len(lost), whole=len(kernels), names=some(lost, 3)),) if lost else ()
