"""What a candidate costs to run, seen while it runs: parameters, memory and milliseconds for an image on this device."""

from __future__ import annotations

import time
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
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
        with Peak(self.device) as peak:
            result = run()
        # Slowed by the weighing: any pass after it is faster.
        self.seconds_per_image = (time.perf_counter() - begin) / images
        self.image_hw, self.bytes_per_image = image_hw, peak.bytes // images
        return result

    def cost(self) -> Cost | None:
        """What was seen so far, None before the first pass."""
        if self.image_hw is None:
            return None
        cuda = self.device.type == "cuda"
        return Cost(
            parameters=sum(parameter.numel() for parameter in self.module.parameters()),
            ms_per_image=round(self.seconds_per_image * 1e3, 3),
            peak_memory_bytes=bytes_of(self.module) + self.bytes_per_image,
            device=torch.cuda.get_device_name(self.device) if cuda else self.device.type,
            image_hw=self.image_hw,
            measures=self.measures,
            precision=self.precision,
        )


class Peak:
    """Within, the most bytes that are alive at once of what is made there; `bytes` afterwards. With gradients or without."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.bytes = 0
        self._before = 0
        self._living: _LivingBytes | None = None

    def __enter__(self) -> Peak:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
            self._before = torch.cuda.memory_allocated(self.device)
            torch.cuda.reset_peak_memory_stats(self.device)
        else:
            self._living = _LivingBytes()
            self._living.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._living is not None:
            self._living.__exit__(kind, error, trace)
            self.bytes = self._living.peak
        else:
            torch.cuda.synchronize(self.device)
            self.bytes = torch.cuda.max_memory_allocated(self.device) - self._before


def bytes_of(module: torch.nn.Module) -> int:
    """Of its parameters and buffers."""
    tensors = [*module.parameters(), *module.buffers()]
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


class _LivingBytes(TorchDispatchMode):
    """Counts the bytes of the storages that operations made and that are still alive; keeps the most.

    A storage lives as long as anything has it: a tensor, a view of it, or what a backward pass will want.
    """

    def __init__(self) -> None:
        super().__init__()
        self.peak = 0
        self._alive = 0
        self._held: set[int] = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        given = {leaf.untyped_storage().data_ptr() for leaf in tree_leaves((args, kwargs)) if _dense(leaf)}
        out = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(out):
            if _dense(leaf):
                self._hold(leaf.untyped_storage(), given)
        return out

    def _hold(self, storage: torch.UntypedStorage, given: set[int]) -> None:
        key, size = storage.data_ptr(), storage.nbytes()
        if not key or key in given or key in self._held:
            return
        self._held.add(key)
        self._alive += size
        self.peak = max(self.peak, self._alive)
        weakref.finalize(storage, self._release, key, size).atexit = False

    def _release(self, key: int, size: int) -> None:
        self._held.discard(key)
        self._alive -= size


def _dense(leaf: Any) -> bool:
    return isinstance(leaf, torch.Tensor) and leaf.layout == torch.strided


def known(cost: Cost | None) -> Cost:
    """The cost of a reading that ran at least one batch."""
    if cost is None:
        raise AssertionError("nothing was read, so nothing is known of its cost")
    return cost
