"""torchvision and timm classifiers, whole or features only, as backbones to place in a detector.

Recognised by exact key names and shapes, or by the order of shapes where a port renamed the layers.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import timm
from torch import Tensor

from models_store.bodies.build import build_body, full_model
from models_store.bodies.outline import shapes_of
from models_store.errors import Unusable, some
from models_store.formats import makers, openmmlab_bodies
from models_store.formats.signatures import HEADS, body_shapes, by_keys, lookup, lookup_order
from models_store.formats.state import COUNTER, Recognised, StateDict
from models_store.formats.wrappings import variants
from models_store.known import in_unit, input_of
from models_store.manifest import IMAGENET_MEAN, IMAGENET_STD

PLACED_IN = "detrank/fasterrcnn_fpn"
BODY = "backbone.body."
# Heads of torchvision's networks for segmentation, behind any body.
SEGMENTATION = ("aux_classifier.", "classifier.0.convs.")
DILATED = (
    "the file is a segmentation network's (DeepLabV3 or FCN), whose ResNet was trained with dilated convolutions in place of the "
    "last strides: its body is read with strides, as a classifier's, so its last two maps are not those of that network; send "
    "a classifier's file where there is one"
)
EFFICIENTNET_PORT_KEY = "_conv_stem.weight"


def recognise(state: StateDict, hint: str | None) -> Recognised | None:
    """None where the keys are no known classifier's. Raises Unusable where ``hint`` does not fit.

    ``hint``: ``torchvision/<name>`` or ``timm/<name>``.
    """
    state = _without_openmmlab(state)
    if hint is not None:
        return _as_hinted(state, hint)
    for variant in variants(state):
        if names := _preferred(_same_keys(variant), variant):
            return _told_apart(_fit(variant, names[0], dict(variant.tensors)), names, variant)
        if variant.ordered and (names := _preferred(lookup_order(variant.shapes), variant)):
            return _told_apart(_by_order(variant, names[0]), names, variant)
    for variant in variants(state):
        if found := _of_a_maker(variant):
            return found
    return None


def _without_openmmlab(state: StateDict) -> StateDict:
    """Before anything is told by order: OpenMMLab's Swin has the order of timm's, and columns of another."""
    for variant in variants(state):
        if other := openmmlab_bodies.renamed(variant.tensors):
            tensors, beside = other
            return replace(
                variant,
                tensors=tensors,
                ordered=False,
                dropped=(*variant.dropped, *beside),
                notes=(*variant.notes, "OpenMMLab's names were brought to those of the original release"),
            )
    return state


def _of_a_maker(state: StateDict) -> Recognised | None:
    """Under the names of its original release."""
    for name, tensors in makers.renamed(state):
        with contextlib.suppress(Unusable):
            return _renamed_by_timm(state, name, tensors)
    return None


def _renamed_by_timm(state: StateDict, name: str, tensors: Mapping[str, Tensor]) -> Recognised:
    """Raises Unusable where a key or shape is another."""
    left = makers.beside(state.tensors)
    read = replace(state, tensors=dict(tensors), dropped=(*state.dropped, *left))
    changed = sum(key not in state.tensors for key in tensors)
    note = f"{changed} of {len(tensors)} tensors were renamed to {name} by timm's own table for the original release"
    names = _preferred(_same_keys(read), read)
    return _told_apart(_fit(read, name, tensors, (note,)), [name, *(n for n in names if n != name)], read)


def _as_hinted(state: StateDict, hint: str) -> Recognised:
    refusal: Unusable | None = None
    for variant in variants(state):
        if variant.ordered and hint in lookup_order(variant.shapes) and hint not in lookup(variant.shapes):
            return _by_order(variant, hint)
        try:
            return _fit(variant, hint, dict(variant.tensors))
        except Unusable as error:
            refusal = refusal or error
    for variant in variants(state):
        for name, tensors in makers.renamed(variant, hint):
            with contextlib.suppress(Unusable):
                return _renamed_by_timm(variant, name, tensors)
    raise refusal or Unusable("no_tensors", "the state dict is empty")


def _same_keys(state: StateDict) -> list[str]:
    """Networks with these keys and shapes; also the one that the training's own arguments name."""
    names = lookup(state.shapes)
    stated = _stated(state)
    if stated and stated not in names and by_keys(full_shapes(stated)) == by_keys(state.shapes):
        names = [*names, stated]
    return names


def _stated(state: StateDict) -> str | None:
    """The network that the file itself names: `arch`, or `model` in timm's arguments."""
    words = state.metadata.get("arch", "").split(" ")
    for value in (*words[1:2], state.arguments.get("arch"), state.arguments.get("model")):
        name = str(value).split(".")[0]
        known = [*lookup(state.shapes), *(lookup_order(state.shapes) if state.ordered else ())]
        for library in ("torchvision/", "timm/"):
            if library + name in known:
                return library + name
        if timm.is_model(name):
            return "timm/" + name
    return None


def _preferred(names: list[str], state: StateDict) -> list[str]:
    """The twin that the file itself names, or the TensorFlow one for a port of those weights, first."""
    stated = _stated(state)
    port = EFFICIENTNET_PORT_KEY in state.tensors
    return sorted(names, key=lambda name: (name != stated, port and not name.startswith("timm/tf_")))


def _told_apart(found: Recognised, names: list[str], state: StateDict) -> Recognised:
    """``found``, the first of ``names``, with what the file says about its training, or what it leaves open."""
    known = _training_input(state)
    if known:
        found = replace(found, input={**found.input, **known})
    others = [name for name in names[1:] if name.split("/")[1] != names[0].split("/")[1]]
    if names[0] == _stated(state) or EFFICIENTNET_PORT_KEY in state.tensors or not others:
        return found
    warning = (
        f"read as {names[0]}; {some(others)} compute otherwise with the same keys and shapes: give architecture= (or "
        "options backbone= where it names the detector) to choose"
    )
    mine = seen_as(names[0])
    different = [name for name in others if seen_as(name) != mine]
    open_input = (
        ""
        if known or not different
        else (
            f"the file may be {names[0]} ({said(mine)}) or {some(different)} ({said(seen_as(different[0]))}), which have the "
            "same keys and shapes: give architecture=, or mean and std"
        )
    )
    return replace(found, warnings=(*found.warnings, warning), open_input=open_input)


def _training_input(state: StateDict) -> dict[str, Any]:
    """Mean and std of the training's arguments, or those that its timm model name stands for."""
    given = {
        key: tuple(float(v) for v in state.arguments[key])
        for key in ("mean", "std")
        if isinstance(state.arguments.get(key), list | tuple) and len(state.arguments[key]) == 3
    }
    if len(given) == 2:
        return in_unit(given)
    named = [state.arguments.get(key) for key in ("model", "arch")]
    name = next((str(n) for n in named if n and timm.is_model(str(n).split(".")[0])), None)
    return input_of("timm/" + name) if name else {}


def seen_as(backbone: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and std of the library's own weights."""
    usual = {"mean": IMAGENET_MEAN, "std": IMAGENET_STD} | input_of(backbone)
    return tuple(usual["mean"]), tuple(usual["std"])


def said(pixels: tuple[tuple[float, ...], tuple[float, ...]]) -> str:
    return f"mean {list(pixels[0])}, std {list(pixels[1])}"


def _fit(
    state: StateDict, backbone: str, tensors: Mapping[str, Tensor], notes: tuple[str, ...] = ()
) -> Recognised:
    """Every key of the body must be there with its shape; what else there is must belong to the full classifier."""
    body = build_body(backbone).state_dict()
    inner = "model." if backbone.startswith("timm/") else ""
    wanted = {k.removeprefix(inner): tuple(v.shape) for k, v in body.items() if not k.endswith(COUNTER)}
    given = {k: v for k, v in tensors.items() if not k.endswith(COUNTER)}
    missing = set(wanted) - set(given)
    if missing:
        raise Unusable(
            "missing_keys",
            f"{len(missing)} of the {len(wanted)} tensors of {backbone} are missing: {some(missing)}",
            [{"key": k, "message": "missing"} for k in sorted(missing)],
        )
    wrong = [k for k in sorted(wanted) if tuple(given[k].shape) != wanted[k]]
    if wrong:
        raise Unusable(
            "shape_mismatch",
            f"{len(wrong)} tensors have another shape than {backbone}: {some(wrong)}",
            [{"key": k, "message": f"{list(given[k].shape)} instead of {list(wanted[k])}"} for k in wrong],
        )
    extra = set(given) - set(wanted)
    unknown = sorted(k for k in extra if not k.startswith(HEADS) and k not in _full_keys(backbone))
    if unknown:
        raise Unusable(
            "unmapped_keys",
            f"{len(unknown)} tensors have no place in {backbone}: {some(unknown)}",
            [{"key": k, "message": "no place"} for k in unknown],
        )
    return Recognised(
        format="timm_classifier" if inner else "torchvision_classifier",
        kind="backbone",
        architecture=PLACED_IN,
        backbone=backbone,
        tensors={BODY + inner + k: given[k] for k in wanted},
        dropped=(*state.dropped, *sorted(extra)),
        notes=(*state.notes, *notes),
        warnings=_dilated(state, backbone),
    )


def _dilated(state: StateDict, backbone: str) -> tuple[str, ...]:
    """torchvision's DeepLabV3 and FCN stretch the last convolutions of their ResNets instead of striding."""
    heads = any(key.startswith(SEGMENTATION) for key in (*state.tensors, *state.dropped))
    return (DILATED,) if heads and "resnet" in backbone else ()


def _by_order(state: StateDict, backbone: str) -> Recognised:
    """Rename the k-th tensor to the k-th of the library's model; shapes and last names were compared."""
    own = list(body_shapes(full_shapes(backbone)))
    theirs = list(body_shapes(state.shapes))
    renamed = {new: state.tensors[old] for new, old in zip(own, theirs, strict=True)}
    heads = {k: v for k, v in state.tensors.items() if k.startswith(HEADS)}
    changed = sum(new != old for new, old in zip(own, theirs, strict=True))
    note = f"{changed} of {len(own)} tensors were renamed to {backbone} by their order, shapes compared"
    return _fit(state, backbone, renamed | heads, (note,))


def full_shapes(backbone: str) -> dict[str, tuple[int, ...]]:
    """Key to shape of the whole classifier."""
    return shapes_of(full_model(backbone))


def _full_keys(backbone: str) -> set[str]:
    return set(full_shapes(backbone))
