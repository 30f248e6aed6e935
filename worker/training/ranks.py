"""The processes of one training: alone, or started by torchrun. Everything here is a no-op for one that is alone."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

T = TypeVar("T")


def several() -> bool:
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def rank() -> int:
    return dist.get_rank() if several() else 0


def world() -> int:
    return dist.get_world_size() if several() else 1


def is_first() -> bool:
    return rank() == 0


def share(batch: Sequence[int]) -> list[int]:
    """This process's part of a batch: every world-th image, so that parts differ by one at most."""
    return list(batch[rank() :: world()])


def total(values: Sequence[float], device: torch.device) -> list[float]:
    """The sums over all processes."""
    if not several():
        return list(values)
    tensor = torch.tensor(values, dtype=torch.float64, device=device)
    dist.all_reduce(tensor)
    return tensor.tolist()


def sum_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Add the gradients of all processes; a parameter without one here counts as zero.

    Every loss is a share of the whole batch's, so that the sum is the whole batch's gradient.
    """
    if not several():
        return
    parameters = list(parameters)
    device = parameters[0].device
    missing = torch.tensor([p.grad is None for p in parameters], dtype=torch.int32, device=device)
    flat = torch.cat([(torch.zeros_like(p) if p.grad is None else p.grad).reshape(-1) for p in parameters])
    dist.all_reduce(missing)
    dist.all_reduce(flat)
    parts = flat.split([p.numel() for p in parameters])
    for parameter, part, without in zip(parameters, parts, missing.tolist(), strict=True):
        # What nobody trains stays without a gradient, or decay would move it.
        if without == world():
            parameter.grad = None
        else:
            # Fused optimisers take the memory of both as it lies: it must lie alike.
            parameter.grad = torch.empty_like(parameter).copy_(part.view_as(parameter))


def of_first(value: T | None) -> T:
    """What the first process has and the others do not, in every process."""
    told = told_by_first(value)
    if told is None:
        raise AssertionError("the first process has nothing to tell")
    return told


def told_by_first(value: T) -> T:
    """The first process's value, in every process; any picklable object."""
    if not several():
        return value
    box: list[T] = [value]
    dist.broadcast_object_list(box, src=0)
    return box[0]


def sum_of_losses(losses: dict[str, Tensor]) -> dict[str, Tensor]:
    """The sums by name; processes may have other names, which then count as zero there."""
    if not several():
        return losses
    names: list[list[str]] = [[] for _ in range(world())]
    dist.all_gather_object(names, sorted(losses))
    everyone = sorted({name for listed in names for name in listed})
    if not everyone:
        return {}
    device = next(iter(losses.values())).device if losses else torch.device("cpu")
    stacked = torch.stack(
        [losses.get(n, torch.zeros((), dtype=torch.float64, device=device)) for n in everyone]
    )
    dist.all_reduce(stacked)
    return dict(zip(everyone, stacked.unbind(), strict=True))
