"""A detector's predictions for a list of images, and what they are worth."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch

from models_store.detector import Detector
from models_store.sizes import Size
from models_store.trainable import has_mask_branch
from worker.data.dataset import Dataset, Image
from worker.data.lookahead import in_order
from worker.evaluation.evaluate import Evaluation, evaluate
from worker.evaluation.prediction import Prediction, prediction_of
from worker.training.pictures import Pictures

_AT_ONCE = {"cuda": 8}


def predictions_of(
    detector: Detector,
    images: Sequence[Image],
    pictures: Pictures,
    image_size: Size | None,
    *,
    threads: int,
    check: Callable[[], None],
) -> list[Prediction]:
    """One Prediction for each image; images of one target size share a batch, so that none is padded for another."""
    device = next(detector.module.parameters()).device
    at_once = _AT_ONCE.get(device.type, 1)
    ordered = sorted(images, key=lambda image: detector.resized(image.height, image.width, image_size))
    found: list[Prediction] = []
    waiting: list[tuple[Image, np.ndarray]] = []

    def run() -> None:
        outputs = detector.predictions([pixels for _, pixels in waiting], image_size=image_size)
        found.extend(
            prediction_of(image.id, output) for (image, _), output in zip(waiting, outputs, strict=True)
        )
        waiting.clear()

    for image, pixels in in_order(
        lambda image: (image, pictures.read(image)), ordered, threads=threads, ahead=2 * at_once + 2
    ):
        check()
        sizes = {detector.resized(i.height, i.width, image_size) for i, _ in waiting}
        if waiting and (
            len(waiting) == at_once or detector.resized(image.height, image.width, image_size) not in sizes
        ):
            run()
        waiting.append((image, pixels))
    if waiting:
        run()
    return found


def evaluated(
    detector: Detector,
    dataset: Dataset,
    image_ids: Sequence[int],
    pictures: Pictures,
    image_size: Size | None,
    *,
    threads: int,
    check: Callable[[], None],
) -> Evaluation:
    """The detector's worth on these images, in float32; masks too where it has them and the dataset does."""
    wanted = set(image_ids)
    images = [image for image in dataset.images if image.id in wanted]
    masks = has_mask_branch(detector.module) and dataset.segmentations is not None
    detector.module.eval()
    with torch.no_grad():
        found = predictions_of(detector, images, pictures, image_size, threads=threads, check=check)
    return evaluate(dataset, image_ids, found, masks=masks)
