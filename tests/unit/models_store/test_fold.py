"""Norms folded into convolutions while maps are read: the same maps, and nothing of the module changed."""

import copy

import numpy as np
import pytest
import torch
from detr_configs import random_detr
from torch import nn
from torchvision.ops import FrozenBatchNorm2d

from models_store.fold import folded
from tests.unit.models_store.conftest import random_detector

torch.set_num_threads(1)
# name, backbone, how many norms stand behind a convolution on the way to the maps
FAMILIES = [
    ("torchvision/fasterrcnn_mobilenet_v3_large_320_fpn", None, 46),
    ("torchvision/ssdlite320_mobilenet_v3_large", None, 58),
    ("detrank/ssdlite_mobilenet_v2", None, 64),
    ("detrank/fasterrcnn_fpn_v2", "torchvision/resnet18", 28),
    ("detrank/retinanet", "torchvision/mobilenet_v2", 52),
    ("detrank/fasterrcnn_fpn", "timm/resnet18", 20),
    ("detrank/fasterrcnn_fpn", "timm/tf_efficientnet_lite0", 48),
    ("detrank/maskrcnn_c4", "torchvision/resnet18", 20),
    ("detrank/fasterrcnn_fpn", "timm/vit_tiny_patch16_224", 0),
    ("detrank/deformable_detr", "torchvision/resnet18", 20),
]
QUERY_BASED = {"detr": 12, "rt_detr": 54, "d_fine": 117, "yolos": 0}


def detector_and_run(name, backbone=None, module=None):
    detector = random_detector(name, backbone, module)
    maps = [layer.name for layer in detector.layers if layer.kind == "map"]
    noise = np.random.default_rng(0).integers(0, 256, (96, 128, 3), dtype=np.uint8)
    pixels = detector.prepare([noise], 96)
    return detector, lambda: detector.feature_maps(pixels, maps)


def states(module: nn.Module) -> dict[str, torch.Tensor]:
    return {key: value.clone() for key, value in module.state_dict().items()}


def assert_same_maps_and_module(detector, run, count):
    parameters = dict(detector.module.named_parameters())
    before, kept = run(), states(detector.module)
    found = folded(detector.module, run, torch.float32)
    assert len(found) == count
    with found:
        after = run()
    for name, wanted in before.items():
        spread = float(wanted.abs().max())
        torch.testing.assert_close(after[name], wanted, rtol=1e-4, atol=2e-5 * spread, msg=name)
    assert all(torch.equal(x, kept[key]) for key, x in detector.module.state_dict().items())
    assert list(detector.module.state_dict()) == list(kept)
    assert all(x is parameters[name] for name, x in detector.module.named_parameters())
    assert all(torch.equal(x, before[name]) for name, x in run().items())
    return found


@pytest.mark.parametrize(("name", "backbone", "count"), FAMILIES)
def test_maps_stay_and_the_module_too(name, backbone, count):
    assert_same_maps_and_module(*detector_and_run(name, backbone), count)


@pytest.mark.parametrize(("name", "count"), QUERY_BASED.items())
def test_transformers_backbones_and_encoders_too(name, count):
    assert_same_maps_and_module(*detector_and_run(f"transformers/{name}", module=random_detr(name)), count)


def test_norms_do_nothing_within():
    detector, run = detector_and_run("torchvision/fasterrcnn_mobilenet_v3_large_320_fpn")
    found = folded(detector.module, run, torch.float32)
    norms = [
        part for part in detector.module.modules() if isinstance(part, nn.BatchNorm2d | FrozenBatchNorm2d)
    ]
    for norm in norms:
        norm.running_mean.fill_(1e6)
    with found:
        assert all(x.abs().max() < 1e5 for x in run().values())
    assert any(x.abs().max() > 1e5 for x in run().values())


def test_an_error_within_puts_everything_back():
    detector, run = detector_and_run("detrank/fasterrcnn_fpn", "torchvision/resnet18")
    found, before = folded(detector.module, run, torch.bfloat16), run()
    with pytest.raises(RuntimeError, match="on the way"), found:
        raise RuntimeError("on the way")
    assert all(torch.equal(x, before[name]) for name, x in run().items())
    with found, pytest.raises(RuntimeError, match="in place already"):
        found.__enter__()


def test_weights_are_cast_once_and_only_within():
    detector, run = detector_and_run("detrank/fasterrcnn_fpn", "torchvision/resnet18")
    found = folded(detector.module, run, torch.bfloat16)
    parts = [part for part in detector.module.modules() if isinstance(part, nn.Conv2d | nn.Linear)]
    with found, torch.autocast("cpu", torch.bfloat16):
        assert {part.weight.dtype for part in parts} == {torch.bfloat16}
        assert all(x.dtype == torch.bfloat16 for name, x in run().items() if name.startswith("neck."))
    assert {part.weight.dtype for part in parts} == {torch.float32}


class Odd(nn.Module):
    """A convolution that is read twice, one that runs twice, one that treats its weights, and a plain one."""

    def __init__(self) -> None:
        super().__init__()
        self.twice_read, self.shared, self.plain = (nn.Conv2d(4, 4, 3, padding=1) for _ in range(3))
        self.standardised = Standardised(4, 4, 3, padding=1)
        self.norms = nn.ModuleList(nn.BatchNorm2d(4) for _ in range(5))
        for norm in self.norms:
            nn.init.normal_(norm.running_mean)
            nn.init.uniform_(norm.running_var, 0.5, 2)

    def forward(self, x: torch.Tensor, *, again: bool) -> torch.Tensor:
        if again:
            x = self.twice_read(x)
            x = self.norms[0](x) + x
        x = self.norms[2](self.shared(self.norms[1](self.shared(x))))
        return self.norms[4](self.standardised(self.norms[3](self.plain(x))))


class Standardised(nn.Conv2d):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        weight = (self.weight - self.weight.mean()) / self.weight.std()
        return nn.functional.conv2d(x, weight, self.bias, padding=1)


@torch.no_grad()
def test_only_what_keeps_its_numbers_is_folded():
    torch.manual_seed(0)
    module = Odd().eval()
    x = torch.randn(1, 4, 8, 8)
    found = folded(module, lambda: {"map": module(x, again=False)}, torch.float32)
    assert [norm for norm, _ in found.norms] == [module.norms[3]]


@torch.no_grad()
def test_nothing_is_folded_where_something_else_reads_the_convolution():
    torch.manual_seed(0)
    module = Odd().eval()
    x = torch.randn(1, 4, 8, 8)
    run = lambda: {"map": module(x, again=True)}  # noqa: E731
    before = run()
    found = folded(module, run, torch.float32)
    with found:
        torch.testing.assert_close(run(), before)
    assert len(found) == 0


def test_norms_that_move_are_left_alone():
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)).train()
    kept = copy.deepcopy(module.state_dict())
    assert len(folded(module, lambda: {"map": module(torch.zeros(1, 3, 8, 8))}, torch.float32)) == 0
    assert all(torch.equal(x, kept[key]) for key, x in module.state_dict().items())
