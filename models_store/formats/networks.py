"""The network that a detector's body is, under whatever names people's wrappers gave it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import cache

import torchvision
from torch import Tensor

from models_store.bodies.build import CONTAINERS, full_model
from models_store.bodies.outline import shapes_of
from models_store.formats.signatures import body_shapes, lookup

Shapes = dict[str, tuple[int, ...]]
Tensors = Mapping[str, Tensor]
# `nn.Sequential(*list(resnet.children()))` counts what a ResNet names.
RESNET_CHILDREN = {"0": "conv1", "1": "bn1", "4": "layer1", "5": "layer2", "6": "layer3", "7": "layer4"}
FLATTENED = re.compile(r"^([a-z]+)_(\d+)\.")
MOST_WRAPPERS = 3


def renamed(body: Tensors) -> Iterator[dict[str, Tensor]]:
    """The same tensors under the names they may have had in a classifier."""
    current = dict(body)
    for _ in range(MOST_WRAPPERS):
        yield current
        if all(re.match(r"\d+\.", key) for key in current):
            yield {f"{CONTAINERS[0]}.{key}": value for key, value in current.items()}
            if {key.split(".", 1)[0] for key in current} <= set(RESNET_CHILDREN):
                yield {
                    RESNET_CHILDREN[first] + "." + rest: value
                    for key, value in current.items()
                    for first, _, rest in [key.partition(".")]
                }
        elif any(FLATTENED.match(key) for key in current):
            yield {FLATTENED.sub(r"\1.\2.", key): value for key, value in current.items()}
        firsts = {key.split(".", 1)[0] for key in current}
        if len(firsts) != 1 or not all("." in key for key in current):
            return
        current = {key.partition(".")[2]: value for key, value in current.items()}


def named(
    body: Tensors, backbone: str | None = None, *, whole: bool = False
) -> tuple[str, dict[str, Tensor]] | None:
    """(network, tensors under its own names), whole or cut behind a step; ``backbone`` is the one that was said."""
    forms = list(renamed(body))
    for form in forms:
        names = lookup(_shapes(form))
        if backbone in names or (names and backbone is None):
            return backbone or names[0], form
    if whole:
        return None
    for form in forms:
        shapes = _shapes(form)
        for name in [backbone] if backbone else _chains(shapes):
            if shapes and _is_start_of(shapes, _body_shapes(name)):
                return name, form
    return None


def closest(body: Tensors) -> tuple[str, dict[str, Tensor]] | None:
    """The torchvision network that most of these tensors are of, where more than half are."""
    best: tuple[tuple[float, float], str, dict[str, Tensor]] | None = None
    for form in renamed(body):
        found = set(_shapes(form).items())
        for name in _chains(_shapes(form)):
            wanted = set(_body_shapes(name).items())
            common = len(found & wanted)
            share = common / max(len(found), 1), common / max(len(found | wanted), 1)
            if share[0] > 0.5 and share > (best[0] if best else (0.5, 0.0)):
                best = share, name, form
    return best[1:] if best else None


def _shapes(form: Tensors) -> Shapes:
    return {key: tuple(value.shape) for key, value in form.items()}


def _is_start_of(given: Shapes, whole: Shapes) -> bool:
    """Whether ``given`` is ``whole`` up to one of its steps."""
    steps = {_step(key) for key in given}
    ordered = list(dict.fromkeys(_step(key) for key in whole))
    last = max((ordered.index(step) for step in steps if step in ordered), default=-1)
    kept = set(ordered[: last + 1])
    return given == {key: shape for key, shape in whole.items() if _step(key) in kept}


def _step(key: str) -> str:
    first, _, rest = key.partition(".")
    return f"{first}.{rest.partition('.')[0]}" if first in CONTAINERS else first


# What the keys of a family have, and whose they are; most of the time goes into building what cannot be meant.
FAMILIES = (
    ("layer1.", ("resnet", "resnext", "wide_resnet")),
    ("trunk_output.", ("regnet",)),
    ("stage2.", ("shufflenet",)),
    ("layers.", ("mnasnet",)),
    ("features.denseblock", ("densenet",)),
    ("features.", ("alexnet", "convnext", "efficientnet", "mobilenet", "squeezenet", "swin", "vgg")),
)


def _chains(shapes: Shapes) -> tuple[str, ...]:
    """torchvision's networks of the family that these names are of."""
    starts = next((names for first, names in FAMILIES if any(k.startswith(first) for k in shapes)), ())
    known = torchvision.models.list_models(module=torchvision.models)
    return tuple(f"torchvision/{name}" for name in known if name.startswith(starts))


@cache
def _body_shapes(name: str) -> Shapes:
    return body_shapes(shapes_of(full_model(name)))
