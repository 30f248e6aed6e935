"""What a candidate costs to run: parameters, memory and milliseconds for one image on this device."""

from __future__ import annotations

import time
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

_REPEATS = 3
_PATIENCE_S = 3.0


@dataclass(frozen=True)
class Cost:
    """Cost of one image through the measured part.

    parameters: how many numbers the whole detector holds; ms_per_image: the fastest of a few runs after one to
    warm up, since other work on the machine only ever adds; peak_memory_bytes: weights plus the most
    activations alive at once; image_hw: the size it was measured at; device: where; measures: what was run.
    """

    parameters: int
    ms_per_image: float
    peak_memory_bytes: int
    device: str
    image_hw: tuple[int, int]
    measures: str


def measure(
    run: Callable[[], Any],
    module: torch.nn.Module,
    device: torch.device,
    image_hw: tuple[int, int],
    measures: str,
) -> Cost:
    """Times and weighs `run`, a forward pass of one image without gradients.

    Memory on CUDA is the allocator's own peak. Elsewhere the living tensors are counted, which leaves out
    a kernel's scratch space and is the same on every machine.
    """
    weights = _bytes_of(module)
    if device.type == "cuda":
        run()
        torch.cuda.synchronize(device)
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        run()
        torch.cuda.synchronize(device)
        activations = torch.cuda.max_memory_allocated(device) - before
    else:
        with _LivingBytes() as living:
            run()
        activations = living.peak
    times: list[float] = []
    started = time.perf_counter()
    while len(times) < _REPEATS and (not times or time.perf_counter() - started < _PATIENCE_S):
        begin = time.perf_counter()
        run()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append((time.perf_counter() - begin) * 1e3)
    return Cost(
        parameters=sum(parameter.numel() for parameter in module.parameters()),
        ms_per_image=round(min(times), 3),
        peak_memory_bytes=weights + activations,
        device=torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        image_hw=image_hw,
        measures=measures,
    )


def _bytes_of(module: torch.nn.Module) -> int:
    tensors = [*module.parameters(), *module.buffers()]
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


class _LivingBytes(TorchDispatchMode):
    """Counts the bytes of the storages that operations made and that are still alive; keeps the most."""

    def __init__(self) -> None:
        super().__init__()
        self.peak = 0
        self._alive = 0
        self._holders: dict[int, int] = {}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        given = {leaf.untyped_storage().data_ptr() for leaf in tree_leaves((args, kwargs)) if _dense(leaf)}
        out = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(out):
            if _dense(leaf):
                self._hold(leaf, given)
        return out

    def _hold(self, tensor: torch.Tensor, given: set[int]) -> None:
        storage = tensor.untyped_storage()
        key, size = storage.data_ptr(), storage.nbytes()
        if not key or (key in given and key not in self._holders):
            return
        if key not in self._holders:
            self._holders[key] = 0
            self._alive += size
            self.peak = max(self.peak, self._alive)
        self._holders[key] += 1
        weakref.finalize(tensor, self._release, key, size)

    def _release(self, key: int, size: int) -> None:
        self._holders[key] -= 1
        if not self._holders[key]:
            del self._holders[key]
            self._alive -= size


def _dense(leaf: Any) -> bool:
    return isinstance(leaf, torch.Tensor) and leaf.layout == torch.strided
