"""What a candidate costs to run, seen while it runs: parameters, memory and milliseconds for an image on this device."""

from __future__ import annotations

import time
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

Result = TypeVar("Result")


@dataclass(frozen=True)
class Cost:
    """Cost of one image through the measured part.

    parameters: how many numbers the whole detector holds; ms_per_image: of the fastest batch, since other work on the
    machine only ever adds; peak_memory_bytes: weights plus the most activations alive at once, of one image;
    image_hw: the size it was measured at; device: where; measures: what was run; precision: in which.
    """

    parameters: int
    ms_per_image: float
    peak_memory_bytes: int
    device: str
    image_hw: tuple[int, int]
    measures: str
    precision: str = "float32"


class Meter:
    """Measures forward passes that are run anyway: weighs the first, times all of its size.

    Memory on CUDA is the allocator's own peak. Elsewhere the living tensors are counted, which leaves out
    a kernel's scratch space and is the same on every machine.
    """

    def __init__(
        self, module: torch.nn.Module, device: torch.device, measures: str, precision: str = "float32"
    ) -> None:
        self.module, self.device, self.measures, self.precision = module, device, measures, precision
        self.image_hw: tuple[int, int] | None = None
        self.bytes_per_image = 0
        self.seconds_per_image = float("inf")

    def run(self, run: Callable[[], Result], images: int, image_hw: tuple[int, int]) -> Result:
        """Runs `run`, a forward pass without gradients of `images` images of one size."""
        if self.image_hw is None:
            return self._weigh(run, images, image_hw)
        begin = time.perf_counter()
        result = run()
        self.wait()
        if image_hw == self.image_hw:
            self.seconds_per_image = min(self.seconds_per_image, (time.perf_counter() - begin) / images)
        return result

    def wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def _weigh(self, run: Callable[[], Result], images: int, image_hw: tuple[int, int]) -> Result:
        begin = time.perf_counter()
        if self.device.type == "cuda":
            self.wait()
            before = torch.cuda.memory_allocated(self.device)
            torch.cuda.reset_peak_memory_stats(self.device)
            result = run()
            self.wait()
            activations = torch.cuda.max_memory_allocated(self.device) - before
        else:
            with _LivingBytes() as living:
                result = run()
            activations = living.peak
        # Slowed by the weighing: any pass after it is faster.
        self.seconds_per_image = (time.perf_counter() - begin) / images
        self.image_hw, self.bytes_per_image = image_hw, activations // images
        return result

    def cost(self) -> Cost | None:
        """What was seen so far, None before the first pass."""
        if self.image_hw is None:
            return None
        cuda = self.device.type == "cuda"
        return Cost(
            parameters=sum(parameter.numel() for parameter in self.module.parameters()),
            ms_per_image=round(self.seconds_per_image * 1e3, 3),
            peak_memory_bytes=_bytes_of(self.module) + self.bytes_per_image,
            device=torch.cuda.get_device_name(self.device) if cuda else self.device.type,
            image_hw=self.image_hw,
            measures=self.measures,
            precision=self.precision,
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
