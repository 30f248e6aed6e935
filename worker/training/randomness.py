"""Every draw of a training depends on its seed and its place (epoch, iteration, image) alone, so that it can go on anywhere."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torchvision.models.detection._utils import BalancedPositiveNegativeSampler

# What is drawn; one stream each.
ORDER, PICTURE, SCALE, NETWORK, SAMPLES, VALIDATION, START = range(7)


def stream(seed: int, *place: int) -> np.random.Generator:
    return np.random.default_rng([seed, *place])


def number(seed: int, *place: int) -> int:
    """A seed for torch."""
    return int(np.random.SeedSequence([seed, *place]).generate_state(1, np.uint64)[0] >> np.uint64(1))


@contextlib.contextmanager
def seeded(device: torch.device, seed: int) -> Iterator[None]:
    """Within, torch's own draws follow ``seed``; afterwards its generators stand where they stood."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.random.default_generator.manual_seed(seed)
        if device.type == "cuda":
            with torch.cuda.device(device):
                torch.cuda.manual_seed(seed)
        yield


class PerImageSampler(BalancedPositiveNegativeSampler):
    """torchvision's choice of proposals, drawn for each image apart: it does not depend on how a batch is cut up."""

    def __init__(self, batch_size_per_image: int, positive_fraction: float) -> None:
        super().__init__(batch_size_per_image, positive_fraction)
        self.seeds: Sequence[int] = ()

    def __call__(self, matched_idxs: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Per image, masks of the positives and negatives that the loss reads, like the original."""
        chosen: tuple[list[Tensor], list[Tensor]] = ([], [])
        for matched, seed in zip(matched_idxs, self.seeds, strict=True):
            generator = torch.Generator(device=matched.device).manual_seed(seed)
            positive, negative = torch.where(matched >= 1)[0], torch.where(matched == 0)[0]
            positives = min(positive.numel(), int(self.batch_size_per_image * self.positive_fraction))
            counts = positives, min(negative.numel(), self.batch_size_per_image - positives)
            for masks, found, count in zip(chosen, (positive, negative), counts, strict=True):
                order = torch.randperm(found.numel(), generator=generator, device=matched.device)
                mask = torch.zeros_like(matched, dtype=torch.uint8)
                mask[found[order[:count]]] = 1
                masks.append(mask)
        return chosen


@contextlib.contextmanager
def per_image_samplers(module: nn.Module, rois: int | None) -> Iterator[list[PerImageSampler]]:
    """Within, a two-stage detector draws its proposals with our samplers, which are given; others have none.

    `rois`: how many of an image the heads learn from, None for as many as before.
    """
    owners = [part for name in ("rpn", "roi_heads") if (part := getattr(module, name, None)) is not None]
    kept = [owner.fg_bg_sampler for owner in owners]
    ours = [PerImageSampler(old.batch_size_per_image, old.positive_fraction) for old in kept]
    if ours and rois is not None:
        ours[-1].batch_size_per_image = rois
    try:
        for owner, sampler in zip(owners, ours, strict=True):
            owner.fg_bg_sampler = sampler
        yield ours
    finally:
        for owner, sampler in zip(owners, kept, strict=True):
            owner.fg_bg_sampler = sampler
