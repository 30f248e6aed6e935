"""The exponential moving average of the weights, which is what is evaluated and kept where a recipe asks for it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn


class Average:
    """Follows the parameters that are trained and the buffers that move.

    After step t the decay is min(decay, (1 + t) / (10 + t)), so that the first weights are soon forgotten.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.module, self.decay = module, decay
        self.tensors = {name: tensor.detach().clone() for name, tensor in moving(module).items()}

    @torch.no_grad()
    def follow(self, step: int) -> None:
        """After optimiser step `step`, counted from 1."""
        decay = min(self.decay, (1 + step) / (10 + step))
        now = moving(self.module)
        floats = [name for name, tensor in self.tensors.items() if tensor.is_floating_point()]
        torch._foreach_lerp_(
            [self.tensors[name] for name in floats], [now[name].detach() for name in floats], 1 - decay
        )
        for name in self.tensors.keys() - set(floats):
            self.tensors[name].copy_(now[name])

    @contextlib.contextmanager
    def in_place(self) -> Iterator[None]:
        """Within, the module has the averaged weights."""
        now = moving(self.module)
        kept = {name: tensor.detach().clone() for name, tensor in now.items()}
        put(self.module, self.tensors)
        try:
            yield
        finally:
            put(self.module, kept)


def moving(module: nn.Module) -> dict[str, Tensor]:
    """Parameters and saved buffers by name, each tensor once."""
    saved = module.state_dict().keys()
    found: dict[str, Tensor] = dict(module.named_parameters())
    return found | {name: buffer for name, buffer in module.named_buffers() if name in saved}


@torch.no_grad()
def put(module: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Copy tensors into the module's own. Raises KeyError for a name that it has not."""
    own = moving(module)
    for name, tensor in tensors.items():
        own[name].copy_(tensor)
