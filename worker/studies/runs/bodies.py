"""Untrained bodies, to start from and to compare with."""

from __future__ import annotations

from pathlib import Path

import torch
import torchvision
from safetensors.torch import save_file

from worker.studies.errors import StudyRefused


def random_body(backbone: str, path: Path, seed: int) -> Path:
    """Writes the library's own initial weights of `torchvision/<classifier>` to `path`. Raises StudyRefused."""
    library, _, name = backbone.partition("/")
    if library != "torchvision" or name not in torchvision.models.list_models(module=torchvision.models):
        raise StudyRefused(
            "unknown_source", f"random weights are made for torchvision's classifiers, not for {backbone}"
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        save_file(torchvision.models.get_model(name, weights=None).state_dict(), path)
    return path
