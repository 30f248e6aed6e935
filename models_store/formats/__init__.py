"""Foreign checkpoint formats, each recognised from keys and shapes; the first that knows the keys wins."""

from __future__ import annotations

from dataclasses import replace

from models_store.archs import ARCHITECTURES
from models_store.errors import Unusable, some
from models_store.formats import (
    classifiers,
    detectron2,
    detr,
    self_supervised,
    torchvision_detection,
    transformers_folder,
)
from models_store.formats.nearest import nearest
from models_store.formats.state import Recognised, StateDict

__all__ = ["recognise"]

BACKBONES = (detectron2.recognise, self_supervised.recognise, classifiers.recognise)
DETECTORS = (transformers_folder.recognise, detr.recognise, torchvision_detection.recognise)


def recognise(state: StateDict, hint: str | None = None, backbone: str | None = None) -> Recognised:
    """What the state dict is, under canonical names.

    ``hint``: an architecture's name for a detector, ``torchvision/<name>`` or ``timm/<name>`` for a
    classifier to be placed. ``backbone``: the classifier's name where ``hint`` is the architecture to place it in and
    several classifiers have the same keys. Raises Unusable: ``unknown_architecture``, ``missing_keys``, ``unmapped_keys``,
    ``shape_mismatch``.
    """
    if not state.tensors:
        raise Unusable("no_tensors", "the file holds no tensor: save torch.save(model.state_dict(), path)")
    detector_hint = hint if hint in ARCHITECTURES else None
    if hint is None or detector_hint:
        for known in DETECTORS:
            if (found := known(state, detector_hint)) is not None:
                if detector_hint not in (None, found.architecture):
                    raise Unusable(
                        "wrong_architecture",
                        f"the file is {found.architecture}, not {detector_hint}: leave architecture out, or correct it",
                    )
                return found
    if detector_hint is None or ARCHITECTURES[detector_hint].places_backbone:
        for known in BACKBONES:
            if (found := known(state, backbone if detector_hint else hint or backbone)) is not None:
                return _placed(found, detector_hint)
    if detector_hint is not None and ARCHITECTURES[detector_hint].family != "detr":
        near = nearest(state)
        if near is None or near.name != detector_hint:
            raise Unusable(
                "wrong_architecture",
                f"the file's tensors are not those of {detector_hint}"
                + (f" (nearest: {near.name})" if near else "")
                + ": leave architecture out, or correct it",
            )
    raise _unknown(state)


def _placed(found: Recognised, architecture: str | None) -> Recognised:
    """The backbone in the architecture that was asked for, under the names that it has there."""
    if architecture is None or architecture == found.architecture:
        return found
    before = ARCHITECTURES[found.architecture].body_prefix
    after = ARCHITECTURES[architecture].body_prefix
    tensors = {after + key.removeprefix(before): tensor for key, tensor in found.tensors.items()}
    return replace(found, architecture=architecture, tensors=tensors)


def _unknown(state: StateDict) -> Unusable:
    keys = list(state.shapes)
    near = nearest(state)
    if near is not None:
        return Unusable(
            "missing_keys" if near.missing else "unmapped_keys",
            f"the file is nearest to {near.name}, of which it lacks {len(near.missing)} of {near.whole} tensors "
            f"({some(near.missing)}): send the whole state dict, or name the architecture with architecture=",
            [{"key": key, "message": f"missing from {near.name}"} for key in sorted(near.missing)],
        )
    return Unusable(
        "unknown_architecture",
        f"no known architecture has these {len(keys)} tensors ({some(keys)}): give architecture=timm/<name> or "
        "torchvision/<name> where it is one of theirs",
    )
