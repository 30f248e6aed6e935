"""torchvision and timm classifiers, whole or features only, as backbones to place in a detector.

Recognised by exact key names and shapes, or by the order of shapes where a port renamed the layers.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from models_store.archs.bodies import build_body, full_model
from models_store.archs.outline import shapes_of
from models_store.errors import Unusable, some
from models_store.formats.signatures import HEADS, body_shapes, lookup, lookup_order
from models_store.formats.state import COUNTER, Recognised, StateDict, variants

PLACED_IN = "detrank/fasterrcnn_fpn"
BODY = "backbone.body."
EFFICIENTNET_PORT_KEY = "_conv_stem.weight"


def recognise(state: StateDict, hint: str | None) -> Recognised | None:
    """None where the keys are no known classifier's. Raises Unusable where ``hint`` does not fit.

    ``hint``: ``torchvision/<name>`` or ``timm/<name>``.
    """
    if hint is not None:
        return _as_hinted(state, hint)
    for variant in variants(state):
        if names := _preferred(lookup(variant.shapes), variant):
            return _fit(variant, names[0], dict(variant.tensors), _twins(names))
        if variant.ordered and (names := _preferred(lookup_order(variant.shapes), variant)):
            return _by_order(variant, names[0])
    return None


def _as_hinted(state: StateDict, hint: str) -> Recognised:
    refusal: Unusable | None = None
    for variant in variants(state):
        if variant.ordered and hint in lookup_order(variant.shapes) and hint not in lookup(variant.shapes):
            return _by_order(variant, hint)
        try:
            return _fit(variant, hint, dict(variant.tensors), ())
        except Unusable as error:
            refusal = refusal or error
    raise refusal or Unusable("no_tensors", "the state dict is empty")


def _preferred(names: list[str], state: StateDict) -> list[str]:
    """The twin that the file itself names, or the TensorFlow one for a port of those weights, first."""
    stated = state.metadata.get("arch", "").replace(" ", "/")
    port = EFFICIENTNET_PORT_KEY in state.tensors
    return sorted(names, key=lambda name: (name != stated, port and not name.startswith("timm/tf_")))


def _twins(names: list[str]) -> tuple[str, ...]:
    if len(names) < 2:
        return ()
    return (f"{some(names[1:])} have the same keys and shapes: give architecture= to choose",)


def _fit(
    state: StateDict, backbone: str, tensors: Mapping[str, Tensor], notes: tuple[str, ...]
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
    )


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
