"""One step of the optimiser: the batch in as many parts as fit, their gradients summed, clipped and applied."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import astuple

import torch
from torch import Tensor

from models_store.bodies.norms import statistics_move
from models_store.detector import Detector
from models_store.errors import out_of_memory
from models_store.sizes import Size
from models_store.trainable import Tally, needs_equal_sizes, normaliser, tally
from worker.training import ranks
from worker.training.optimiser import trained
from worker.training.order import Ready
from worker.training.plan import Plan
from worker.training.randomness import NETWORK, SAMPLES, PerImageSampler, number, seeded

# Two images of 800 x 1066: more at once is no faster on a CPU and needs memory.
CPU_PIXELS = 2 * 800 * 1066


class Stepper:
    """Steps of one training on one device. `micro_batch`: images at once, halved when the device runs out of memory."""

    def __init__(
        self,
        detector: Detector,
        plan: Plan,
        samplers: Sequence[PerImageSampler],
        device: torch.device,
        precision: torch.dtype,
        log: Callable[[str], None],
    ) -> None:
        self.detector, self.plan, self.samplers, self.device, self.log = detector, plan, samplers, device, log
        self.precision = precision
        self.scaler = torch.amp.GradScaler(device.type, enabled=self.precision == torch.float16)
        self.micro_batch: int | None = plan.micro_batch

    def step(
        self, batch: Sequence[Ready], iteration: int, size: Size, optimiser: torch.optim.Optimizer
    ) -> dict[str, Tensor]:
        """Losses of this process's part by name, float64 on the device: sums over processes are the batch's.

        Raises torch.OutOfMemoryError when not even one image fits.
        """
        parameters = list(trained(self.detector.module).values())
        while True:
            optimiser.zero_grad(set_to_none=True)
            refused: BaseException | None = None
            losses: dict[str, Tensor] = {}
            own = self._tally(batch)
            whole = Tally(*ranks.total(astuple(own), self.device))
            try:
                losses = self._backward(batch, iteration, size, whole)
            except (RuntimeError, MemoryError) as error:
                if not (isinstance(error, torch.OutOfMemoryError) or out_of_memory(error)):
                    raise
                refused = error
            # All processes try again when one must.
            if not ranks.total([float(refused is not None)], self.device)[0]:
                break
            self._halve(len(batch), refused)
        ranks.sum_gradients(parameters)
        self.scaler.unscale_(optimiser)
        if self.plan.recipe.clip_norm is not None:
            torch.nn.utils.clip_grad_norm_(parameters, self.plan.recipe.clip_norm)
        self.scaler.step(optimiser)
        self.scaler.update()
        return losses

    def _backward(
        self, batch: Sequence[Ready], iteration: int, size: Size, whole: Tally
    ) -> dict[str, Tensor]:
        summed: dict[str, Tensor] = {}
        for number_, part in enumerate(self.parts(batch, size)):
            for sampler_number, sampler in enumerate(self.samplers):
                sampler.seeds = [
                    number(self.plan.seed, SAMPLES, iteration, ready.index, sampler_number) for ready in part
                ]
            targets = [
                {name: value.to(self.device, non_blocking=True) for name, value in ready.target.items()}
                for ready in part
            ]
            with (
                seeded(self.device, number(self.plan.seed, NETWORK, iteration, ranks.rank(), number_)),
                torch.autocast(self.device.type, self.precision, enabled=self.precision != torch.float32),
            ):
                losses = self.detector.losses([ready.pixels for ready in part], targets, image_size=size)
            counted = self._tally(part)
            shares = {
                name: loss
                * (normaliser(self.detector, name, counted) / normaliser(self.detector, name, whole))
                for name, loss in losses.items()
            }
            self.scaler.scale(sum(shares.values())).backward()
            for name, value in shares.items():
                value = value.detach().double()
                summed[name] = summed[name] + value if name in summed else value
        return summed

    def parts(self, batch: Sequence[Ready], size: Size) -> list[list[Ready]]:
        """What goes through the network at once, one after the other."""
        groups: dict[tuple[int, int], list[Ready]] = {}
        equal = needs_equal_sizes(self.detector)
        for ready in batch:
            key = self._resized(ready, size) if equal else (0, 0)
            groups.setdefault(key, []).append(ready)
        at_once = self.micro_batch or self._default_micro_batch(batch, size)
        return [g[i : i + at_once] for g in groups.values() for i in range(0, len(g), at_once)]

    def _default_micro_batch(self, batch: Sequence[Ready], size: Size) -> int:
        if self.device.type != "cpu" or statistics_move(self.detector.module) or not batch:
            return max(1, len(batch))
        largest = max(math.prod(self._resized(ready, size)) for ready in batch)
        return max(1, CPU_PIXELS // largest)

    def _resized(self, ready: Ready, size: Size) -> tuple[int, int]:
        height, width = ready.pixels.shape[:2]
        return self.detector.resized(height, width, size)

    def _tally(self, part: Sequence[Ready]) -> Tally:
        return tally(self.detector, [len(ready.target["labels"]) for ready in part])

    def _halve(self, images: int, refused: BaseException | None) -> None:
        before = min(self.micro_batch or images, max(images, 1))
        if before <= 1 and refused is not None:
            raise torch.OutOfMemoryError(
                f"not even one image fits: ask for a smaller image_size ({str(refused)[:200]})"
            ) from refused
        self.micro_batch = max(1, before // 2)
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        note = (
            "; norms with batch statistics now see fewer images"
            if statistics_move(self.detector.module)
            else ""
        )
        self.log(
            f"out of memory with {before} images at once; goes on with {self.micro_batch} and more parts{note}"
        )


def precision_of(asked: str, device: torch.device) -> torch.dtype:
    """`auto`: on CUDA bfloat16 where the device computes with it, else float16; float32 on a CPU.

    On CPUs with bfloat16 instructions torch 2.15 now and then gives weight gradients that are not finite: 7 of 40 runs
    of a 3x3 convolution of stride 2 on maps of one cell, as at the top of RetinaNet's pyramid.
    """
    if asked != "auto":
        return getattr(torch, asked)
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
    return torch.float32
