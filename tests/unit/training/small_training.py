"""Detectors and plans small enough to train a few steps in a test, and how to tell two trainings apart."""

from __future__ import annotations

import dataclasses
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch

from models_store.archs import ARCHITECTURES
from models_store.archs.initialise import PREDICTOR_STD, PREDICTORS
from models_store.build import build_module, layers_of
from models_store.detector import Detector, TorchvisionDetector
from models_store.manifest import Manifest
from models_store.save import save_detector
from tests.small_detr import small_detr
from worker.data.dataset import Dataset
from worker.training.plan import Plan, plan_of
from worker.training.recipe import Recipe, recipes

sys.path.insert(0, str(Path(__file__).parent.parent / "models_store"))
from detr_configs import CONFIGS, family_of

MOBILENET = "torchvision/mobilenet_v2"
SMALL_DETR = small_detr(32, 8)


def fresh(
    architecture: str, backbone: str | None = None, classes: int = 3, seed: int = 0, **options: Any
) -> Detector:
    """A detector with random weights that depend on the seed alone."""
    known = ARCHITECTURES[architecture]
    torch.manual_seed(seed)
    module = build_module(known, num_classes=classes, input=known.input, backbone=backbone, options=options)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if parameter.dim() > 1:
                # Maps that differ from place to place, or proposals would be ordered by rounding.
                last = any(part in name for part in PREDICTORS)
                std = PREDICTOR_STD if last else math.sqrt(2 / math.prod(parameter.shape[1:]))
                parameter.copy_(torch.empty(parameter.shape).normal_(0, std, generator=generator))
    face = None if known.face is None else known.face(module)
    layers = known.layers(module, known.input, ()) if face is None else layers_of(face, ())
    manifest = Manifest(
        architecture=architecture,
        format="test",
        kind="detector",
        input=known.input,
        layers=layers,
        parameters=1,
        source={},
        weights_sha256="0",
        num_classes=classes,
        has_background=known.has_background,
        options=options,
        backbone=backbone,
    )
    return known.wrap(manifest, module) if face is None else TorchvisionDetector(manifest, module, face)


def fresh_detr(name: str = "detr", classes: int = 3, **changes: Any) -> Detector:
    """A tiny query-based detector of transformers."""
    family = family_of(name)
    architecture = "transformers/" + family.model_type.replace("-", "_")
    return fresh(architecture, classes=classes, config=CONFIGS[name] | changes)


def recipe(name: str = "quick", **changes: Any) -> Recipe:
    return dataclasses.replace(recipes()[name], **changes)


def small_plan(detector: Detector, images: int, wanted: Recipe | str = "quick", **overrides: Any) -> Plan:
    asked = {"image_size": 64, "batch_size": 2, "precision": "float32", "iterations": 4, **overrides}
    return plan_of(wanted, manifest=detector.manifest, images=images, **asked)


def ids(dataset: Dataset, split: str) -> list[int]:
    return [image.id for image in dataset.images if image.split == split]


def weights_of(detector: Detector) -> dict[str, np.ndarray]:
    return {name: tensor.detach().numpy().copy() for name, tensor in detector.module.state_dict().items()}


def losses_of(curves: list[dict]) -> list[dict[str, float]]:
    return [point["losses"] for point in curves]


def saved(detector: Detector, folder: Path, names: tuple[str, ...]) -> Path:
    """As a folder that another process can load."""
    save_detector(detector, folder, class_names=names, lineage={})
    return folder
