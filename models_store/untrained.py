"""A checkpoint's own architecture before any training: what its features are worth without its weights."""

from __future__ import annotations

import torch

from models_store.archs.initialise import initialise
from models_store.build import COUNTER, architecture_of, build_module
from models_store.detector import Detector, wrapped
from models_store.manifest import Manifest

PREFIX = "untrained:"


def untrained(manifest: Manifest, seed: int = 0, *, device: str | torch.device = "cpu") -> Detector:
    """A Detector of the same architecture, backbone, options and input with the library's own initial weights.

    What the checkpoint did not bring itself (``initialised_keys``: the neck and head around a placed backbone) has the
    values it has beside the checkpoint, so the two differ by learned weights alone. Running statistics of batch norms
    are initial too (mean 0, variance 1), so such norms do nothing and deep residual networks give large values: they
    are finite in float32, of float16 that is not known. The number of classes is none of the checkpoint's, so that all
    of one architecture share it.

    Its manifest has ``weights_sha256`` "untrained:<seed>" and the checkpoint's layers, which stay marked as trained where
    they are: the same are read. Raises Unusable where the architecture cannot be built.
    """
    architecture = architecture_of(manifest.architecture)
    module = build_module(
        architecture,
        num_classes=None,
        input=manifest.input,
        backbone=manifest.backbone,
        options=manifest.options,
        seed=seed,
    )
    if architecture.family != "detr":
        initialise(
            module,
            manifest.initialised_keys,
            manifest.initialisation_seed,
            focal=architecture.family == "one_stage",
        )
    name = f"{PREFIX}{seed}"
    own = manifest.but(
        format="untrained",
        num_classes=None,
        class_names=None,
        weights_sha256=name,
        source={"uri": name},
        licence=None,
        provenance={},
        published={},
        dropped_keys=(),
        reasons={},
    )
    return wrapped(own, module, device)


def is_untrained(detector: Detector, initial: Detector) -> bool:
    """Whether the weights of ``detector`` are those of ``initial``, its own untrained one; classes apart.

    Costs next to nothing for any other: the first tensor that differs decides.
    """
    if detector.manifest.weights_sha256 == initial.manifest.weights_sha256:
        return True
    own, fresh = detector.module.state_dict(), initial.module.state_dict()
    return all(
        torch.equal(own[key], value)
        for key, value in fresh.items()
        if not key.endswith(COUNTER) and own[key].shape == value.shape
    )
