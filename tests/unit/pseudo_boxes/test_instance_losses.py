"""The losses against the papers written down plainly, and what must not happen between pictures and stages."""

import numpy as np
import pytest
import torch

from models_store.instances.heads import InstanceHeads, Said
from models_store.instances.losses import (
    CODER,
    Refinement,
    box_loss,
    instance_scores,
    moved,
    picture_losses,
    refined_scores,
    taught,
)
from tests.unit.pseudo_boxes import oicr_as_published as published


def picture(seed: int, regions: int = 12, classes: int = 4) -> tuple[Said, torch.Tensor, torch.Tensor]:
    draw = np.random.default_rng(seed)
    logits = [torch.tensor(draw.normal(0, 2, (regions, classes))) for _ in range(2)]
    refined = tuple(torch.tensor(draw.normal(0, 2, (regions, classes + 1))) for _ in range(3))
    corner = draw.uniform(0, 40, (regions, 2))
    boxes = torch.tensor(np.concatenate([corner, corner + draw.uniform(20, 50, (regions, 2))], axis=1))
    present = torch.tensor(draw.random(classes) < 0.5)
    present[int(draw.integers(classes))] = True
    return Said(logits[0], logits[1], refined), boxes, present


@pytest.mark.parametrize("seed", range(6))
def test_losses_are_those_of_the_papers(seed: int) -> None:
    said, boxes, present = picture(seed)
    found = picture_losses(said, boxes, present, Refinement())
    wanted = published.losses(
        said.classes.numpy(),
        said.instances.numpy(),
        [r.numpy() for r in said.refined],
        present.numpy(),
        boxes.numpy(),
    )
    names = ["loss_mil", "loss_refine_1", "loss_refine_2", "loss_refine_3"]
    assert [float(found[name]) for name in names] == pytest.approx(wanted, rel=1e-9)


@pytest.mark.parametrize("seed", range(6))
def test_labels_and_weights_are_those_of_the_papers(seed: int) -> None:
    said, boxes, present = picture(seed)
    scores = instance_scores(said)
    found = taught(scores, present, boxes, Refinement())
    labels, weights = published.supervision(scores.numpy(), present.numpy(), boxes.numpy())
    assert found.labels.tolist() == labels.tolist()
    assert found.weights.numpy() == pytest.approx(weights)


def test_a_box_belongs_to_itself_whatever_its_place() -> None:
    boxes = torch.tensor([[5.0, 7.0, 25.0, 17.0], [5.0, 7.0, 25.0, 17.0], [60.0, 60.0, 90.0, 90.0]])
    scores = torch.tensor([[0.1, 0.0], [0.6, 0.0], [0.2, 0.0]])
    found = taught(scores, torch.tensor([True, False]), boxes, Refinement())
    assert found.labels.tolist() == [1, 1, 0]
    assert found.weights.tolist() == pytest.approx([0.6] * 3)


def test_several_seeds_of_a_class_lie_apart() -> None:
    boxes = torch.tensor(
        [[0.0, 0.0, 10.0, 10.0], [1.0, 1.0, 11.0, 11.0], [50.0, 50.0, 60.0, 60.0], [80.0, 0.0, 90.0, 10.0]]
    )
    scores = torch.tensor([[0.5], [0.4], [0.3], [0.01]])
    found = taught(scores, torch.tensor([True]), boxes, Refinement(share=0.75))
    assert found.labels.tolist() == [1, 1, 1, 0]
    assert found.weights.tolist() == pytest.approx([0.5, 0.5, 0.3, 0.5])


def test_what_evaluation_reads_gets_a_gradient_and_no_teacher_learns_from_its_pupil() -> None:
    torch.manual_seed(0)
    heads = InstanceHeads(6, 3)
    boxes = torch.tensor([[0.0, 0.0, 20.0, 20.0], [4.0, 0.0, 24.0, 20.0], [50.0, 50.0, 80.0, 80.0]])
    losses = picture_losses(heads(torch.randn(3, 6)), boxes, torch.tensor([True, False, True]), Refinement())
    losses["loss_refine_2"].backward(retain_graph=True)
    assert heads.refine[1].weight.grad.abs().sum() > 0
    assert heads.refine[0].weight.grad is None
    assert heads.mil[0].weight.grad is None
    sum(losses.values()).backward()
    for name, parameter in heads.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


def test_moves_go_to_the_seed() -> None:
    boxes = torch.tensor([[0.0, 0.0, 20.0, 20.0], [4.0, 2.0, 26.0, 24.0], [60.0, 60.0, 90.0, 90.0]])
    target = taught(torch.tensor([[0.2], [0.7], [0.1]]), torch.tensor([True]), boxes, Refinement(overlap=0.4))
    right = CODER.encode_single(target.boxes, boxes)
    assert float(box_loss(right, boxes, target)) == pytest.approx(0, abs=1e-6)
    assert float(box_loss(right + 1, boxes, target)) > 0.1
    nothing = torch.zeros(3, 1)
    said = Said(nothing, nothing, (torch.zeros(3, 2),), right)
    assert torch.allclose(moved(said, boxes)[0], boxes[1], atol=1e-4)


def test_scores_are_probabilities_and_without_refinements_those_of_the_two_streams() -> None:
    said, _, _ = picture(3)
    assert float(instance_scores(said).sum(dim=0).max()) <= 1
    assert refined_scores(said).shape == said.classes.shape
    assert torch.equal(refined_scores(Said(said.classes, said.instances, ())), instance_scores(said))


def test_a_picture_without_a_class_teaches_background() -> None:
    said, boxes, _ = picture(2)
    found = taught(instance_scores(said), torch.zeros(4, dtype=torch.bool), boxes, Refinement())
    assert not found.labels.any()
    assert bool((found.weights == 1).all())
