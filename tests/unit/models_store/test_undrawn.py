"""A checkpoint's weights are put into a module that was built without drawing random ones: nothing else may show."""

from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
import torchvision
from torch import nn

from models_store import load_detector
from models_store.archs import ARCHITECTURES
from models_store.bodies import outline
from models_store.bodies.outline import undrawn
from models_store.build import build_module, fill

WHOLE = ("torchvision/ssdlite320_mobilenet_v3_large", "torchvision/retinanet_resnet50_fpn")


class Rotten(torch.overrides.TorchFunctionMode):
    """Memory that was allocated and not filled holds NaN."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        if func in (torch.empty, torch.empty_like) and out.is_floating_point():
            out.fill_(float("nan"))
        return out


@pytest.mark.parametrize(
    "asked", [{"architecture": "torchvision/mobilenet_v2"}, {"architecture": "torchvision/resnet18"}]
)
def test_a_placed_backbone_is_loaded_as_if_all_had_been_drawn(
    convert_inline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: dict[str, str]
) -> None:
    torch.manual_seed(0)
    backbone = torchvision.models.get_model(asked["architecture"].split("/")[1], weights=None)
    torch.save(backbone.state_dict(), tmp_path / "body.pth")
    manifest = convert_inline(tmp_path / "body.pth", tmp_path / "converted", **asked)
    monkeypatch.setattr(outline, "_NothingDrawn", lambda: nullcontext())
    plain = load_detector(tmp_path / "converted").module.state_dict()
    monkeypatch.undo()
    with Rotten():
        found = load_detector(tmp_path / "converted").module.state_dict()
    assert manifest.initialised_keys
    assert found.keys() == plain.keys()
    assert all(torch.equal(found[key], value) for key, value in plain.items())


@pytest.mark.parametrize("name", WHOLE)
def test_every_value_that_is_not_drawn_is_one_that_has_to_be_filled(name: str) -> None:
    architecture = ARCHITECTURES[name]
    given = {"num_classes": 3, "input": architecture.input, "backbone": None, "options": {}}
    drawn = build_module(architecture, **given).state_dict()
    with Rotten():
        module = build_module(architecture, **given, filled_later=True)
        fill(module, drawn, (), 0)
    assert all(torch.equal(value, drawn[key]) for key, value in module.state_dict().items())


def test_nothing_is_drawn_and_the_callers_generator_stays() -> None:
    torch.manual_seed(3)
    before = torch.get_rng_state()
    undrawn(lambda: nn.Sequential(nn.Linear(3, 4), nn.Conv2d(3, 8, 3)))
    assert torch.equal(torch.get_rng_state(), before)
    nn.Linear(3, 4)
    assert not torch.equal(torch.get_rng_state(), before)
