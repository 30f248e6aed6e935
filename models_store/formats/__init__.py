"""Foreign checkpoint formats, each recognised from keys and shapes; the first that knows the keys wins."""

from __future__ import annotations

import contextlib
import re
from dataclasses import replace
from functools import partial

from models_store.archs import ARCHITECTURES
from models_store.errors import Unusable, some
from models_store.formats import (
    classifiers,
    conditional,
    detectron2,
    detr,
    grouped,
    mmdetection,
    networks,
    rt_detr,
    self_supervised,
    timm_folder,
    torchvision_detection,
    transformers_bodies,
    transformers_folder,
    yolox,
)
from models_store.formats.expected import BODY_ALONE, GROUPS, heads_alone, without_statistics
from models_store.formats.nearest import nearest
from models_store.formats.refused import known_by_keys, refuse_adapters
from models_store.formats.state import Recognised, StateDict
from models_store.formats.vit_sizes import of_another_size
from models_store.formats.wrappings import inner_modules, stripped, variants

__all__ = ["recognise"]

BACKBONES = (
    timm_folder.recognise,
    transformers_bodies.recognise,
    detectron2.recognise,
    mmdetection.recognise,
    self_supervised.recognise,
    classifiers.recognise,
)
DETECTOR_PARTS = re.compile(r"(^|\.)(rpn|roi|bbox|neck|fpn|anchor|decoder|transformer|box_)")
LEAST_OF_A_BODY = 20
DETECTORS = (
    transformers_folder.recognise,
    yolox.recognise,
    rt_detr.recognise,
    grouped.recognise,
    conditional.recognise,
    detr.recognise,
)


def recognise(
    state: StateDict, hint: str | None = None, backbone: str | None = None, *, take: str | None = None
) -> Recognised:
    """What the state dict is, under canonical names.

    ``hint``: an architecture's name for a detector, ``torchvision/<name>`` or ``timm/<name>`` for a
    classifier to be placed. ``backbone``: the classifier's name where ``hint`` is the architecture to place it in and
    several classifiers have the same keys. ``take``: ``body`` takes the backbone of a detector alone.
    Raises Unusable: ``unknown_architecture``, ``missing_keys``, ``unmapped_keys``, ``shape_mismatch``, ``unsuitable``.
    """
    if take not in (None, "body"):
        raise Unusable("bad_override", f"take {str(take)[:50]!r}: body, or leave it out")
    if not state.tensors:
        raise Unusable("no_tensors", "the file holds no tensor: save torch.save(model.state_dict(), path)")
    refuse_adapters(state)
    refusal: Unusable | None = None
    for variant in variants(state):
        try:
            found = _as_it_is(variant, hint, backbone, take)
        except Unusable as error:
            refusal = refusal or error
            continue
        if found is not None:
            return found
    cut: Unusable | None = None
    for own in (False, True):
        for inner in inner_modules(state, own=own):
            with contextlib.suppress(Unusable):
                found = _as_it_is(inner, hint, backbone, take)
                if found is None:
                    continue
                cuts = not take and found.kind != "detector" and _cuts_a_detector(state, inner)
                # Under a name that says nothing a body is found by its order alone, before; a detector tells itself.
                if found.kind == "detector" or take or not (own or cuts):
                    return found
                if cuts:
                    cut = cut or Unusable(
                        "unknown_architecture",
                        f"the file is a detector that is not read; its body is {found.backbone}: options take=body takes the "
                        "body alone, with new heads",
                    )
    if take == "body" and (body := _body_inside(state, backbone)) is not None:
        return _placed(body, hint if hint in ARCHITECTURES else None)
    if take == "body" and (network := _network_among(state)) is not None:
        return _placed(network, hint if hint in ARCHITECTURES else None)
    raise known_by_keys(state) or of_another_size(state) or refusal or _unknown(state, hint, cut)


def _body_inside(state: StateDict, backbone: str | None) -> Recognised | None:
    """The largest known network behind any prefix of the keys."""
    words = [key.split(".") for key in state.shapes]
    prefixes = {".".join(parts[:depth]) + "." for parts in words for depth in range(1, len(parts) - 1)}
    sizes = {prefix: sum(key.startswith(prefix) for key in state.shapes) for prefix in prefixes}
    for prefix in sorted(prefixes, key=lambda p: (-sizes[p], p)):
        if sizes[prefix] < LEAST_OF_A_BODY:
            return None
        body = {k.removeprefix(prefix): v for k, v in state.tensors.items() if k.startswith(prefix)}
        if networks.named(body, backbone, whole=True):
            return classifiers.recognise(stripped(state, prefix), backbone)
    return None


def _network_among(state: StateDict) -> Recognised | None:
    """The network that the file has all tensors of, without those that were added to it. Raises Unusable for other shapes."""
    near = nearest(state)
    if near is None or near.missing or near.name in ARCHITECTURES:
        return None
    own = classifiers.full_shapes(near.name)
    added = [key for key in state.tensors if key not in own]
    kept = {key: value for key, value in state.tensors.items() if key in own}
    return classifiers.recognise(replace(state, tensors=kept, dropped=(*state.dropped, *added)), near.name)


def _as_it_is(
    state: StateDict, hint: str | None, backbone: str | None, take: str | None
) -> Recognised | None:
    """None where nobody knows these keys. Raises Unusable where somebody does and something is wrong."""
    detector_hint = hint if hint in ARCHITECTURES else None
    if take is None and (hint is None or detector_hint):
        for known in (*DETECTORS, partial(torchvision_detection.recognise, backbone=backbone)):
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
                return _placed(_body_of(found) if take else found, detector_hint)
    return None


def _body_of(found: Recognised) -> Recognised:
    """Of a whole detector the backbone alone."""
    if found.kind == "backbone":
        return found
    inside = ("backbone.body.", "backbone.fpn.")
    return replace(
        found,
        kind="backbone",
        tensors={k: v for k, v in found.tensors.items() if k.startswith(inside)},
        num_classes=None,
        options={},
        dropped=(*found.dropped, *(k for k in found.tensors if not k.startswith(inside))),
        notes=(*found.notes, "of the whole detector the backbone was taken alone"),
    )


def _cuts_a_detector(state: StateDict, inner: StateDict) -> bool:
    """Whether what was left outside is the rest of a detector."""
    return any(DETECTOR_PARTS.search(key) for key in set(inner.dropped) - set(state.dropped))


def _placed(found: Recognised, architecture: str | None) -> Recognised:
    """The backbone in the architecture that was asked for, under the names that it has there."""
    if architecture is None or architecture == found.architecture:
        return found
    found = _body_of(found)
    neck = [key for key in found.tensors if key.startswith("backbone.fpn.")]
    if neck:
        kept = {key: value for key, value in found.tensors.items() if key not in neck}
        found = replace(
            found,
            tensors=kept,
            dropped=(*found.dropped, *neck),
            notes=(*found.notes, f"its pyramid has no place in {architecture}"),
        )
    before = ARCHITECTURES[found.architecture].body_prefix
    after = ARCHITECTURES[architecture].body_prefix
    tensors = {after + key.removeprefix(before): tensor for key, tensor in found.tensors.items()}
    return replace(found, architecture=architecture, tensors=tensors)


def _unknown(state: StateDict, hint: str | None, cut: Unusable | None) -> Unusable:
    """``cut``: what is said of a detector that is not read, where it is not one that is read and lacks its heads alone."""
    near = nearest(state)
    if cut is not None and not (near and near.name in ARCHITECTURES and heads_alone(near.missing)):
        return cut
    if hint in ARCHITECTURES and ARCHITECTURES[hint].family != "detr" and (not near or near.name != hint):
        return Unusable(
            "wrong_architecture",
            f"the file's tensors are not those of {hint}"
            + (f" (nearest: {near.name})" if near else "")
            + ": leave architecture out, or correct it",
        )
    keys = list(state.shapes)
    if near is not None and without_statistics(near.missing):
        return Unusable("unsuitable", GROUPS.format(name=near.name))
    if near is not None and not near.missing:
        first = next((t for t in state.tensors.values() if t.dim() == 4), None)
        channels = (
            ""
            if first is None or first.shape[1] == 3
            else f" (it reads {first.shape[1]} channels, pictures have 3)"
        )
        return Unusable(
            "shape_mismatch",
            f"the file has all names of {near.name}, but tensors of other shapes, or more of them{channels}: send the network as "
            "its library builds it; options take=body takes the network alone where only tensors were added, and nothing reads other "
            "shapes",
        )
    if near is not None:
        return Unusable(
            "missing_keys" if near.missing else "unmapped_keys",
            f"the file is nearest to {near.name}, of which it lacks {len(near.missing)} of {near.whole} tensors "
            f"({some(near.missing)}): send the whole state dict"
            + (BODY_ALONE if heads_alone(near.missing) else ", or name the architecture with architecture="),
            [{"key": key, "message": f"missing from {near.name}"} for key in sorted(near.missing)],
        )
    return Unusable(
        "unknown_architecture",
        f"no known architecture has these {len(keys)} tensors ({some(keys)}): give architecture=timm/<name> or "
        "torchvision/<name> where it is one of theirs; other networks are not read",
    )
