"""The layers of a detector that no training has touched, and their scale set by what goes through them."""

from __future__ import annotations

import contextlib
import math
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from models_store.detector import Detector
from models_store.detr.detector import DetrDetector

# The last layers: what they give is read as logits and offsets, whose first size is a choice of its own.
PREDICTORS = re.compile(
    r"(cls_score|bbox_pred|cls_logits|bbox_reg|bbox_ctrness|mask_fcn_logits|kps_score_lowres"
    r"|(classification_head|regression_head)\.module_list\.\d+(\.1)?)$"
)


@dataclass(frozen=True, eq=False)
class FreshLayer:
    """A layer with weights from initialisation. `predictor`: it gives the detector's own output."""

    name: str
    module: nn.Conv2d | nn.ConvTranspose2d | nn.Linear
    predictor: bool


def fresh_layers(detector: Detector) -> list[FreshLayer]:
    """Convolutions and linear layers among the manifest's ``initialised_keys``, each once.

    Of a query-based detector: convolutions (what projects the body's maps) and class heads only. All else
    there reads what a layer norm gives, and has the start that its authors chose.
    """
    names = set(detector.manifest.initialised_keys)
    heads = detector.family.class_heads if isinstance(detector, DetrDetector) else None
    found: list[FreshLayer] = []
    seen: set[int] = set()  # tied layers are two modules around one tensor
    for name, module in detector.module.named_modules():
        weight = f"{name}.weight"
        if weight not in names or not isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
            continue
        if id(module.weight) in seen:
            continue
        seen.add(id(module.weight))
        if heads is not None:
            predictor = any(re.fullmatch(pattern, weight) for pattern in heads)
            if isinstance(module, nn.Linear) and not predictor:
                continue
        else:
            predictor = PREDICTORS.search(name) is not None
        found.append(FreshLayer(name, module, predictor))
    return found


@contextlib.contextmanager
def scaled_by_what_passes(layers: list[FreshLayer], std: float = 1.0) -> Iterator[dict[str, float]]:
    """Within, the first pass through each layer sets its scale; {layer: factor on its weights} fills up.

    A layer's weights are scaled so that its output without the bias has the standard deviation `std` (over
    images, channels and places), a predictor's are divided by the root mean square of its input, so that its
    first outputs are what they are for inputs of mean square 1. Biases stay. What the layer gives is changed
    alike before anything reads it. A layer that gives no spread, or no finite one, is left as it is. One that is
    used at several levels is scaled at the first.
    """
    factors: dict[str, float] = {}

    def look(layer: FreshLayer, read: Tensor, output: Tensor) -> Tensor | None:
        if layer.name in factors:
            return None
        bias = _bias(layer.module)
        factor = factors[layer.name] = _factor(layer, read, output, std) or 1.0
        layer.module.weight.data.mul_(factor)
        return (output - bias) * factor + bias

    with _looked_at(layers, look):
        yield factors


@contextlib.contextmanager
def measured_by_what_passes(
    module: nn.Module, layers: list[FreshLayer], std: float = 1.0
) -> Iterator[dict[str, float]]:
    """Within, layers keep their weights; {layer: the factor that `scaled_by_what_passes` would give it} fills up for
    those that read nothing but learned layers: what the body gives decides how all that follows begins.

    A layer that gives no spread, or no finite one, is not among them.
    """
    factors: dict[str, float] = {}

    def look(layer: FreshLayer, read: Tensor, output: Tensor) -> None:
        # Of all weights only the fresh ones want a gradient, so one that is wanted here comes from a fresh layer above.
        if layer.name not in factors and not read.requires_grad:
            with torch.no_grad():
                factor = _factor(layer, read, output, std)
            if factor is not None:
                factors[layer.name] = factor

    wanted = {name: weight.requires_grad for name, weight in module.named_parameters()}
    module.requires_grad_(False)
    for layer in layers:
        layer.module.weight.requires_grad_(True)
    try:
        with torch.enable_grad(), _looked_at(layers, look):
            yield factors
    finally:
        for name, weight in module.named_parameters():
            weight.requires_grad_(wanted[name])


def distance_of(factors: Iterable[float]) -> float:
    """How far off scales are altogether: the geometric mean of the factors or its inverse, whichever is at least 1."""
    logs = [math.log(factor) for factor in factors]
    return math.exp(abs(sum(logs)) / len(logs)) if logs else 1.0


def _factor(layer: FreshLayer, read: Tensor, output: Tensor, std: float) -> float | None:
    if layer.predictor:
        target, spread = 1.0, read.square().mean().sqrt()
    else:
        target, spread = std, (output - _bias(layer.module)).std()
    return target / float(spread) if spread > 0 and torch.isfinite(spread) else None


@contextlib.contextmanager
def _looked_at(
    layers: list[FreshLayer], look: Callable[[FreshLayer, Tensor, Tensor], Tensor | None]
) -> Iterator[None]:
    """Within, `look` is given each layer, what it reads and what it gives, which it may replace."""

    def after(layer: FreshLayer) -> Any:
        return lambda module, inputs, output: look(layer, inputs[0], output)

    handles = [layer.module.register_forward_hook(after(layer)) for layer in layers]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _bias(module: nn.Conv2d | nn.ConvTranspose2d | nn.Linear) -> Tensor:
    """As it is added to the output."""
    if module.bias is None:
        return module.weight.new_zeros(())
    return module.bias if isinstance(module, nn.Linear) else module.bias.view(-1, 1, 1)
