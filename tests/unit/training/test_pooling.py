"""Our ROI align for CPUs is torchvision's, values and gradients."""

import numpy as np
import pytest
import torch
from small_training import MOBILENET, fresh
from torchvision.ops import MultiScaleRoIAlign
from torchvision.ops.poolers import initLevelMapper

from models_store.pooling import RowSumRoIAlign, training_pools

SIZES = ((64, 96), (32, 48), (16, 24))


def boxes(rng: np.random.Generator, count: int, height: int, width: int) -> torch.Tensor:
    """Inside, thin, tiny, as large as the image, and a little over its edges."""
    corners = rng.uniform(-3, [[width, height]], (count, 2))
    sides = np.exp(rng.uniform(-2, np.log([[width, height]]), (count, 2)))
    found = np.concatenate([corners, np.minimum(corners + sides, [[width + 5, height + 5]])], 1)
    found[:, 2:] = np.maximum(found[:, 2:], found[:, :2] + 1e-3)
    return torch.tensor(found, dtype=torch.float32)


def both(levels: int, output: int, ratio: int) -> tuple[MultiScaleRoIAlign, RowSumRoIAlign]:
    names = [str(i) for i in range(levels)]
    pair = MultiScaleRoIAlign(names, output, ratio), RowSumRoIAlign(names, output, ratio)
    for pool in pair:
        pool.scales = [1 / 4, 1 / 8, 1 / 16][:levels]
        pool.map_levels = initLevelMapper(2, 1 + levels, pool.canonical_scale, pool.canonical_level)
    return pair


@pytest.mark.parametrize(("levels", "output", "ratio"), [(3, 7, 2), (1, 14, 2), (3, 3, 1)])
@pytest.mark.parametrize("channels_last", [False, True])
def test_values_and_gradients_are_torchvisions(
    levels: int, output: int, ratio: int, channels_last: bool
) -> None:
    rng = np.random.default_rng(levels + output)
    maps = {str(i): torch.from_numpy(rng.normal(size=(3, 5, *SIZES[i]))).float() for i in range(levels)}
    if channels_last:
        maps = {name: x.to(memory_format=torch.channels_last) for name, x in maps.items()}
    per_image = [boxes(rng, count, 256, 384) for count in (40, 0, 25)]
    results = []
    for pool in both(levels, output, ratio):
        leaves = {name: x.clone().requires_grad_() for name, x in maps.items()}
        out = pool(leaves, per_image, [(256, 384)] * 3)
        (out * torch.linspace(-1, 1, out.numel()).view(out.shape)).sum().backward()
        results.append((out.detach(), {name: x.grad for name, x in leaves.items()}))
    (theirs, their_grads), (ours, our_grads) = results
    assert ours.shape == (65, 5, output, output)
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=5e-5)
    for name in maps:
        torch.testing.assert_close(our_grads[name], their_grads[name], rtol=1e-4, atol=3e-4)


def test_no_boxes_at_all() -> None:
    ours = both(1, 7, 2)[1]
    assert ours({"0": torch.zeros(1, 4, 8, 8)}, [torch.zeros(0, 4)], [(32, 32)]).shape == (0, 4, 7, 7)


@pytest.mark.parametrize(
    ("architecture", "backbone"),
    [("detrank/fasterrcnn_fpn", MOBILENET), ("detrank/maskrcnn_c4", "torchvision/resnet18")],
)
def test_a_detector_trains_alike_and_gets_its_own_pools_back(architecture: str, backbone: str) -> None:
    detector = fresh(architecture, backbone, norm="frozen")
    detector.module.roi_heads.fg_bg_sampler.batch_size_per_image = 16
    own = detector.module.roi_heads.box_roi_pool
    picture = np.random.default_rng(0).integers(0, 255, (64, 96, 3), dtype=np.uint8)
    target = {"boxes": torch.tensor([[10.0, 10, 50, 40]]), "labels": torch.tensor([1])}
    target["masks"] = torch.zeros(1, 64, 96, dtype=torch.uint8)
    target["masks"][0, 10:40, 10:50] = 1
    detector.module.requires_grad_(True)

    def losses() -> tuple[dict[str, float], torch.Tensor]:
        torch.manual_seed(0)
        found = detector.losses([picture], [target], image_size=96)
        weight = next(detector.module.backbone.parameters())
        (gradient,) = torch.autograd.grad(sum(found.values()), [weight])
        return {name: value.item() for name, value in found.items()}, gradient

    theirs, their_gradient = losses()
    with training_pools(detector):
        assert type(detector.module.roi_heads.box_roi_pool) is RowSumRoIAlign
        ours, our_gradient = losses()
    assert detector.module.roi_heads.box_roi_pool is own
    assert ours == pytest.approx(theirs, rel=1e-5)
    torch.testing.assert_close(our_gradient, their_gradient, rtol=1e-3, atol=1e-4)
