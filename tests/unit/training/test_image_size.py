"""Losses and predictions at a size that the caller chooses; boxes stay in the image's own pixels."""

import numpy as np
import pytest
import torch
from small_training import MOBILENET, fresh, fresh_detr

from models_store.detector import Detector

PICTURE = np.random.default_rng(0).integers(0, 255, (60, 90, 3), dtype=np.uint8)
TARGET = {"boxes": torch.tensor([[10.0, 10, 50, 40]]), "labels": torch.tensor([1])}
MAKERS = {
    "two_stage": lambda: fresh("detrank/fasterrcnn_fpn", MOBILENET),
    "one_stage": lambda: fresh("detrank/retinanet", MOBILENET),
    "ssd": lambda: fresh("torchvision/ssdlite320_mobilenet_v3_large"),
    "detr": lambda: fresh_detr("detr", dropout=0.0),
    "yolos": lambda: fresh_detr("yolos"),
    "rt_detr": lambda: fresh_detr("rt_detr"),
}


def seen_by(detector: Detector) -> list[tuple[int, int]]:
    """Sizes of the pixels that reach the network's first convolution."""
    sizes: list[tuple[int, int]] = []
    first = next(m for m in detector.module.modules() if isinstance(m, torch.nn.Conv2d))
    first.register_forward_pre_hook(lambda _, inputs: sizes.append(tuple(inputs[0].shape[-2:])))
    return sizes


@pytest.mark.parametrize("name", MAKERS)
@pytest.mark.parametrize("size", [96, (64, 80)])
def test_the_network_sees_the_size_that_was_asked_for(name: str, size: int | tuple[int, int]) -> None:
    detector = MAKERS[name]()
    seen = seen_by(detector)
    wanted = detector.resized(60, 90, size)
    divisor = detector.manifest.input.divisor
    padded = tuple(-(-side // divisor) * divisor for side in wanted)
    output = detector.predictions([PICTURE], image_size=size)[0]
    losses = detector.losses([PICTURE], [TARGET], image_size=size)
    assert set(seen) == {padded}
    assert all(torch.isfinite(value) for value in losses.values())
    assert set(output) >= {"boxes", "scores", "labels"}
    if isinstance(size, tuple) and detector.manifest.input.fixed_size is None:
        assert max(wanted) <= 80
    seen.clear()
    detector.module.eval()
    own = detector.manifest.input.fixed_size
    if own is not None:
        detector.predictions([PICTURE])
        assert seen == [own]  # nothing of the other size stays


def test_masks_come_with_predictions_where_there_is_a_branch() -> None:
    detector = fresh("detrank/maskrcnn_c4", "torchvision/resnet18", norm="frozen")
    detector.module.roi_heads.score_thresh = 0.0
    output = detector.predictions([PICTURE], image_size=64)[0]
    assert output["masks"].shape == (len(output["boxes"]), 1, 60, 90)


def test_an_output_that_is_no_category_is_never_predicted() -> None:
    detector = fresh("detrank/retinanet", MOBILENET)
    with torch.no_grad():
        logits = detector.module.head.classification_head.cls_logits
        logits.weight.zero_()
        logits.bias.zero_()
        logits.bias.view(-1, 4)[:, 0] = 3.0  # the reserved one wins everywhere
    detector.module.topk_candidates = 10**6
    detector.module.detections_per_img = 10**6
    output = detector.predictions([PICTURE], image_size=64)[0]
    assert len(output["labels"])
    assert set(output["labels"].tolist()) == {0, 1, 2}
