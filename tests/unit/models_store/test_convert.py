"""Conversion end to end: the child once, the same code in this process for the rest."""

import argparse
import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from safetensors.torch import load_file, save_file

from models_store import Limits, Manifest, Unusable, convert, load_detector
from tests.unit.models_store.conftest import random_module

BACKBONE = "torchvision/squeezenet1_1"


def classifier(seed: int = 0) -> dict[str, torch.Tensor]:
    torch.manual_seed(seed)
    return torchvision.models.squeezenet1_1(weights=None).state_dict()


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "squeezenet.pth"
    torch.save(classifier(), path)
    return path


def picture() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (64, 80, 3), dtype=np.uint8)


def test_a_file_through_the_limited_child(source, tmp_path):
    out = tmp_path / "store" / "converted"
    manifest = convert(source, out, uri="mine.pth", overrides={"licence": "MIT", "provenance": {"by": "me"}})
    assert sorted(p.name for p in out.iterdir()) == ["manifest.json", "weights.safetensors"]
    assert [p.name for p in out.parent.iterdir()] == ["converted"]
    assert manifest == Manifest.read(out)
    assert (manifest.kind, manifest.architecture, manifest.backbone) == (
        "backbone",
        "detrank/fasterrcnn_fpn",
        BACKBONE,
    )
    assert manifest.source["uri"] == "mine.pth"
    assert manifest.licence == "MIT"
    assert manifest.provenance["by"] == "me"
    assert manifest.num_classes is None
    found = load_detector(out)
    assert found.layers == manifest.layers
    trained = {layer.name: layer.trained for layer in found.layers}
    assert trained["backbone.c4"]
    assert not any(trained[name] for name in ("neck.p3", "neck.roi", "head.penultimate"))


def test_loaded_features_are_the_libraries_own(source, convert_inline, tmp_path):
    convert_inline(source)
    found = load_detector(tmp_path / "converted")
    pixels = found.prepare([picture()], 64)
    net = torchvision.models.squeezenet1_1(weights=None)
    net.load_state_dict(torch.load(source, weights_only=True))
    with torch.no_grad():
        expected = net.eval().features(pixels)
    torch.testing.assert_close(found.feature_maps(pixels, ["backbone.c4"])["backbone.c4"], expected)


def test_the_same_file_gives_the_same_bytes_and_the_same_untrained_head(source, convert_inline, tmp_path):
    first = convert_inline(source, tmp_path / "a")
    second = convert_inline(source, tmp_path / "b")
    assert first == second
    assert (tmp_path / "a" / "weights.safetensors").read_bytes() == (
        tmp_path / "b" / "weights.safetensors"
    ).read_bytes()
    left, right = load_detector(tmp_path / "a"), load_detector(tmp_path / "b")
    for key, value in left.module.state_dict().items():
        assert torch.equal(value, right.module.state_dict()[key]), key
    assert set(first.initialised_keys) == {
        key for key in left.module.state_dict() if not key.startswith("backbone.body.")
    }


def test_half_precision_is_kept_on_disk_and_cast_when_loaded(convert_inline, tmp_path):
    state = {k: v.half() for k, v in classifier().items()}
    save_file(state, tmp_path / "x.safetensors", metadata={"mean": "0.5", "std": "0.5"})
    manifest = convert_inline(tmp_path / "x.safetensors")
    assert manifest.input.mean == manifest.input.std == (0.5, 0.5, 0.5)
    stored = load_file(tmp_path / "converted" / "weights.safetensors")
    assert {v.dtype for v in stored.values()} == {torch.float16}
    found = load_detector(tmp_path / "converted")
    assert {p.dtype for p in found.module.parameters()} == {torch.float32}


def test_a_detector_keeps_its_predictions_through_conversion(convert_inline, tmp_path):
    module = random_module("detrank/ssdlite_mobilenet_v2", num_classes=2)
    torch.save({"model": module.state_dict(), "args": argparse.Namespace(lr=0.1)}, tmp_path / "x.pth")
    manifest = convert_inline(tmp_path / "x.pth", overrides={"class_names": ["a", "b"]})
    assert (manifest.num_classes, manifest.class_names) == (2, ("a", "b"))
    assert manifest.initialised_keys == ()
    assert manifest.dropped_keys == ("args",)
    found = load_detector(tmp_path / "converted")
    with torch.no_grad():
        own = module([torch.from_numpy(picture()).permute(2, 0, 1) / 255.0])[0]
    torch.testing.assert_close(found.predictions([picture()])[0]["boxes"], own["boxes"])


def test_epsilon_of_the_first_published_weights(convert_inline, tmp_path, monkeypatch):
    """The name says COCO_V1: frozen norms whose epsilon is 0, as torchvision sets it after loading."""
    module = random_module("torchvision/retinanet_resnet50_fpn", num_classes=90)
    bare = {k: v for k, v in module.state_dict().items() if not k.endswith("num_batches_tracked")}
    torch.save(bare, tmp_path / "x.pth")
    manifest = convert_inline(tmp_path / "x.pth", uri="torchvision://retinanet_resnet50_fpn/COCO_V1")
    assert manifest.options == {"frozen_norm": True, "frozen_bn_eps": 0.0}
    assert manifest.class_names[0] == "person"
    assert manifest.published["coco_box_map"] == 36.4
    norms = [
        m
        for m in load_detector(tmp_path / "converted").module.modules()
        if "FrozenBatchNorm" in type(m).__name__
    ]
    assert len(norms) == 53
    assert {norm.eps for norm in norms} == {0.0}


def test_overrides_win_over_what_is_known(source, convert_inline):
    manifest = convert_inline(
        source, overrides={"mean": [0, 0, 0], "std": [1, 1, 1], "min_size": 320, "max_size": 640}
    )
    assert manifest.input.mean == (0.0, 0.0, 0.0)
    assert (manifest.input.min_size, manifest.input.max_size) == (320, 640)


@pytest.mark.parametrize(
    ("asked", "code"),
    [
        ({"overrides": {"std": [1, 0, 1]}}, "bad_override"),
        ({"overrides": {"mean": [1, 2]}}, "bad_override"),
        ({"overrides": {"mean": [float("nan")] * 3}}, "bad_override"),
        ({"kind": "detector"}, "wrong_kind"),
        ({"architecture": "torchvision/ssd300_vgg16"}, "wrong_architecture"),
        ({"architecture": "torchvision/resnet18"}, "missing_keys"),
    ],
)
def test_what_contradicts_the_file_is_refused(source, convert_inline, asked, code):
    with pytest.raises(Unusable) as refusal:
        convert_inline(source, **asked)
    assert refusal.value.code == code


def test_unknown_overrides_and_another_digest_are_refused_before_anything_runs(source, tmp_path):
    with pytest.raises(Unusable) as refusal:
        convert(source, tmp_path / "out", overrides={"colour": "red"})
    assert refusal.value.code == "bad_override"
    with pytest.raises(Unusable) as refusal:
        convert(source, tmp_path / "out", sha256="0" * 64)
    assert refusal.value.code == "sha256_mismatch"
    assert not (tmp_path / "out").exists()


def test_a_folder_that_was_changed_is_refused(source, convert_inline, tmp_path):
    convert_inline(source)
    folder = tmp_path / "converted"
    weights = folder / "weights.safetensors"
    kept = weights.read_bytes()
    weights.write_bytes(kept[:-1] + b"x")
    with pytest.raises(Unusable) as refusal:
        load_detector(folder)
    assert refusal.value.code == "corrupt"
    weights.write_bytes(kept)
    (folder / "manifest.json").write_text(json.dumps({"schema": 99}))
    with pytest.raises(Unusable) as refusal:
        load_detector(folder)
    assert refusal.value.code == "corrupt"
    weights.unlink()
    with pytest.raises(Unusable):
        load_detector(folder)


def test_limits_that_hold_the_parent_too_are_respected(source, tmp_path):
    with pytest.raises(Unusable) as refusal:
        convert(source, tmp_path / "out", limits=Limits(file_bytes=100))
    assert refusal.value.code == "too_large"
