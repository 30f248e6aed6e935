"""The zero point of a checkpoint: its own architecture with initial weights, read at the same places."""

import json

import numpy as np
import pytest
import torch
import torchvision
from detr_configs import CONFIGS, family_of

from models_store import Manifest, Unusable
from models_store.archs import ARCHITECTURES
from models_store.archs.detr import architecture_name
from models_store.detector import Detector
from models_store.untrained import is_untrained, untrained
from tests.unit.models_store.conftest import random_detector

torch.set_num_threads(1)
SMALL = 64
PLACED = sorted(
    name
    for name, architecture in ARCHITECTURES.items()
    if architecture.places_backbone and architecture.wrap is None
)
QUERIES = sorted(CONFIGS)


def manifest_of(name: str) -> Manifest:
    """Of a checkpoint of this architecture, or of this query-based family in its tiny configuration."""
    if name not in CONFIGS:
        return random_detector(name).manifest
    architecture = ARCHITECTURES[architecture_name(family_of(name).model_type)]
    manifest = Manifest(
        architecture=architecture.name,
        format="test",
        kind="detector",
        input=architecture.input,
        layers=(),
        parameters=0,
        source={},
        weights_sha256="0" * 64,
        num_classes=3,
        options={"config": json.loads(json.dumps(CONFIGS[name]))},
    )
    module = untrained(manifest).module
    return manifest.but(layers=architecture.layers(module, architecture.input, ()))


def maps(detector: Detector, seed: int = 0) -> dict[str, torch.Tensor]:
    size = SMALL if detector.manifest.input.fixed_size is None else detector.manifest.input.fixed_size[0]
    picture = np.random.default_rng(seed).integers(0, 256, (48, 64, 3), dtype=np.uint8)
    names = [layer.name for layer in detector.layers if layer.kind == "map"]
    return detector.feature_maps(detector.prepare([picture], size), names)


@pytest.mark.parametrize("name", [*PLACED, *QUERIES])
def test_every_family_has_one_with_the_same_layers_and_finite_seeded_features(name: str) -> None:
    manifest = manifest_of(name)
    found = untrained(manifest)
    assert found.layers == manifest.layers
    assert (found.manifest.architecture, found.manifest.backbone, found.manifest.options) == (
        manifest.architecture,
        manifest.backbone,
        manifest.options,
    )
    assert found.manifest.weights_sha256 == "untrained:0"
    assert not found.module.training
    assert not any(parameter.requires_grad for parameter in found.module.parameters())
    first = maps(found)
    assert set(first) == {layer.name for layer in manifest.layers if layer.kind == "map"}
    for layer in manifest.layers:
        if layer.kind == "map":
            assert first[layer.name].shape[1] == layer.channels
            assert first[layer.name].isfinite().all()
            assert first[layer.name].std() > 0, "it would tell nothing apart"
    again, other = maps(untrained(manifest)), maps(untrained(manifest, seed=1))
    assert all(torch.equal(first[layer], again[layer]) for layer in first)
    assert not any(torch.equal(first[layer], other[layer]) for layer in first)


def test_it_is_the_librarys_initialisation_whatever_else_is_random() -> None:
    manifest = manifest_of("detrank/fasterrcnn_fpn")
    torch.manual_seed(3)
    before = torch.random.get_rng_state()
    found = untrained(manifest, seed=7)
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.manual_seed(7)
    library = torchvision.models.get_model(
        manifest.backbone.removeprefix("torchvision/"), weights=None
    ).state_dict()
    body = found.module.backbone.body.state_dict()
    assert any(key.endswith("running_var") for key in body)
    for key, value in body.items():
        assert torch.equal(value, library[key]), key


def test_what_the_checkpoint_did_not_bring_is_as_beside_it_and_classes_do_not_matter() -> None:
    manifest = manifest_of("detrank/fasterrcnn_fpn")
    module = untrained(manifest).module
    neck = tuple(key for key in module.state_dict() if not key.startswith("backbone.body."))
    fresh = manifest.but(
        initialised_keys=neck,
        layers=tuple(
            layer if layer.name.startswith("backbone.") else type(layer)(**{**vars(layer), "trained": False})
            for layer in manifest.layers
        ),
    )
    first, second = (
        untrained(fresh.but(num_classes=classes), seed=seed) for classes, seed in ((None, 0), (80, 1))
    )
    one, two = first.module.state_dict(), second.module.state_dict()
    assert all(torch.equal(one[key], two[key]) for key in neck)
    assert not all(torch.equal(one[key], two[key]) for key in one)
    assert {layer.name for layer in first.layers if not layer.trained} >= {"neck.p4", "head.penultimate"}


def test_whether_a_detector_is_its_own_zero_point() -> None:
    manifest = manifest_of("detrank/fasterrcnn_fpn")
    initial, other = untrained(manifest), untrained(manifest, seed=1)
    assert is_untrained(initial, initial)
    assert not is_untrained(other, initial)
    other.manifest = other.manifest.but(weights_sha256="1" * 64)
    other.module.load_state_dict(initial.module.state_dict())
    assert is_untrained(other, initial)
    with torch.no_grad():
        next(iter(other.module.parameters()))[0] += 1e-3
    assert not is_untrained(other, initial)


def test_what_cannot_be_built_says_why() -> None:
    manifest = manifest_of("detrank/fasterrcnn_fpn")
    with pytest.raises(Unusable, match="cannot be placed"):
        untrained(manifest.but(backbone="torchvision/nothing"))
    with pytest.raises(Unusable, match="is no architecture of this version"):
        untrained(manifest.but(architecture="gone"))
