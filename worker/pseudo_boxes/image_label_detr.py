"""The teacher `image_labels` in its form `detr`: a DETR whose instances are regions learns end to end from image labels.

The decoder's states of a picture's regions are the instances of multiple-instance learning with refinements and moves; what the
refinements are sure of teaches the detector's own queries, so that what comes of it is a detector that needs no regions.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from models_store.detector import Detector
from models_store.detr.detector import DetrDetector
from models_store.instances.detector import QueryLearning, TaughtByLabels, taught_by_labels
from models_store.manifest import Manifest
from worker.data.batches import decoded
from worker.data.dataset import Dataset, Image
from worker.pseudo_boxes.geometry import Geometry, Removed, checked
from worker.pseudo_boxes.image_label_teacher import Keeping, kept_boxes, warnings_of
from worker.pseudo_boxes.image_labels import Present, check_pictures_of_classes, present_of
from worker.pseudo_boxes.pseudo_boxes import Arrays, PseudoBoxes, Unteachable, Watching
from worker.pseudo_boxes.query_learning import MOST_WATCHED, RECIPE, QueryTraining
from worker.pseudo_boxes.regions import CUTS, VERSIONS, RegionSettings, searching
from worker.training import state
from worker.training.examples import Example
from worker.training.fine_tune import digest_of, must_run
from worker.training.inputs import Host, Watch
from worker.training.pictures import Pictures
from worker.training.plan import Plan, plan_of
from worker.training.step import Stepper, precision_of

IMAGE_SIZE = 320


@dataclass(frozen=True)
class DetrSettings:
    """Everything that boxes and detector depend on beside dataset, backbone and seed.

    `model_type` and `config`: of a fresh detector around the backbone's body; without a `model_type` the checkpoint itself
    learns where it is a DETR or Deformable DETR, else a fresh Deformable DETR. `grid`: cells of a
    region a side. `epochs`, `batch_size`, `lr`: None for the recipe's. `least_pictures`: a class that occurs in fewer is refused.
    """

    regions: RegionSettings = field(default_factory=lambda: RegionSettings(most=150))
    model_type: str | None = None
    config: Mapping[str, Any] | None = None
    grid: int = 2
    learning: QueryLearning = field(default_factory=QueryLearning)
    image_size: int = IMAGE_SIZE
    epochs: float | None = None
    batch_size: int | None = None
    lr_factor: float | None = None
    keeping: Keeping = field(default_factory=Keeping)
    geometry: Geometry = field(default_factory=lambda: Geometry(nested=0.9))
    least_pictures: int = 2


@dataclass(frozen=True, eq=False)
class LearnedDetector:
    """`detector`: with its last weights, no branch for regions any more; `image_size`: what it saw pictures at. `curves`: as of a training, evaluated points with
    `val: {"followed": share}`. `finished`: `completed` or `paused`. `said`: the pseudo boxes."""

    detector: DetrDetector
    image_size: int
    said: PseudoBoxes
    curves: list[dict[str, Any]]
    iterations: int
    seconds: float
    finished: str


class DetrTeacher:
    """Looks for regions; learns and says boxes in one go, see `teach`. With the method `cuts` it is the backbone's attention
    that is cut. Raises Unteachable when it is made: `unknown_proposals`, `no_attention`."""

    def __init__(self, backbone: Detector, settings: DetrSettings = DetrSettings(), *, seed: int = 0) -> None:
        self.backbone, self.settings, self.seed = backbone, settings, seed
        self._search = searching(settings.regions, attention_of=backbone)

    @property
    def key(self) -> str:
        """A digest of what regions depend on: the backbone only where it is its attention that is cut."""
        facts = {
            "versions": ["image_label_detr/1", *(VERSIONS[name] for name in self.settings.regions.methods)],
            "weights": self.backbone.manifest.weights_sha256
            if CUTS in self.settings.regions.methods
            else None,
            "regions": asdict(self.settings.regions),
        }
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()

    def look(
        self, images: Sequence[Image], watching: Watching = Watching()
    ) -> Iterator[tuple[Image, dict[str, np.ndarray]]]:
        """Yield each image with `boxes` (n, 4) float32 xyxy in pixels, its regions."""
        for done, (image, pixels) in enumerate(decoded(images, threads=watching.threads), start=1):
            watching.check()
            extent = np.array([image.width, image.height] * 2, np.float32)
            yield image, {"boxes": (self._search(pixels) * extent).astype(np.float32)}
            watching.progress(done, len(images), "images")

    def fresh(self, dataset: Dataset) -> TaughtByLabels:
        """The detector as learning begins with it. Raises Unusable."""
        made = taught_by_labels(
            self.backbone,
            dataset.categories,
            model_type=self.settings.model_type,
            config=self.settings.config,
            how=self.settings.learning,
            grid=self.settings.grid,
            seed=self.seed,
        )
        made.module.requires_grad_(False)
        return made

    def plan(self, manifest: Manifest, pictures: int) -> Plan:
        """Every number of the learning. Raises Untrainable."""
        settings = self.settings
        return plan_of(
            RECIPE,
            manifest=manifest,
            images=pictures,
            epochs=settings.epochs,
            batch_size=settings.batch_size,
            lr_factor=settings.lr_factor,
            image_size=settings.image_size,
            seed=self.seed,
        )

    def teach(
        self,
        dataset: Dataset,
        looked: Mapping[int, Arrays],
        folder: Path,
        host: Host = Host(),
        watch: Watch = Watch(),
    ) -> LearnedDetector:
        """Learn from the classes of the pictures of `looked`, and say boxes for them.

        `folder` keeps the state of the learning, which goes on from there; `host` and `watch` as in `worker.training.fine_tune.train`.
        A picture without a label is left out; one without a region has no box. The same arguments give the same boxes.
        Raises Unteachable: `no_labels`, `unknown_class`, `lonely_class`, `no_proposals`; Untrainable, Unusable,
        TrainingDiverged, torch.OutOfMemoryError, BadPicture.
        """
        settings = self.settings
        present = present_of(dataset, looked)
        check_pictures_of_classes(present, dataset.categories, settings.least_pictures)
        counts = {id: len(looked[id]["boxes"]) for id in present}
        learnable = [id for id in sorted(present) if counts[id]]
        if not learnable:
            raise Unteachable(
                "no_proposals",
                f"{' and '.join(settings.regions.methods)} found nothing in any of {len(present)} pictures: are they blank? "
                "Other proposals may see more",
            )
        device = torch.device(host.device)
        detector = self.fresh(dataset)
        detector.module.to(device=device, memory_format=torch.channels_last)
        plan = self.plan(detector.manifest, len(learnable))
        by_id = {image.id: image for image in dataset.images}
        who = {
            "plan": plan.identity(),
            "settings": json.loads(json.dumps(asdict(settings) | {"key": self.key})),
            "dataset": dataset.digest,
            "images": digest_of(learnable),
        }
        kept = state.read(folder, who)
        precision = (kept and kept.position.precision) or str(precision_of(plan.precision, device))
        with Pictures() as pictures:
            must_run(detector, plan)
            training = QueryTraining(
                detector,
                dataset,
                plan,
                [Example(by_id[id], np.zeros((0, 4), np.float32), np.zeros(0, np.int64)) for id in learnable],
                learnable[:MOST_WATCHED],
                [],
                folder,
                who,
                Stepper(
                    detector, plan, (), device, getattr(torch, precision.removeprefix("torch.")), watch.log
                ),
                pictures,
                host,
                watch,
                regions=looked,
                present=present,
            )
            try:
                if kept is None:
                    training.standardise()
                training.restore(kept)
                trained = training.run()
            finally:
                detector.module.eval().requires_grad_(False)
            said = self._said(dataset, looked, present, detector, pictures, watch, trained.curves)
        return LearnedDetector(
            detector.without_branch(),
            settings.image_size,
            said,
            trained.curves,
            trained.iterations,
            trained.seconds,
            trained.finished,
        )

    def _said(
        self,
        dataset: Dataset,
        looked: Mapping[int, Arrays],
        present: Present,
        detector: TaughtByLabels,
        pictures: Pictures,
        watch: Watch,
        curves: list[dict[str, Any]],
    ) -> PseudoBoxes:
        by_id = {image.id: image for image in dataset.images}
        settings = self.settings
        found, removed = {}, Removed()
        for id, own in present.items():
            watch.check()
            boxes = np.asarray(looked[id]["boxes"], np.float32).reshape(-1, 4)
            if len(boxes):
                scores, places = told_both_ways(
                    detector, pictures.read(by_id[id]), boxes, settings.image_size
                )
            else:
                scores, places = np.zeros((0, len(own))), np.zeros((0, 4))
            kept = kept_boxes(by_id[id], scores, places, own, settings.keeping)
            found[id], gone = checked(kept, settings.geometry)
            removed = removed + gone
        counts = {id: len(looked[id]["boxes"]) for id in present}
        about: dict[str, Any] = {
            "pictures": len(found),
            "without_label": sorted(set(looked) - set(present)),
            "without_region": sorted(id for id, count in counts.items() if not count),
            "regions_of_a_picture": float(np.mean(list(counts.values()))),
            "removed": removed.to_json(),
            "curves": curves,
        }
        return PseudoBoxes(found, about | {"warnings": warnings_of(about, present, dataset.categories)})


def told_both_ways(
    detector: TaughtByLabels, pixels: np.ndarray, boxes: np.ndarray, image_size: int
) -> tuple[np.ndarray, np.ndarray]:
    """As `TaughtByLabels.told`, the mean over a picture and its mirror image, which learning has seen as often.

    What a single look is sure of by chance, it is not sure of twice.
    """
    width = pixels.shape[1]
    scores, places = detector.told(pixels, boxes, image_size=image_size)
    mirrored = np.ascontiguousarray(pixels[:, ::-1])
    others, turned = detector.told(mirrored, _mirrored(boxes, width), image_size=image_size)
    return (scores + others) / 2, (places + _mirrored(turned, width)) / 2


def _mirrored(boxes: np.ndarray, width: int) -> np.ndarray:
    """(n, 4) xyxy, half-open, in a picture of this width turned left to right."""
    return np.stack([width - boxes[:, 2], boxes[:, 1], width - boxes[:, 0], boxes[:, 3]], axis=1)
