"""The loop of a pretraining: that of fine-tuning, fed with regions and watched by class-agnostic recall."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from models_store.pretraining import Pretrained
from worker.data.dataset import Image
from worker.evaluation.prediction import Prediction
from worker.pretraining.crops import crops_of
from worker.pretraining.proposals import chosen
from worker.pretraining.recall import Recall, recall_of
from worker.pretraining.recipe import RegionSettings
from worker.training import ranks
from worker.training.augment import augmented
from worker.training.examples import Example
from worker.training.loop import Training
from worker.training.order import Ready, in_batches
from worker.training.randomness import PICTURE, stream
from worker.training.validate import predictions_of

CROP = 101  # a stream of its own, see proposals.PROPOSAL
# Of pictures that recall is measured on: an epoch's look should not take longer than the epoch.
MOST_WATCHED = 200


@dataclass(frozen=True, eq=False)
class WatchedPictures:
    """What is looked at after an epoch.

    `predictions` of the watched pictures; `proposals`: recall of the regions that were held out with them; `objects`:
    of true boxes, None where the dataset has none.
    """

    predictions: list[Prediction]
    proposals: Recall
    objects: Recall | None

    @property
    def recall(self) -> dict[str, Any]:
        """Shares by k, of what the dataset has."""
        kinds = {"proposals": self.proposals, "objects": self.objects}
        return {name: one.to_json()["at"] for name, one in kinds.items() if one is not None}

    def to_json(self) -> dict[str, Any]:
        kinds = {"proposals": self.proposals, "objects": self.objects}
        return {name: one and one.to_json() for name, one in kinds.items()}


@dataclass
class Pretraining(Training):
    """One pretraining while it runs. `found`: regions by image id, None where they are drawn as they are needed.

    `truth`: (proposals, objects) of the watched pictures by image id, in pixels; objects None without boxes.
    """

    regions: RegionSettings = field(default_factory=RegionSettings)
    found: Mapping[int, np.ndarray] | None = None
    truth: tuple[Mapping[int, np.ndarray], Mapping[int, np.ndarray] | None] = ({}, None)
    looked: Callable[[float, WatchedPictures], None] = lambda epoch, watched: None

    def watch_start(self) -> None:
        """What recall is before the first step; kept with the state."""
        if "recall" not in self.position.start:
            watched = self._evaluate_as_is(self.val_ids) if ranks.is_first() else None
            told = ranks.told_by_first(watched.recall if watched is not None else {})
            self.position.start = self.position.start | {"recall": told}
            if watched is not None:
                self.looked(0.0, watched)

    def _batches(self) -> Generator[list[Ready]]:
        return in_batches(
            self.examples,
            self._ready,
            batch_size=self.plan.batch_size,
            seed=self.plan.seed,
            first=self.position.iteration,
            share=ranks.share,
            threads=self.host.decode_threads,
        )

    def _ready(self, epoch: int, index: int) -> Ready:
        image, seed = self.examples[index].image, self.plan.seed
        pixels = self.pictures.read(image)
        boxes = in_pixels(regions_of(self.regions, self.found, image, seed, epoch=epoch), image)
        every = Example(image, boxes, np.arange(len(boxes)))
        changed, target = augmented(
            pixels, every, self.plan.recipe.augmentation, stream(seed, PICTURE, epoch, index)
        )
        # Regions that a crop of the picture cut away take their content with them.
        left = target["labels"].numpy()
        crops = crops_of(pixels, boxes[left], stream(seed, CROP, epoch, index), self.regions.crop_size)
        labels = torch.zeros(len(left), dtype=torch.long)
        return Ready(index, changed, {"boxes": target["boxes"], "labels": labels, "crops": crops})

    def _evaluate_as_is(self, image_ids: Sequence[int]) -> Any:
        wanted = set(image_ids)
        images = [image for image in self.dataset.images if image.id in wanted]
        self.module.eval()
        with torch.no_grad():
            found = predictions_of(
                self.detector,
                images,
                self.pictures,
                self.plan.image_size,
                threads=self.host.decode_threads,
                check=self.watch.check,
            )
        if isinstance(self.detector, Pretrained):
            found = [_only(each, self.detector.object_class) for each in found]
        proposals, objects = self.truth
        return WatchedPictures(
            found, recall_of(found, proposals), None if objects is None else recall_of(found, objects)
        )

    def _validate(self) -> None:
        super()._validate()
        if self.last[1] is not None:
            watched: Any = self.last[1]
            self.looked(round(self.position.iteration / self.per_epoch, 3), watched)

    def _summary(self, evaluation: Any) -> dict[str, Any]:
        if evaluation is None:
            return {}
        iteration = self.position.iteration
        epoch = round(iteration / self.per_epoch, 3)
        return {"iteration": iteration, "epoch": epoch, "recall": evaluation.recall}

    def _told(self, summary: dict[str, Any]) -> dict[str, Any]:
        return {"recall": summary["recall"]}

    def _is_better(self, now: dict[str, Any], best: dict[str, Any] | None) -> bool:
        """The last weights are the result: recall is watched, and decides nothing."""
        return True

    def _message(self) -> str:
        position = self.position
        said = [f"loss {position.curves[-1]['loss']:.4g}"] if position.curves else []
        if position.best is not None:
            kinds = position.best["recall"]
            share = kinds.get("objects", kinds["proposals"])["30"]
            if share is not None:
                said.append(f"recall@30 {share:.3f}")
        return ", ".join(said)


def regions_of(
    regions: RegionSettings, found: Mapping[int, np.ndarray] | None, image: Image, seed: int, *, epoch: int
) -> np.ndarray:
    """(n, 4) xyxy in [0, 1]: what an epoch takes for objects in an image."""
    kept = None if found is None else found[image.id]
    return chosen(regions.proposals, kept, regions.max_proposals, seed, epoch=epoch, image_id=image.id)


def in_pixels(boxes: np.ndarray, image: Image) -> np.ndarray:
    """(n, 4) float32 xyxy in pixels of the image."""
    sides = np.array([image.width, image.height] * 2, np.float32)
    return (boxes * sides).astype(np.float32)


def _only(prediction: Prediction, label: int) -> Prediction:
    kept = prediction.labels == label
    return Prediction(
        prediction.image_id, prediction.boxes[kept], prediction.scores[kept], prediction.labels[kept]
    )
