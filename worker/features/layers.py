"""Names of the places where features are read, and which of them are read by default."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from models_store.manifest import Layer
from worker.features.errors import Unextractable

ALL = "all"
LEVELS = ("local", "global")

# The stride-16 map of the backbone: the same place in every candidate, and of the published layers the
# one whose order put untrained weights last most often (docs: METRICS, and tests/science).
DEFAULT_LAYERS = ("backbone.c4",)
DEFAULT_LEVELS = ("local",)
_DEFAULT_STRIDE = 16

LAYER_HELP: dict[str, str] = {
    "backbone.c1": "first backbone map, stride 2 or 4 (the published layer_1, after max pooling where there is one)",
    "backbone.c2": "backbone map of stride 4 (the published layer_2)",
    "backbone.c3": "backbone map of stride 8 (the published layer_3); read by default, and orders where objects are small",
    "backbone.c4": "backbone map of stride 16 (the published layer_4); read by default, and orders where objects are not small",
    "backbone.c5": "backbone map of stride 32 (the published layer_5)",
    "neck.p2": "feature pyramid, stride 4 (the published fpn_0)",
    "neck.p3": "feature pyramid, stride 8 (the published fpn_1)",
    "neck.p4": "feature pyramid, stride 16 (the published fpn_2)",
    "neck.p5": "feature pyramid, stride 32 (the published fpn_3)",
    "neck.p6": "coarsest level of the feature pyramid, stride 64",
    "neck.roi": "ROI align on the pyramid level that fits the object's size (the published fpn_ms)",
    "encoder.memory": "output of a DETR's encoder as a map, at the stride of the backbone's last map",
    **{
        f"encoder.memory.l{i}": f"output of a multi-level encoder (Deformable DETR, RT-DETR) as a map, level {i} "
        f"from the finest; most often stride {8 * 2**i}"
        for i in range(4)
    },
    "decoder.matched_query": "last decoder state of the query whose predicted box fits the object best "
    "(5 L1 - 2 GIoU, matched one to one, no class term)",
    "head.penultimate": "last hidden layer of the box head, with its ReLUs (the published penultimate); of a one-stage "
    "detector the last map of its classification tower",
}

# A query belongs to one object, so a region that lies beside its object has none of its own.
_NOT_OF_REGIONS = ("decoder.matched_query",)
# Regions are read as objects are at this level, and their vectors stand under this name beside the levels'.
REGION_LEVEL = "local"
REGIONS = "regions"

# Where metrics of the detector's own classes stand. No layer to read features at, so not among those above.
SOURCE_LAYER = "head.class_probabilities"
SOURCE_LEVEL = "local"
SOURCE_HELP = (
    "the detector's own class probabilities of each object, background left out; metrics that re-read its classes are "
    "scored here whatever layers are read, the others never"
)

LEVEL_HELP: dict[str, str] = {
    "local": "one row per object: ROI align of its box, averaged",
    "global": "the mean of the whole map, repeated for every object of the image",
}


def of_regions(layers: Iterable[Layer]) -> tuple[Layer, ...]:
    """The layers that regions can be read from: those whose vector depends on the box alone, not on the other boxes."""
    return tuple(layer for layer in layers if layer.name not in _NOT_OF_REGIONS)


@dataclass(frozen=True)
class Chosen:
    """Layers to read, in the detector's own order, and what a reader of the scores has to know."""

    layers: tuple[Layer, ...]
    warnings: tuple[str, ...]


def choose(available: Sequence[Layer], asked: Iterable[str] | None) -> Chosen:
    """The layers to read of one detector.

    `asked` None is the default, ("all",) every trained layer, otherwise names. A layer whose weights were
    never trained is read only when it is asked for by name, and then with a warning.
    Raises Unextractable for a name the detector does not have, and when nothing is left to read.
    """
    names = None if asked is None else tuple(dict.fromkeys(asked))
    if names is None:
        return _default(available)
    if ALL in names:
        return _everything(available, [name for name in names if name != ALL])
    _known(available, names)
    layers = tuple(layer for layer in available if layer.name in names)
    if not layers:
        raise Unextractable("no_layers", "no layer was asked for: name at least one, or leave layers out")
    return Chosen(layers, tuple(_untrained(layer) for layer in layers if not layer.trained))


def common(candidates: Sequence[Sequence[Layer]]) -> tuple[str, ...]:
    """Names of the trained layers that every candidate has: scores at these can be compared."""
    if not candidates:
        return ()
    shared = set.intersection(*({layer.name for layer in layers if layer.trained} for layers in candidates))
    return tuple(layer.name for layer in candidates[0] if layer.name in shared)


def _default(available: Sequence[Layer]) -> Chosen:
    trained = [layer for layer in available if layer.trained]
    layers = tuple(layer for layer in trained if layer.name in DEFAULT_LAYERS)
    if layers:
        return Chosen(layers, ())
    named = [layer for layer in available if layer.name in DEFAULT_LAYERS]
    if named:
        return Chosen(tuple(named), tuple(_untrained(layer) for layer in named))
    maps = [layer for layer in trained if layer.kind == "map" and layer.stride]
    if not maps:
        raise Unextractable(
            "no_layers",
            f"the checkpoint has no trained feature map to read; its layers are {_names(available)}: name one in layers",
        )
    nearest = min(maps, key=lambda layer: abs((layer.stride or 0) - _DEFAULT_STRIDE))
    return Chosen(
        (nearest,),
        (
            f"there is no {' or '.join(DEFAULT_LAYERS)}; {nearest.name} (stride {nearest.stride}) was read, "
            "so its scores stand at another layer than the other candidates'",
        ),
    )


def _everything(available: Sequence[Layer], also: Sequence[str]) -> Chosen:
    _known(available, also)
    layers = tuple(layer for layer in available if layer.trained or layer.name in also)
    if not layers:
        raise Unextractable(
            "no_layers", f"no layer of the checkpoint is trained; ask by name for one of {_names(available)}"
        )
    skipped = [layer.name for layer in available if layer not in layers]
    notes = [_untrained(layer) for layer in layers if not layer.trained]
    if skipped:
        notes.append(
            f"not read, because their weights are untrained: {', '.join(skipped)}; ask for them by name to read them"
        )
    return Chosen(layers, tuple(notes))


def _known(available: Sequence[Layer], names: Sequence[str]) -> None:
    have = {layer.name for layer in available}
    missing = [name for name in names if name not in have]
    if missing:
        raise Unextractable(
            "unknown_layer", f"the checkpoint has no layer {', '.join(missing)}; it has {_names(available)}"
        )


def _names(available: Sequence[Layer]) -> str:
    return ", ".join(layer.name for layer in available) or "none"


def _untrained(layer: Layer) -> str:
    return f"{layer.name}: its weights are untrained, so its scores say nothing about the checkpoint"
