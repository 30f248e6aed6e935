"""Backbones as each pretraining's code saves them, converted and placed, against the library's own network."""

import argparse
import os
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
import torchvision
from torch import Tensor, nn

import models_store
from models_store.conversion import Request, convert_here
from models_store.export import to_detectron2_file
from models_store.formats.detectron2 import to_detectron2
from models_store.limits import Limits
from models_store.load import digest_of

torch.set_num_threads(1)
AGREEMENT = 1e-5
PAGE = Path(__file__).resolve().parents[2] / "docs" / "checkpoints.md"
BEGIN, END = "<!-- backbone formats: begin -->", "<!-- backbone formats: end -->"
HEADER = (
    "| file | recognised as | backbone | tensors kept | dropped | largest difference of the last map |",
    "|---|---|---|---|---|---|",
)
State = dict[str, Tensor]
HEAD = {"0.weight": torch.zeros(8, 2048), "2.weight": torch.zeros(128, 8)}


def lead(prefix: str, state: State) -> State:
    return {prefix + key: value for key, value in state.items()}


def pycontrast(state: State) -> dict:
    model = lead("module.encoder.", state) | lead("module.head.", HEAD)
    return {"model": model, "contrast": {"memory": torch.zeros(2, 128)}, "optimizer": {}, "epoch": 200}


def moco(state: State) -> dict:
    queries = lead("module.encoder_q.", state) | lead("module.encoder_q.fc.", HEAD)
    keys = lead("module.encoder_k.", {k: v + 1 if v.is_floating_point() else v for k, v in state.items()})
    return {"state_dict": queries | keys | {"module.queue": torch.zeros(128, 4)}, "epoch": 800}


def swav(state: State) -> dict:
    extra = {"projection_head.0.weight": torch.zeros(4, 2048), "prototypes.weight": torch.zeros(4, 4)}
    return lead("module.", state | extra)


def dino(state: State) -> dict:
    teacher = lead("backbone.", state) | {"head.mlp.0.weight": torch.zeros(4, 4)}
    student = lead("module.backbone.", {k: v + 1 if v.is_floating_point() else v for k, v in state.items()})
    return {"student": student, "teacher": teacher, "epoch": 9, "args": argparse.Namespace(arch="x")}


def detectron2(state: State) -> dict:
    arrays = {to_detectron2(key): value.numpy() for key, value in state.items()}
    return {"model": arrays, "__author__": "x", "matching_heuristics": True}


# name: (library's network, what its code saves, format, backbone)
CASES: dict[str, tuple[str, Callable[[State], dict], str, str]] = {
    "torchvision ResNet-50": ("resnet50", dict, "torchvision_classifier", "torchvision/resnet50"),
    "timm ConvNeXt-Atto": ("timm/convnext_atto", dict, "timm_classifier", "timm/convnext_atto"),
    "PyContrast, torch 1.2's container": ("resnet50", pycontrast, "pycontrast", "torchvision/resnet50"),
    "MoCo": ("resnet50", moco, "moco", "torchvision/resnet50"),
    "SwAV": ("resnet50", swav, "swav", "torchvision/resnet50"),
    "DINO ResNet-50, full checkpoint": ("resnet50", dino, "dino", "torchvision/resnet50"),
    "DINO ViT-S/16, the network alone": (
        "timm/vit_small_patch16_224.dino",
        dict,
        "dino",
        "timm/deit_small_patch16_224",
    ),
    "detectron2 ResNet-50, .pkl": ("resnet50", detectron2, "detectron2", "torchvision/resnet50"),
}


@pytest.fixture(scope="module")
def rows() -> Iterator[list[str]]:
    found: list[str] = []
    yield found
    if os.environ.get("DETRANK_WRITE_DOCS") == "1" and len(found) == len(CASES) + 1:
        before, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
        table = "\n".join((BEGIN, *HEADER, *found, END))
        PAGE.write_text(before + table + rest.partition(END)[2], encoding="utf-8")


@pytest.fixture(scope="module")
def resnet50(shared_data: Path) -> nn.Module:
    """The golden detectors' body: random weights, norms that are not the identity."""
    source = shared_data / "golden" / "backbone_resnet50.npz"
    if not source.is_file():
        pytest.skip(f"no {source}")
    with np.load(source) as stored:
        state = {
            k.split("backbone.0.body.", 1)[1]: torch.from_numpy(stored[k].astype(np.float32))
            for k in stored.files
            if "backbone.0.body." in k
        }
    net = torchvision.models.resnet50(weights=None)
    missing, unexpected = net.load_state_dict(state, strict=False)
    assert unexpected == []
    assert {k for k in missing if not k.endswith("num_batches_tracked")} == {"fc.weight", "fc.bias"}
    return net.eval()


def network(name: str, resnet50: nn.Module) -> nn.Module:
    if not name.startswith("timm/"):
        return resnet50
    torch.manual_seed(0)
    return timm.create_model(
        name.removeprefix("timm/"), num_classes=0, **({"dynamic_img_size": True} if "vit" in name else {})
    ).eval()


@torch.no_grad()
def last_map(net: nn.Module, pixels: Tensor) -> Tensor:
    if isinstance(net, torchvision.models.ResNet):
        x = net.maxpool(net.relu(net.bn1(net.conv1(pixels))))
        return net.layer4(net.layer3(net.layer2(net.layer1(x))))
    if hasattr(net, "blocks"):
        tokens = net.forward_features(pixels)[:, 1:]
        return tokens.transpose(1, 2).unflatten(2, [side // 16 for side in pixels.shape[-2:]])
    return net.forward_features(pixels)


def body_of(net: nn.Module) -> State:
    return {k: v for k, v in net.state_dict().items() if not k.startswith("fc.")}


def converted(source: Path, out: Path) -> models_store.Detector:
    out.mkdir()
    convert_here(Request(source, digest_of(source), source.name, out, None, None, {}, Limits()))
    return models_store.load_detector(out)


def difference(detector: models_store.Detector, net: nn.Module) -> float:
    pixels = torch.rand(1, 3, 96, 128, generator=torch.Generator().manual_seed(0))
    name = [layer.name for layer in detector.layers if layer.name.startswith("backbone.")][-1]
    return float((detector.feature_maps(pixels, [name])[name] - last_map(net, pixels)).abs().max())


def row(case: str, detector: models_store.Detector, worst: float) -> str:
    manifest: Any = detector.manifest
    kept = len(
        [k for k in detector.module.state_dict() if k.startswith("backbone.body.") and "num_batches" not in k]
    )
    return (
        f"| {case} | {manifest.format} | {manifest.backbone} | {kept} | {len(manifest.dropped_keys)} | "
        f"{worst:.1e} |"
    )


@pytest.mark.parametrize("case", CASES)
def test_backbone_gives_the_maps_of_the_library(resnet50, rows, tmp_path, case):
    name, saved, format, backbone = CASES[case]
    net = network(name, resnet50)
    source = tmp_path / "weights.pth"
    content = saved(body_of(net))
    if format == "detectron2":
        source.write_bytes(pickle.dumps(content))
    else:
        torch.save(content, source, _use_new_zipfile_serialization="1.2" not in case)
    detector = converted(source, tmp_path / "converted")
    assert (detector.manifest.format, detector.manifest.backbone) == (format, backbone)
    worst = difference(detector, net)
    assert worst <= AGREEMENT
    rows.append(row(case, detector, worst))


def test_file_written_for_detectron2_comes_back(resnet50, rows, tmp_path):
    torch.save(pycontrast(body_of(resnet50)), tmp_path / "weights.pth")
    converted(tmp_path / "weights.pth", tmp_path / "first")
    assert to_detectron2_file(tmp_path / "first", tmp_path / "out.pkl") == 265
    detector = converted(tmp_path / "out.pkl", tmp_path / "second")
    first, second = ((tmp_path / n / "weights.safetensors").read_bytes() for n in ("first", "second"))
    assert first == second
    rows.append(row("PyContrast, to detectron2 and back", detector, difference(detector, resnet50)))


def test_exchanged_norms_would_be_noticed(resnet50, tmp_path):
    """The agreement above is worth something only if a wrong map fails it."""
    state = body_of(resnet50)
    a, b = "layer3.1.bn1.running_var", "layer3.1.bn2.running_var"
    torch.save(pycontrast(state | {a: state[b], b: state[a]}), tmp_path / "weights.pth")
    assert difference(converted(tmp_path / "weights.pth", tmp_path / "out"), resnet50) > 1e-2
