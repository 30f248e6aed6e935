"""Frozen norms folded into the convolutions before them, for as long as maps are read and no longer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights
from torchvision.ops import FrozenBatchNorm2d

# transformers' frozen norms have it in their forward only.
_EPS = 1e-5
# Of the largest value: what float32 loses in one convolution, with room to spare.
_TOLERANCE = 1e-4
_LOW_PRECISION = (nn.Conv2d, nn.Linear)


class Folding:
    """Other weights for one module, put in place by ``with`` and taken out again.

    Within, convolutions hold the norm behind them and that norm does nothing (its activation, where it has one,
    stays). Nothing of the module itself is changed, neither parameters nor buffers nor their names, so training,
    saving and hashing see what they always saw. Not to be entered by two threads at once.
    """

    def __init__(self) -> None:
        self.convolutions: list[tuple[nn.Module, dict[str, Tensor | None]]] = []
        self.norms: list[tuple[nn.Module, Callable[[Tensor], Tensor]]] = []
        self._outside: list[dict[str, Any]] = []

    def __len__(self) -> int:
        """How many norms are folded."""
        return len(self.norms)

    def __enter__(self) -> Folding:
        if self._outside:
            raise RuntimeError("these weights are in place already")
        for module, inside in self.convolutions:
            self._outside.append({name: module._parameters[name] for name in inside})
            module._parameters.update(inside)
        for norm, forward in self.norms:
            norm.__dict__["forward"] = forward
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for norm, _ in self.norms:
            del norm.__dict__["forward"]
        for (module, _), outside in zip(self.convolutions, self._outside, strict=True):
            module._parameters.update(outside)
        self._outside = []


@torch.no_grad()
def folded(module: nn.Module, probe: Callable[[], Mapping[str, Tensor]], dtype: torch.dtype) -> Folding:
    """Weights for reading maps of ``module`` on its device, without norms that can be folded.

    ``probe`` runs what will be run, on a small input; which norm stands directly behind which convolution is seen
    there, so that no family needs rules of its own. A pair is folded only where its numbers stay, within float32,
    and nothing is where the maps as a whole would change (something else reads a convolution's output).
    ``dtype`` other than float32: the weights of convolutions and linear layers are also cast, once, for autocast.
    """
    found = Folding()
    if any(_frozen_norm(part) for part in module.modules()):
        pairs, before = _pairs(module, probe)
        for convolution, norm in pairs.items():
            found.convolutions.append((convolution, _weights(convolution, norm)))
            found.norms.append((norm, _rest_of(norm)))
        with found:
            alike = _alike(before, probe())
        found = found if alike else Folding()
    return _cast(found, module, dtype)


def _pairs(
    module: nn.Module, probe: Callable[[], Mapping[str, Tensor]]
) -> tuple[dict[nn.Module, nn.Module], dict[str, Tensor]]:
    """Convolutions with the one norm that reads their output, where both are run once; and the maps."""
    made: dict[int, tuple[nn.Module, Tensor, Tensor]] = {}
    pairs: dict[nn.Module, nn.Module] = {}
    runs: dict[nn.Module, int] = {}

    def after_convolution(convolution: nn.Module, given: tuple[Tensor, ...], output: Tensor) -> None:
        runs[convolution] = runs.get(convolution, 0) + 1
        made[id(output)] = (convolution, given[0], output)

    def after_norm(norm: nn.Module, given: tuple[Tensor, ...], output: Tensor) -> None:
        runs[norm] = runs.get(norm, 0) + 1
        convolution, source, _ = made.get(id(given[0]), (None, None, None))
        if convolution is not None and _keeps_numbers(convolution, norm, source, output):
            pairs[convolution] = norm

    handles = []
    for part in module.modules():
        if isinstance(part, nn.Conv2d):
            handles.append(part.register_forward_hook(after_convolution))
        elif _frozen_norm(part):
            handles.append(part.register_forward_hook(after_norm))
    try:
        maps = {name: x.clone() for name, x in probe().items()}
    finally:
        for handle in handles:
            handle.remove()
    once = {c: n for c, n in pairs.items() if runs[c] == runs[n] == 1}
    return once, maps


def _frozen_norm(part: nn.Module) -> bool:
    batch_norm = isinstance(part, nn.modules.batchnorm._BatchNorm) and not part.training
    frozen = isinstance(part, FrozenBatchNorm2d) or "FrozenBatchNorm" in type(part).__name__
    return (batch_norm or frozen) and getattr(part, "running_var", None) is not None


def _weights(convolution: nn.Module, norm: nn.Module) -> dict[str, Tensor | None]:
    weight, bias = fuse_conv_bn_weights(
        convolution.weight,
        convolution.bias,
        norm.running_mean,
        norm.running_var,
        getattr(norm, "eps", _EPS),
        norm.weight,
        norm.bias,
    )
    return {"weight": weight, "bias": bias}


def _rest_of(norm: nn.Module) -> Callable[[Tensor], Tensor]:
    """What the norm does besides: timm's hold an activation."""
    drop, act = getattr(norm, "drop", None), getattr(norm, "act", None)
    if isinstance(act, nn.Module):
        return lambda x: act(drop(x)) if drop is not None else act(x)
    return lambda x: x


def _keeps_numbers(convolution: nn.Module, norm: nn.Module, source: Tensor, output: Tensor) -> bool:
    """Whether the convolution with folded weights gives the norm's output: not where it treats its weights first."""
    if type(convolution) is nn.Conv2d:
        return True
    one = Folding()
    one.convolutions = [(convolution, _weights(convolution, norm))]
    with one:
        mine = _rest_of(norm)(type(convolution).forward(convolution, source))
    return _alike({"": output}, {"": mine})


def _alike(before: Mapping[str, Tensor], after: Mapping[str, Tensor]) -> bool:
    return all(
        float((after[name] - x).abs().max()) <= _TOLERANCE * float(x.abs().max().clamp(min=1e-6))
        for name, x in before.items()
    )


def _cast(found: Folding, module: nn.Module, dtype: torch.dtype) -> Folding:
    """Every convolution's and linear layer's weights in ``dtype``, convolutions' channels last."""
    inside = dict(found.convolutions)
    for part in module.modules():
        if not isinstance(part, _LOW_PRECISION) or (part not in inside and dtype == torch.float32):
            continue
        inside.setdefault(part, {"weight": part.weight, "bias": part.bias})
    found.convolutions = [
        (part, {name: _laid_out(value, dtype) for name, value in weights.items()})
        for part, weights in inside.items()
    ]
    return found


def _laid_out(value: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    if value is None:
        return None
    layout = torch.channels_last if value.dim() == 4 else torch.preserve_format
    return nn.Parameter(value.detach().to(dtype=dtype, memory_format=layout), requires_grad=False)
