"""The optimiser of a phase: which parameters move, at which rate, with how much decay; and its state by name."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from models_store.detector import Detector
from models_store.trainable import norm_parameters, parts, set_trainable
from worker.training.errors import Untrainable
from worker.training.recipe import Phase, Recipe

BODY = ("stem", "body")


def optimiser_of(
    detector: Detector, recipe: Recipe, phase: Phase, device: torch.device
) -> torch.optim.Optimizer:
    """A fresh optimiser over what the phase trains; every group's `initial_lr` is its rate at factor 1.

    Raises Untrainable `bad_plan` where the phase freezes everything.
    """
    found = parts(detector)
    set_trainable(detector, phase.freeze, found)
    norms = norm_parameters(detector.module)
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in trained(detector.module).items():
        rate = phase.lr * (recipe.backbone_lr_factor if found[name] in BODY else 1.0)
        for key, slower in recipe.slow:
            rate *= slower if key in name else 1.0
        free = (name in norms and not recipe.decay_norms) or (
            parameter.dim() < 2 and name not in norms and not recipe.decay_biases
        )
        groups.setdefault((rate, 0.0 if free else recipe.weight_decay), []).append(parameter)
    if not groups:
        raise Untrainable("bad_plan", f"freeze {phase.freeze!r} leaves nothing to train in this detector")
    listed = [
        {"params": members, "lr": rate, "initial_lr": rate, "weight_decay": decay}
        for (rate, decay), members in groups.items()
    ]
    fused = {"fused": True} if device.type in ("cpu", "cuda") else {}
    if recipe.optimiser == "sgd":
        return torch.optim.SGD(listed, momentum=recipe.momentum, **fused)
    kind = torch.optim.AdamW if recipe.optimiser == "adamw" else torch.optim.Adam
    return kind(listed, **fused)


def trained(module: nn.Module) -> dict[str, nn.Parameter]:
    """{name: parameter} of all that gets gradients; one that has several names is there once."""
    return {name: p for name, p in module.named_parameters() if p.requires_grad}


def set_rate(optimiser: torch.optim.Optimizer, factor: float) -> float:
    """Set every group's rate to `factor` of its own; the highest of them."""
    for group in optimiser.param_groups:
        group["lr"] = group["initial_lr"] * factor
    return max(group["lr"] for group in optimiser.param_groups)


def optimiser_tensors(optimiser: torch.optim.Optimizer, module: nn.Module) -> dict[str, Tensor]:
    """{parameter name/state name: tensor}."""
    names = {id(p): name for name, p in module.named_parameters()}
    return {
        f"{names[id(parameter)]}/{key}": value
        for parameter, state in optimiser.state.items()
        for key, value in state.items()
        if isinstance(value, Tensor)
    }


def load_optimiser(
    optimiser: torch.optim.Optimizer, module: nn.Module, tensors: Mapping[str, Tensor]
) -> None:
    """Put back what `optimiser_tensors` gave."""
    parameters = dict(module.named_parameters())
    for key, value in tensors.items():
        name, _, kind = key.rpartition("/")
        parameter = parameters[name]
        if value.shape == parameter.shape:
            value = torch.empty_like(parameter, dtype=value.dtype).copy_(value)
        else:
            value = value.to(parameter.device)
        optimiser.state[parameter][kind] = value
