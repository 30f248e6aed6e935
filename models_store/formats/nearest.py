"""Which architecture an incomplete or altered file was meant to be, for a refusal that helps."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from models_store.archs import ARCHITECTURES
from models_store.bodies.build import full_model
from models_store.bodies.outline import shapes_of
from models_store.formats.expected import expected_shapes, new_name
from models_store.formats.signatures import body_shapes
from models_store.formats.state import StateDict
from models_store.formats.wrappings import variants

# One or two of each family say enough; every detector is compared.
REPRESENTATIVES = (
    "resnet18",
    "resnet34",
    "resnet50",
    "resnet101",
    "mobilenet_v2",
    "mobilenet_v3_large",
    "mobilenet_v3_small",
    "efficientnet_b0",
    "squeezenet1_0",
    "squeezenet1_1",
    "convnext_tiny",
    "densenet121",
    "swin_t",
    "vgg16",
    "shufflenet_v2_x1_0",
    "regnet_y_400mf",
)
# Without a builder of torchvision's and without a body to place.
OWN = ("detrank/ssdlite_mobilenet_v2",)
LEAST_SHARE = 0.3


@dataclass(frozen=True)
class Nearest:
    name: str
    missing: frozenset[str]
    whole: int


def nearest(state: StateDict) -> Nearest | None:
    """The architecture with most keys in common, None where less than a third of the file's are."""
    best: tuple[float, Nearest] | None = None
    for name, wanted in _known_keys():
        for variant in variants(state):
            given = {new_name(key) for key in variant.shapes}
            shared = len(given & wanted)
            likeness = shared / max(len(given | wanted), 1)
            if shared >= LEAST_SHARE * len(given) and (best is None or likeness > best[0]):
                best = likeness, Nearest(name, frozenset(wanted - given), len(wanted))
    return best[1] if best else None


def _known_keys() -> Iterator[tuple[str, set[str]]]:
    for name, architecture in ARCHITECTURES.items():
        if architecture.builder is not None or name in OWN:
            yield name, set(expected_shapes(name, 1, {}))
    for name in REPRESENTATIVES:
        yield f"torchvision/{name}", set(body_shapes(shapes_of(full_model(f"torchvision/{name}"))))
