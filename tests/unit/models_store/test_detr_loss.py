"""Our set loss against transformers' parts with the published weights, and against numbers by hand."""

import math

import pytest
import torch
from detr_configs import family_of, random_detr

from models_store.detr.boxes import absolute, box_costs, query_of_each, relative
from models_store.detr.layerwise import Layerwise, layerwise
from models_store.detr.loss import Target, set_loss

torch.set_num_threads(1)
PUBLISHED = {"loss_bbox": 5.0, "loss_giou": 2.0}


def targets(seed: int = 0) -> list[Target]:
    g = torch.Generator().manual_seed(seed)
    boxes = [torch.rand(n, 4, generator=g) * 0.4 + 0.2 for n in (3, 1)]
    return [Target(b, torch.randint(0, 3, (len(b),), generator=g)) for b in boxes]


@pytest.mark.parametrize("name", ["deformable_detr", "deformable_detr_two_stage", "detr", "yolos"])
def test_each_part_is_transformers_part_times_the_published_weight(name: str) -> None:
    module = random_detr(name)
    family = family_of(name)
    pixels = torch.rand(2, 3, 64, 96, generator=torch.Generator().manual_seed(1))
    wanted = targets()
    labels = [{"class_labels": t.labels, "boxes": t.boxes} for t in wanted]
    with torch.no_grad():
        outputs = layerwise(module, family, pixels, torch.ones(2, 64, 96, dtype=torch.long))
        ours = set_loss(outputs, wanted, no_object=family.no_object)
        # transformers has no class weight for focal losses: 2 was published, for the loss and for the match.
        module.config.class_cost = 1 if family.no_object else 2
        if family.memory == "levels":
            module.config.auxiliary_loss = True
        arguments = {"pixel_values": pixels, "labels": labels}
        theirs = module(**arguments).loss_dict
    compared = 0
    for key, value in ours.items():
        if key not in theirs:
            # transformers trains neither the first stage nor, unless switched to another function, DETR's layers.
            assert key.endswith("_enc") or (family.memory == "one" and key.endswith("_0"))
            continue
        part = "_".join(key.split("_")[:2])
        weight = PUBLISHED.get(part, 1.0 if family.no_object else 2.0)
        torch.testing.assert_close(value, weight * theirs[key], atol=1e-4, rtol=1e-5)
        compared += 1
    assert compared == (6 if family.memory == "levels" else 3)


def one_layer(logits: torch.Tensor, boxes: torch.Tensor) -> Layerwise:
    return Layerwise(logits[None, None], boxes[None, None])


def test_the_first_stage_learns_that_there_is_something() -> None:
    logits, boxes = torch.randn(2, 7, 3), torch.rand(2, 7, 4) * 0.4 + 0.2
    wanted = targets()
    outputs = Layerwise(torch.zeros(1, 2, 4, 3), torch.full((1, 2, 4, 4), 0.5), (logits, boxes))
    found = set_loss(outputs, wanted, no_object=False)
    anything = [Target(t.boxes, torch.zeros_like(t.labels)) for t in wanted]
    alone = set_loss(Layerwise(logits[None], boxes[None]), anything, no_object=False)
    assert {k for k in found if k.endswith("_enc")} == {f"{k}_enc" for k in alone}
    for key, value in alone.items():
        torch.testing.assert_close(found[f"{key}_enc"], value)


def test_focal_loss_by_hand() -> None:
    boxes = torch.tensor([[0.5, 0.5, 0.2, 0.2], [0.2, 0.2, 0.1, 0.1]])
    target = Target(boxes[:1], torch.tensor([1]))
    found = set_loss(one_layer(torch.zeros(2, 3), boxes), [target], no_object=False)
    # One positive 0.25 and five negatives 0.75, each (1/2)^2 ln 2, over one box, times the weight 2.
    wanted = 2 * (0.25 + 5 * 0.75) * 0.25 * math.log(2)
    assert float(found["loss_ce"]) == pytest.approx(wanted, rel=1e-5)
    assert float(found["loss_bbox"]) == pytest.approx(0, abs=1e-6)
    assert float(found["loss_giou"]) == pytest.approx(0, abs=1e-5)


def test_softmax_loss_by_hand() -> None:
    boxes = torch.tensor([[0.5, 0.5, 0.2, 0.2], [0.2, 0.2, 0.1, 0.1]])
    logits = torch.tensor([[0.0, 2.0, 0.0], [0.0, 0.0, 1.0]])
    moved = boxes[:1] + torch.tensor([0.1, 0, 0, 0])
    found = set_loss(one_layer(logits, boxes), [Target(moved, torch.tensor([1]))], no_object=True)
    first = math.log(math.exp(2) + 2) - 2
    second = math.log(math.exp(1) + 2) - 1
    assert float(found["loss_ce"]) == pytest.approx((first + 0.1 * second) / 1.1, rel=1e-5)
    assert float(found["loss_bbox"]) == pytest.approx(5 * 0.1, rel=1e-5)
    # Half of each box overlaps: IoU 1/3, and their hull is one and a half boxes, filled.
    assert float(found["loss_giou"]) == pytest.approx(2 * (1 - 1 / 3), rel=1e-4)


def test_matching_is_one_to_one_and_least_in_all() -> None:
    predicted = torch.tensor([[0.3, 0.3, 0.2, 0.2], [0.5, 0.5, 0.2, 0.2]])
    wanted = torch.tensor([[0.4, 0.4, 0.2, 0.2], [0.31, 0.3, 0.2, 0.2]])
    # Both objects have the first query in their reach, but together it is cheaper to share out.
    assert query_of_each(box_costs(predicted, wanted)).tolist() == [1, 0]


def test_objects_without_a_query_of_their_own_are_matched_in_further_rounds() -> None:
    costs = torch.tensor([[0.0, 1.0, 2.0, 3.0, 4.0], [9.0, 0.5, 9.0, 0.1, 9.0]])
    assert query_of_each(costs).tolist() == [0, 1, 0, 1, 0]
    assert query_of_each(torch.zeros(2, 0)).tolist() == []


def test_more_objects_than_queries_train_as_many_as_there_are_queries() -> None:
    boxes = torch.rand(2, 4) * 0.5 + 0.2
    many = Target(torch.rand(5, 4) * 0.5 + 0.2, torch.zeros(5, dtype=torch.long))
    found = set_loss(one_layer(torch.zeros(2, 3), boxes), [many], no_object=False)
    assert all(bool(torch.isfinite(v)) for v in found.values())


def test_no_objects_in_the_batch() -> None:
    nothing = Target(torch.zeros(0, 4), torch.zeros(0, dtype=torch.long))
    for no_object in (True, False):
        found = set_loss(
            one_layer(torch.zeros(2, 3), torch.full((2, 4), 0.5)), [nothing], no_object=no_object
        )
        assert float(found["loss_bbox"]) == float(found["loss_giou"]) == 0
        assert float(found["loss_ce"]) > 0


def test_boxes_to_fractions_of_the_image_and_back() -> None:
    pixels = torch.tensor([[10.0, 20, 50, 80]])
    fractions = relative(pixels, (100, 200))
    torch.testing.assert_close(fractions, torch.tensor([[0.15, 0.5, 0.2, 0.6]]))
    torch.testing.assert_close(absolute(fractions, (100, 200)), pixels)
