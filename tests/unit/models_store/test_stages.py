import pytest
import torch
from torch import nn

from models_store.archs.necks import pyramid_names
from models_store.bodies.build import build_body
from models_store.bodies.stages import find_stages, nearest_stride, walk
from models_store.errors import Unusable


class Counted(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner, self.runs = inner, 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.runs += 1
        return self.inner(x)


def conv(i: int, o: int, stride: int) -> nn.Module:
    return nn.Conv2d(i, o, 3, stride, 1)


def test_the_deepest_output_of_each_stride_is_its_stage():
    steps = [conv(3, 4, 1), conv(4, 5, 2), conv(5, 6, 1), conv(6, 7, 2)]
    assert [(s.name, s.index, s.stride, s.channels) for s in find_stages(steps)] == [
        ("c1", 2, 2, 6),
        ("c2", 3, 4, 7),
    ]


def test_a_stem_pool_is_c1():
    steps = [conv(3, 4, 2), nn.MaxPool2d(3, 2, 1), conv(4, 8, 1)]
    assert [(s.name, s.index, s.stride) for s in find_stages(steps)] == [("c1", 1, 4), ("c2", 2, 4)]


def test_a_first_pool_behind_full_resolution_is_not_c1():
    steps = [conv(3, 4, 1), nn.MaxPool2d(2), conv(4, 4, 1), nn.MaxPool2d(2), conv(4, 8, 1)]
    assert [(s.name, s.index) for s in find_stages(steps)] == [("c1", 2), ("c2", 4)]


def test_nothing_behind_the_deepest_wanted_step_runs():
    steps = [Counted(conv(3, 3, 2)) for _ in range(3)]
    walk(steps, torch.zeros(1, 3, 32, 32), {0, 1})
    assert [s.runs for s in steps] == [1, 1, 0]


def test_finding_stages_leaves_norm_statistics_and_mode_alone():
    norm = nn.BatchNorm2d(3).train()
    find_stages([norm, conv(3, 4, 2)])
    assert norm.training
    assert norm.num_batches_tracked == 0


@pytest.mark.parametrize(("pixels", "stride"), [(64, 2), (63, 2), (31, 4), (15, 8), (7, 16), (1, 128)])
def test_unpadded_maps_still_have_their_stride(pixels, stride):
    assert nearest_stride(128, pixels) == stride


def test_twins_of_one_stride_get_names_of_their_own():
    assert pyramid_names((4, 8, 16)) == ("neck.p2", "neck.p3", "neck.p4")
    assert pyramid_names((32, 32, 64)) == ("neck.p5_0", "neck.p5", "neck.p6")


@pytest.mark.parametrize(
    ("backbone", "stages"),
    [
        (
            "torchvision/resnet18",
            [("c1", 4, 64), ("c2", 4, 64), ("c3", 8, 128), ("c4", 16, 256), ("c5", 32, 512)],
        ),
        (
            "torchvision/mobilenet_v2",
            [("c1", 2, 16), ("c2", 4, 24), ("c3", 8, 32), ("c4", 16, 96), ("c5", 32, 1280)],
        ),
        ("torchvision/squeezenet1_1", [("c1", 4, 64), ("c2", 4, 128), ("c3", 8, 256), ("c4", 16, 512)]),
        (
            "torchvision/densenet121",
            [("c1", 4, 64), ("c2", 4, 256), ("c3", 8, 512), ("c4", 16, 1024), ("c5", 32, 1024)],
        ),
        ("torchvision/swin_t", [("c2", 4, 96), ("c3", 8, 192), ("c4", 16, 384), ("c5", 32, 768)]),
        ("torchvision/convnext_tiny", [("c2", 4, 96), ("c3", 8, 192), ("c4", 16, 384), ("c5", 32, 768)]),
        (
            "torchvision/regnet_x_400mf",
            [("c1", 2, 32), ("c2", 4, 32), ("c3", 8, 64), ("c4", 16, 160), ("c5", 32, 400)],
        ),
        (
            "torchvision/shufflenet_v2_x0_5",
            [("c1", 2, 24), ("c2", 4, 24), ("c3", 8, 48), ("c4", 16, 96), ("c5", 32, 1024)],
        ),
        (
            "timm/tf_efficientnet_lite0",
            [("c1", 2, 16), ("c2", 4, 24), ("c3", 8, 40), ("c4", 16, 112), ("c5", 32, 320)],
        ),
        (
            "timm/swin_tiny_patch4_window7_224",
            [("c2", 4, 96), ("c3", 8, 192), ("c4", 16, 384), ("c5", 32, 768)],
        ),
        ("timm/vit_tiny_patch16_224", [("c4", 16, 192)]),
    ],
)
def test_bodies_of_the_common_families(backbone, stages):
    body = build_body(backbone).eval()
    assert [(s.name, s.stride, s.channels) for s in body.stages] == stages
    with torch.no_grad():
        maps = body.run(torch.rand(1, 3, 96, 160), [name for name, _, _ in stages])
        alone = body.run(torch.rand(1, 3, 96, 160), [stages[0][0]])
    for name, stride, channels in stages:
        height, width = maps[name].shape[-2:]
        assert maps[name].shape[1] == channels
        assert abs(height - 96 / stride) <= 2
        assert abs(width - 160 / stride) <= 2
    assert list(alone) == [stages[0][0]]


@pytest.mark.parametrize(
    "name", ["torchvision/googlenet", "timm/no_such_model", "resnet18", "torchvision/fasterrcnn_resnet50_fpn"]
)
def test_what_cannot_be_placed_is_refused(name):
    with pytest.raises(Unusable) as refusal:
        build_body(name)
    assert refusal.value.code == "unknown_architecture"
