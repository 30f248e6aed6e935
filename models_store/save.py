"""Write a trained detector as a converted checkpoint of its own, which ``load_detector`` and its own library take."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torchvision.ops import FrozenBatchNorm2d

from models_store import labels
from models_store.build import COUNTER, architecture_of
from models_store.detector import Detector, load_detector
from models_store.errors import Unusable, some
from models_store.manifest import WEIGHTS_FILE, Input, Manifest
from models_store.sizes import Size, size_limits

FORMAT = "detrank"
USUAL_EPS = 1e-5
PARENT = ("architecture", "backbone", "format", "kind", "source", "weights_sha256", "provenance", "published")


def save_detector(
    detector: Detector,
    folder: Path,
    *,
    class_names: Sequence[str],
    lineage: Mapping[str, Any],
    image_size: Size | None = None,
    notes: Sequence[str] = (),
) -> Manifest:
    """Write ``weights.safetensors`` and ``manifest.json`` into ``folder``, both by rename; the manifest.

    The tensors are those that ``convert`` would write, so torchvision's builders and transformers' classes load the
    file as it stands (plain.py). Every layer counts as trained and nothing as initialised; figures published for the
    parent are no longer the detector's own. ``manifest.provenance`` is ``lineage`` with ``parent``: what is known of
    the checkpoint it was trained from, where ``lineage`` does not say otherwise. ``image_size``: what it was trained and
    evaluated at, which becomes its own; None leaves the parent's.

    Raises Unusable: ``bad_override`` when there is not one name for each class, ``not_finite`` for weights that hold
    NaN or infinity, and what ``load_detector`` raises, since what was written is loaded once.
    """
    parent = detector.manifest
    if len(class_names) != parent.num_classes:
        raise Unusable(
            "bad_override", f"{len(class_names)} class names for a head of {parent.num_classes} classes"
        )
    options = dict(parent.options)
    tensors = {
        k: v.detach().cpu() for k, v in detector.module.state_dict().items() if not k.endswith(COUNTER)
    }
    if options.pop("frozen_bn_eps", None) is not None:
        tensors |= usual_eps(detector.module)
    broken = [k for k, v in tensors.items() if v.is_floating_point() and not bool(torch.isfinite(v).all())]
    if broken:
        raise Unusable("not_finite", f"{len(broken)} tensors hold NaN or infinity: {some(broken)}")
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    said = labels.said_in_file(architecture_of(parent.architecture).family, parent.has_background)
    digest = _write(tensors, folder / WEIGHTS_FILE, said)
    known = {key: value for key, value in parent.to_json().items() if key in PARENT and value}
    parameters = sum(p.numel() for p in detector.module.parameters())
    manifest = parent.but(
        format=FORMAT,
        kind="detector",
        class_names=tuple(str(name) for name in class_names),
        layers=tuple(replace(layer, trained=True) for layer in parent.layers),
        input=_input(detector, image_size),
        parameters=parameters,
        dropped_keys=(),
        initialised_keys=(),
        reasons={"dropped": [], "initialised": []},
        source={"uri": WEIGHTS_FILE, "sha256": digest, "size": (folder / WEIGHTS_FILE).stat().st_size},
        weights_sha256=digest,
        provenance={**lineage, "parent": {**known, **lineage.get("parent", {})}},
        published={"trained_parameters": parameters},
        options=options,
        notes=tuple(notes),
    )
    manifest.write(folder)
    load_detector(folder)
    return manifest


def _input(detector: Detector, image_size: Size | None) -> Input:
    spec = detector.manifest.input
    if image_size is None:
        return spec
    low, high = size_limits(image_size)
    if spec.fixed_size is not None:
        return replace(spec, fixed_size=detector.resized(low, low, image_size))
    return replace(spec, min_size=low, max_size=high)


def usual_eps(module: nn.Module) -> dict[str, Tensor]:
    """New scales of the frozen norms whose epsilon is not the usual 1e-5, so that with it they compute the same.

    scale' = scale * sqrt((var + 1e-5) / (var + eps)): torchvision's COCO weights mean eps = 0, its builders do not say so.
    """
    found: dict[str, Tensor] = {}
    for name, child in module.named_modules():
        if isinstance(child, FrozenBatchNorm2d) and child.eps != USUAL_EPS:
            variance = child.running_var.double()
            factor = ((variance + USUAL_EPS) / (variance + child.eps)).sqrt()
            found[f"{name}.weight"] = (child.weight.double() * factor).to(child.weight.dtype).cpu()
    return found


def _write(tensors: Mapping[str, Tensor], path: Path, said: Mapping[str, str]) -> str:
    """The file's sha256. Tied tensors are written under each of their names."""
    beside = path.with_name(path.name + ".partial")
    save_file(
        {k: tensors[k].contiguous().clone() for k in sorted(tensors)},
        beside,
        # one entry: several are written in any order, and equal weights would get another digest
        metadata=dict(said) or {"format": "pt"},
    )
    os.replace(beside, path)
    return hashlib.sha256(path.read_bytes()).hexdigest()
