"""Detectors that this process keeps between jobs while they fit, so that a checkpoint is loaded once and not for every job."""

from __future__ import annotations

import hashlib
import json
import logging
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import torch

import models_store
from models_store.untrained import untrained

T = TypeVar("T")

log = logging.getLogger(__name__)

# Of a manifest, what the untrained detector follows from.
_OF_ARCHITECTURE = (
    "architecture", "backbone", "options", "input", "layers", "initialised_keys", "initialisation_seed",
)  # fmt: skip


@dataclass(frozen=True)
class Kept:
    """A detector with what it weighs and what it looked like when it was loaded."""

    detector: models_store.Detector
    size_bytes: int
    fingerprint: tuple[Any, ...]


class Models:
    """Detectors by content and device; whoever was used longest ago goes first. For one thread.

    A kept detector is for reading features only: who changes one (a new head, training) must load its own. One that was
    changed all the same is noticed and loaded anew.
    """

    def __init__(self) -> None:
        self._kept: OrderedDict[tuple[Any, ...], Kept] = OrderedDict()

    def load(
        self, folder: Path, manifest: models_store.Manifest, *, device: str, max_bytes: int
    ) -> models_store.Detector:
        """The detector of a converted checkpoint in `folder`, from memory where it is kept; `max_bytes` of them stay.

        Raises what `load_detector` raises.
        """
        weights = folder / "weights.safetensors"
        return self._kept_or_made(
            _key(weights, manifest, device),
            manifest,
            lambda: models_store.load_detector(folder, device=device),
            # room is made before: both at once may be more than the device has
            expected=weights.stat().st_size if weights.exists() else 0,
            max_bytes=max_bytes,
        )

    def initial(
        self, manifest: models_store.Manifest, seed: int, *, device: str, max_bytes: int
    ) -> models_store.Detector:
        """The untrained detector of a checkpoint's architecture, from memory where it is kept.

        Candidates that differ by nothing but their learned weights and classes share it. Raises what `untrained` raises.
        """
        facts = {name: manifest.to_json()[name] for name in _OF_ARCHITECTURE}
        key = _digest({"untrained": seed, **facts}), device
        return self._kept_or_made(
            key,
            manifest,
            lambda: untrained(manifest, seed, device=device),
            expected=4 * manifest.parameters,
            max_bytes=max_bytes,
        )

    def _kept_or_made(
        self,
        key: tuple[Any, ...],
        manifest: models_store.Manifest,
        make: Callable[[], models_store.Detector],
        *,
        expected: int,
        max_bytes: int,
    ) -> models_store.Detector:
        kept = self._kept.get(key)
        if kept is not None and kept.fingerprint == fingerprint_of(kept.detector):
            self._kept.move_to_end(key)
            return kept.detector
        if self._kept.pop(key, None) is not None:
            log.warning("a kept detector of %s was changed and is loaded anew", manifest.architecture)
        self._shrink(max_bytes - expected)
        detector = make()
        detector.module.to(memory_format=torch.channels_last)
        size = size_of(detector)
        if size <= max_bytes:
            self._shrink(max_bytes - size)
            self._kept[key] = Kept(detector, size, fingerprint_of(detector))
        return detector

    def with_room(self, using: models_store.Detector, work: Callable[[], T]) -> T:
        """`work()`; where the device has not enough memory for it, once more with only `using` kept."""
        try:
            return work()
        except torch.OutOfMemoryError:
            if not self.forget(but=using):
                raise
            log.warning("out of memory: other kept detectors were let go")
        return work()

    def forget(self, but: models_store.Detector | None = None) -> bool:
        """Let all kept detectors go (`but` one); whether there were any."""
        gone = [key for key, kept in self._kept.items() if kept.detector is not but]
        for key in gone:
            del self._kept[key]
        if torch.cuda.is_initialized():
            torch.cuda.empty_cache()
        return bool(gone)

    def held(self) -> list[dict[str, Any]]:
        """What is kept, used last first: `{"architecture", "weights_sha256", "device", "size_bytes"}`."""
        return [
            {
                "architecture": kept.detector.manifest.architecture,
                "weights_sha256": kept.detector.manifest.weights_sha256,
                "device": str(next(kept.detector.module.parameters()).device),
                "size_bytes": kept.size_bytes,
            }
            for kept in reversed(self._kept.values())
        ]

    def _shrink(self, max_bytes: int) -> None:
        while self._kept and sum(kept.size_bytes for kept in self._kept.values()) > max_bytes:
            self._kept.popitem(last=False)


@cache
def models() -> Models:
    """This process's own."""
    return Models()


def size_of(detector: models_store.Detector) -> int:
    """Bytes of its parameters and buffers."""
    tensors = [*detector.module.parameters(), *detector.module.buffers()]
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def fingerprint_of(detector: models_store.Detector) -> tuple[Any, ...]:
    """Changes with every write into a tensor, with every part exchanged, and with the manifest; costs no reading."""
    module = detector.module
    tensors = (*module.named_parameters(), *module.named_buffers())
    return (
        id(detector.manifest),
        tuple((name, id(tensor), tensor._version, tensor.requires_grad) for name, tensor in tensors),
        tuple((name, id(part), part.training) for name, part in module.named_modules()),
    )


def _key(weights: Path, manifest: models_store.Manifest, device: str) -> tuple[Any, ...]:
    # the file itself too: one that was damaged since must be looked at again, and refused
    state = weights.stat() if weights.exists() else None
    return _digest(manifest.to_json()), device, state and (state.st_ino, state.st_size)


def _digest(facts: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
