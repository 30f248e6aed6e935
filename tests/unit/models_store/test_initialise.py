import math

import pytest
import torch
from torch import nn

from models_store.archs.initialise import initialise


def two(order: int) -> nn.Module:
    module = nn.Module()
    for name in ("a", "b") if order else ("b", "a"):
        module.add_module(name, nn.Linear(4, 3))
    return module


def names(module: nn.Module) -> list[str]:
    return [n for n, _ in module.named_parameters()]


def test_the_order_of_construction_and_the_global_seed_do_not_matter():
    torch.manual_seed(1)
    left = two(0)
    torch.manual_seed(2)
    right = two(1)
    initialise(left, names(left), seed=5)
    initialise(right, names(right), seed=5)
    assert all(torch.equal(left.state_dict()[k], right.state_dict()[k]) for k in left.state_dict())
    assert not torch.equal(left.a.weight, left.b.weight)


def test_another_seed_gives_other_values():
    left, right = two(0), two(0)
    initialise(left, names(left), seed=5)
    initialise(right, names(right), seed=6)
    assert not torch.equal(left.a.weight, right.a.weight)


def test_variance_is_one_over_fan_in_and_norms_are_the_identity():
    module = nn.ModuleDict(
        {"conv": nn.Conv2d(32, 64, 3), "norm": nn.BatchNorm2d(64), "cls_logits": nn.Conv2d(64, 9, 1)}
    )
    initialise(module, [*names(module), "norm.running_mean", "norm.running_var"], seed=0, focal=True)
    assert module["conv"].weight.var().item() == pytest.approx(1 / (32 * 9), rel=0.05)
    assert module["norm"].weight.eq(1).all()
    assert module["norm"].running_var.eq(1).all()
    assert torch.sigmoid(module["cls_logits"].bias).allclose(torch.tensor(0.01))
    assert module["cls_logits"].weight.std().item() == pytest.approx(0.01, rel=0.2)
    assert math.isclose(module["conv"].bias.abs().sum().item(), 0)


def test_an_unknown_name_is_an_error():
    with pytest.raises(KeyError):
        initialise(two(0), ["c.weight"], seed=0)
