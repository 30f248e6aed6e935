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

import numpy as np
import torch

import models_store
from models_store.open_vocabulary.detector import OpenVocabularyDetector, load_open_vocabulary
from models_store.sizes import Size
from models_store.untrained import untrained
from worker.features.cost import Cost
from worker.features.inference import inference_cost
from worker.features.inputs import InputCache

T = TypeVar("T")
# what is kept: anything with `manifest` and `module`
Kept = TypeVar("Kept", models_store.Detector, OpenVocabularyDetector)

log = logging.getLogger(__name__)

# Of a manifest, what the untrained detector follows from.
_OF_ARCHITECTURE = (
    "architecture",
    "backbone",
    "options",
    "input",
    "layers",
    "initialised_keys",
    "initialisation_seed",
)


@dataclass(frozen=True)
class LoadedDetector:
    """A detector with what it weighs and what it looked like when it was loaded."""

    detector: Any
    size_bytes: int
    fingerprint: tuple[Any, ...]


class Models:
    """Detectors by content and device; whoever was used longest ago goes first. For one thread.

    A kept detector is for reading features only: who changes one (a new head, training) must load its own. One that was
    changed all the same is noticed and loaded anew. `inputs`: pictures as they take them.
    """

    def __init__(self) -> None:
        self._kept: OrderedDict[tuple[Any, ...], LoadedDetector] = OrderedDict()
        self._inference: dict[tuple[Any, ...], Cost] = {}
        self.inputs = InputCache()

    def inference_cost(
        self, detector: models_store.Detector, picture: np.ndarray, image_size: Size | None, device: str
    ) -> Cost:
        """As `worker.features.inference.inference_cost`; measured once for all that differ by their learned weights alone."""
        manifest = detector.manifest
        size = detector.resized(picture.shape[0], picture.shape[1], image_size)
        key = (
            _digest({**_of_architecture(manifest), "classes": len(manifest.class_names or ())}),
            size,
            device,
            torch.get_num_threads(),
        )
        if key not in self._inference:
            self._inference[key] = inference_cost(detector, picture, image_size, device)
        return self._inference[key]

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

    def open_vocabulary(
        self, folder: Path, manifest: models_store.Manifest, *, device: str, max_bytes: int
    ) -> OpenVocabularyDetector:
        """As `load`, of a checkpoint that words are asked of. Raises what `load_open_vocabulary` raises."""
        weights = folder / "weights.safetensors"
        return self._kept_or_made(
            _key(weights, manifest, device),
            manifest,
            lambda: load_open_vocabulary(folder, device=device),
            expected=weights.stat().st_size if weights.exists() else 0,
            max_bytes=max_bytes,
        )

    def initial(
        self, manifest: models_store.Manifest, seed: int, *, device: str, max_bytes: int
    ) -> models_store.Detector:
        """The untrained detector of a checkpoint's architecture, from memory where it is kept.

        Candidates that differ by nothing but their learned weights and classes share it. Raises what `untrained` raises.
        """
        key = _digest({"untrained": seed, **_of_architecture(manifest)}), device
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
        make: Callable[[], Kept],
        *,
        expected: int,
        max_bytes: int,
    ) -> Kept:
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
            self._kept[key] = LoadedDetector(detector, size, fingerprint_of(detector))
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
        """Let all kept detectors (`but` one), pictures and measurements go; whether there were any detectors."""
        self.inputs.clear()
        self._inference.clear()
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


def size_of(detector: models_store.Detector | OpenVocabularyDetector) -> int:
    """Bytes of its parameters and buffers."""
    tensors = [*detector.module.parameters(), *detector.module.buffers()]
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def fingerprint_of(detector: models_store.Detector | OpenVocabularyDetector) -> tuple[Any, ...]:
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


def _of_architecture(manifest: models_store.Manifest) -> dict[str, Any]:
    own = manifest.to_json()
    return {name: own[name] for name in _OF_ARCHITECTURE}


def _digest(facts: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
