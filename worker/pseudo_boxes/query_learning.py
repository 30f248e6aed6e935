"""The loop of a DETR that learns from image labels: that of fine-tuning, fed with regions and the classes of each picture."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from models_store.instances.detector import TaughtByLabels
from worker.data.dataset import Image
from worker.evaluation.matching import pairwise_iou
from worker.evaluation.prediction import Prediction
from worker.pseudo_boxes.image_labels import Present
from worker.pseudo_boxes.pseudo_boxes import Arrays
from worker.training import ranks
from worker.training.augment import augmented
from worker.training.examples import Example
from worker.training.loop import Training
from worker.training.order import Ready, in_batches
from worker.training.randomness import PICTURE, stream
from worker.training.recipe import Recipe
from worker.training.validate import predictions_of

# An epoch's look should not take longer than the epoch.
MOST_WATCHED = 50
SAME = 0.5  # IoU

# A crop may cut the object off that a label names, and nobody could say so: pictures are mirrored and recoloured, no more.
RECIPE = Recipe.from_json(
    {
        "name": "image_labels_detr",
        "title": "A DETR from image labels",
        "source": "detrank, after WSDDN (arXiv 1511.02853), OICR (arXiv 1704.00138) and Deformable DETR (arXiv 2010.04159)",
        "help": "40 epochs of AdamW at 5e-4, the body at a tenth of it, what makes queries of regions at twice it, in batches of 4, falling by a cosine.",
        "families": ["detr"],
        "architectures": ["*/detr", "*/deformable_detr"],
        "optimiser": "adamw",
        "weight_decay": 1e-4,
        "backbone_lr_factor": 0.1,
        "batch_size": 4,
        "schedule": "cosine",
        "clip_norm": 1.0,
        "warmup_iterations": 50,
        "evaluations": 5,
        "data_dependent_init": False,
        "phases": [{"epochs": 40, "lr": 5e-4, "freeze": "stem"}],
        "slow": {"reference_points": 0.1, "sampling_offsets": 0.1, "region_queries": 2.0},
        "augmentation": {"flip": 0.5, "colour": 0.2},
    }
)


@dataclass(frozen=True, eq=False)
class Watched:
    """``followed``: of the classes that watched pictures are labelled with the share whose best box by the detector itself lies
    on the best one by the regions (IoU of a half); None where none was looked at. No true box has a part in it."""

    followed: float | None


@dataclass
class QueryTraining(Training):
    """One learning while it runs. `regions`: of each picture by id, `boxes` (n, 4) xyxy in pixels; `present` its classes."""

    regions: Mapping[int, Arrays] = field(default_factory=dict)
    present: Present = field(default_factory=dict)

    def standardise(self) -> None:
        """What regions read, by the first pictures; before `restore`, of a learning that has no state yet."""
        some = (each.image for each in self.examples[:MOST_WATCHED])
        pairs = ((self.pictures.read(image), self.regions[image.id]["boxes"]) for image in some)
        self.module.eval()
        detector_of(self).standardise(pairs, image_size=self.plan.image_size)

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
        boxes = np.asarray(self.regions[image.id]["boxes"], np.float32).reshape(-1, 4)
        every = Example(image, boxes, np.zeros(len(boxes), np.int64))
        rng = stream(seed, PICTURE, epoch, index)
        changed, target = augmented(self.pictures.read(image), every, self.plan.recipe.augmentation, rng)
        present = torch.from_numpy(self.present[image.id].copy())
        return Ready(index, changed, target | {"present": present})

    def _evaluate_as_is(self, image_ids: Sequence[int]) -> Any:
        wanted = set(image_ids)
        images = [image for image in self.dataset.images if image.id in wanted]
        self.module.eval()
        with torch.no_grad():
            own = predictions_of(
                self.detector,
                images,
                self.pictures,
                self.plan.image_size,
                threads=self.host.decode_threads,
                check=self.watch.check,
            )
        by_id = {each.image_id: each for each in own}
        hits = [hit for image in images for hit in self._follows(image, by_id[image.id])]
        return Watched(float(np.mean(hits)) if hits else None)

    def _follows(self, image: Image, own: Prediction) -> list[bool]:
        self.watch.check()
        boxes = self.regions[image.id]["boxes"]
        scores, places = detector_of(self).told(
            self.pictures.read(image), boxes, image_size=self.plan.image_size
        )
        found = []
        for label in np.flatnonzero(self.present[image.id]).tolist():
            of_class = np.flatnonzero(own.labels == label)
            if not len(of_class):
                found.append(False)
                continue
            best = own.boxes[of_class[own.scores[of_class].argmax()]]
            taught = places[scores[:, label].argmax()]
            found.append(bool(pairwise_iou(best[None], taught[None])[0, 0] >= SAME))
        return found

    def _summary(self, evaluation: Any) -> dict[str, Any]:
        if evaluation is None:
            return {}
        iteration = self.position.iteration
        epoch = round(iteration / self.per_epoch, 3)
        return {"iteration": iteration, "epoch": epoch, "followed": evaluation.followed}

    def _told(self, summary: dict[str, Any]) -> dict[str, Any]:
        return {"followed": summary["followed"]}

    def _is_better(self, now: dict[str, Any], best: dict[str, Any] | None) -> bool:
        """The last weights are the result: what is watched decides nothing."""
        return True

    def _message(self) -> str:
        position = self.position
        said = [f"loss {position.curves[-1]['loss']:.4g}"] if position.curves else []
        if position.best is not None and position.best["followed"] is not None:
            said.append(f"its own boxes follow {position.best['followed']:.0%} of those by regions")
        return ", ".join(said)


def detector_of(training: QueryTraining) -> TaughtByLabels:
    detector: Any = training.detector
    return detector
