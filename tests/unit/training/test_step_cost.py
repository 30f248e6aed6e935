"""What a step of a training costs, tried on one, against what plain counting gives."""

import dataclasses

import pytest
import torch
from small_training import fresh, fresh_detr, ids, small_plan, weights_of
from torch import nn

from worker.data.dataset import Dataset
from worker.features.cost import Peak, bytes_of
from worker.features.inference import inference_cost, nothing_found
from worker.training.cost import key_of, measured_step, pixels_of

CPU = torch.device("cpu")


def test_peak_of_a_step_is_what_it_keeps_for_the_gradients() -> None:
    layers = nn.Sequential(*(part for _ in range(4) for part in (nn.Linear(256, 256, bias=False), nn.ReLU())))
    rows = torch.randn(512, 256)
    activations, weights = 512 * 256 * 4, 4 * 256 * 256 * 4
    with torch.no_grad(), Peak(CPU) as without:
        layers(rows)
    with Peak(CPU) as peak:
        layers(rows).sum().backward()
    # a backward pass wants the output of every ReLU, which is the input of the next layer; the fifth is on its way
    assert 5 * activations <= peak.bytes <= 6 * activations + weights
    assert without.bytes <= 3 * activations
    assert all(each.grad is not None for each in layers.parameters())


def test_what_lives_no_longer_is_not_counted() -> None:
    weight = torch.ones(1000, requires_grad=True)
    with Peak(CPU) as peak:
        for _ in range(20):
            (weight * 2).relu().sum().backward()
    assert peak.bytes < 8 * 4000


@pytest.mark.parametrize(
    "make", [lambda: fresh("torchvision/fasterrcnn_mobilenet_v3_large_320_fpn"), fresh_detr]
)
def test_a_step_is_measured_with_all_that_it_holds(toy: Dataset, make) -> None:
    detector = make()
    train = ids(toy, "train")
    found = {
        batch: measured_step(make(), toy, small_plan(detector, len(train), batch_size=batch), train, "cpu")
        for batch in (1, 4)
    }
    for step in found.values():
        assert step.step_s > 0
        assert step.image_s > 0
        # at least weights, a gradient and two moments of each that is trained
        assert step.peak_memory_bytes > 2 * bytes_of(detector.module)
    # of a large detector on small pictures the optimiser's state is the most
    assert found[4].peak_memory_bytes >= found[1].peak_memory_bytes


def test_what_trains_alike_has_one_key() -> None:
    detector, other = fresh_detr(), fresh_detr(classes=2)
    plan = small_plan(detector, 10)
    key = key_of(detector.manifest, plan, "a card")
    renamed = other.manifest.but(weights_sha256="1", class_names=("a", "b"))
    assert key_of(renamed, plan, "a card") == key
    assert key_of(detector.manifest, dataclasses.replace(plan, iterations=900, seed=3), "a card") == key
    others = {
        key_of(detector.manifest, plan, "another"),
        key_of(detector.manifest, dataclasses.replace(plan, batch_size=3), "a card"),
        key_of(detector.manifest, dataclasses.replace(plan, image_size=96), "a card"),
        key_of(detector.manifest, dataclasses.replace(plan, freeze="backbone"), "a card"),
        key_of(fresh(MOBILENET_RCNN).manifest, small_plan(fresh(MOBILENET_RCNN), 10), "a card"),
    }
    assert key not in others
    assert len(others) == 5


MOBILENET_RCNN = "torchvision/fasterrcnn_mobilenet_v3_large_320_fpn"


def test_finding_objects_is_timed_without_changing_the_detector(toy: Dataset) -> None:
    detector = fresh(MOBILENET_RCNN)
    before, threshold = weights_of(detector), detector.module.roi_heads.score_thresh
    image = toy.images[0]
    pixels = torch.zeros(image.height, image.width, 3, dtype=torch.uint8).numpy()
    cost = inference_cost(detector, pixels, 64, "cpu")
    assert (cost.image_hw, cost.device) == ((64, 64), "cpu")
    assert cost.peak_memory_bytes > bytes_of(detector.module)
    assert detector.module.roi_heads.score_thresh == threshold
    assert all((before[name] == value).all() for name, value in weights_of(detector).items())
    with nothing_found(detector.module):
        assert [len(one["boxes"]) for one in detector.predictions([pixels], image_size=64)] == [0]


def test_the_size_is_that_of_the_median_picture(toy: Dataset) -> None:
    detector = fresh_detr()
    images = [dataclasses.replace(toy.images[0], width=width) for width in (64, 128, 96)]
    plan = small_plan(detector, 3)
    height, width = detector.resized(64, 96, plan.image_size)
    assert pixels_of(detector, images, plan) == height * width
