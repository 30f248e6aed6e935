"""Whether a detector's own classes can be read off objects: only a head that learned to tell several apart says something."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch.nn.functional as F
from torch import Tensor

from models_store.manifest import Manifest

NEVER_TRAINED = ("detr_wsod",)
ONE_CLASS_PRETRAINING = ("detreg_detr", "detreg_deformable_detr")


@dataclass(frozen=True)
class NoSourceClasses:
    """Why there are no source class probabilities; `code` is for programs, `detail` for people."""

    code: Literal["untrained_head", "class_agnostic", "no_source_head"]
    detail: str


def no_source_classes(manifest: Manifest, parts: Sequence[str]) -> NoSourceClasses | None:
    """Why the head of `manifest` has nothing to say about classes, None where it has.

    `parts`: prefixes of the parameters that class scores come through.
    """
    if manifest.kind == "backbone":
        return NoSourceClasses(
            "untrained_head", "a backbone alone: the head that was put on it was never trained"
        )
    fresh = [key for key in manifest.initialised_keys if key.startswith(tuple(parts))]
    if fresh:
        return NoSourceClasses(
            "untrained_head",
            f"the class head is not trained: {len(fresh)} of its tensors, such as {fresh[0]}, are new",
        )
    if manifest.format in NEVER_TRAINED:
        return NoSourceClasses(
            "untrained_head", "the class head was never trained: image labels moved other, dropped heads only"
        )
    if manifest.format in ONE_CLASS_PRETRAINING:
        return NoSourceClasses(
            "class_agnostic", "the class head is class-agnostic: pretraining gave every object the same class"
        )
    if (manifest.num_classes or 0) < 2:
        return NoSourceClasses(
            "class_agnostic", "the head knows one class only, whose probability is 1 for every object"
        )
    return None


def normalised_sigmoids(logits: Tensor) -> Tensor:
    """(n, C) sigmoids divided by their sum over C, float32; exact where every sigmoid is next to 0."""
    return F.logsigmoid(logits.float()).softmax(-1)
