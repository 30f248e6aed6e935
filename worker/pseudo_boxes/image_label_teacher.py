"""The teacher `image_labels`: boxes from which classes a picture holds, and from nothing else.

Regions, a backbone's features of them, multiple-instance learning with refinements and moves (arXiv 1511.02853,
1704.00138), then the surest boxes of the classes that the picture is known to hold.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch
from torchvision.ops import nms

from models_store.detector import Detector
from worker.data.batches import decoded
from worker.data.dataset import Dataset, Image
from worker.evaluation.prediction import Prediction
from worker.pseudo_boxes.geometry import Geometry, Removed, checked
from worker.pseudo_boxes.image_labels import Present, always_there, check_pictures_of_classes, present_of
from worker.pseudo_boxes.instance_learning import LearningSettings, learn, told_of
from worker.pseudo_boxes.pseudo_boxes import Arrays, PseudoBoxes, Unteachable, Watching
from worker.pseudo_boxes.region_features import VERSION, FeatureSettings, layers_of, region_vectors
from worker.pseudo_boxes.regions import VERSIONS, RegionSettings, searching


@dataclass(frozen=True)
class Keeping:
    """Which scored boxes become pseudo boxes: of each class of a picture its best, and those with at least `relative` of its
    score, after suppression at `overlap`; at most `most` of a class in a picture."""

    relative: float = 0.5
    overlap: float = 0.3
    most: int = 30


@dataclass(frozen=True)
class ImageLabelSettings:
    """Everything that the teacher's boxes depend on beside dataset, backbone and seed.

    `least_pictures`: a class that occurs in fewer is refused.
    """

    regions: RegionSettings = field(default_factory=RegionSettings)
    features: FeatureSettings = field(default_factory=FeatureSettings)
    learning: LearningSettings = field(default_factory=LearningSettings)
    keeping: Keeping = field(default_factory=Keeping)
    geometry: Geometry = field(default_factory=lambda: Geometry(nested=0.9))
    least_pictures: int = 2


class ImageLabelTeacher:
    """Teacher protocol over a backbone's checkpoint. With the regions' method `cuts` it is its attention that is cut.

    Raises Unteachable when it is made: `unknown_proposals`, `no_attention`, `unknown_layer`, `bad_settings`.
    """

    def __init__(
        self, backbone: Detector, settings: ImageLabelSettings = ImageLabelSettings(), *, seed: int = 0
    ) -> None:
        self.backbone, self.settings, self.seed = backbone, settings, seed
        settings.learning.checked()
        self.layers = layers_of(backbone, settings.features.layers)
        self._search = searching(settings.regions, attention_of=backbone)

    @property
    def key(self) -> str:
        """A digest of what regions and their vectors depend on: learning and keeping are no part of it."""
        facts = {
            "versions": [VERSION, *(VERSIONS[name] for name in self.settings.regions.methods)],
            "weights": self.backbone.manifest.weights_sha256,
            "architecture": self.backbone.manifest.architecture,
            "layers": self.layers,
            "regions": asdict(self.settings.regions),
            "features": asdict(self.settings.features) | {"layers": None},
        }
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()

    def look(
        self, images: Sequence[Image], watching: Watching = Watching()
    ) -> Iterator[tuple[Image, dict[str, np.ndarray]]]:
        """Yield each image with `boxes` (n, 4) float32 xyxy in pixels, its regions, and `vectors` (n, D) float16 of them."""
        for done, (image, pixels) in enumerate(decoded(images, threads=watching.threads), start=1):
            watching.check()
            extent = np.array([image.width, image.height] * 2, np.float32)
            boxes = (self._search(pixels) * extent).astype(np.float32)
            yield (
                image,
                {
                    "boxes": boxes,
                    "vectors": region_vectors(self.backbone, pixels, boxes, self.settings.features),
                },
            )
            watching.progress(done, len(images), "images")

    def say(
        self, dataset: Dataset, looked: Mapping[int, Arrays], watching: Watching = Watching()
    ) -> PseudoBoxes:
        """Pseudo boxes for the pictures of `looked`, each of a class that its picture is labelled with.

        A picture without a label is left out; one without a region has no box. The same arguments give the same boxes.
        Raises Unteachable: `no_labels`, `unknown_class`, `lonely_class`, `no_proposals`.
        """
        return say_from(dataset, looked, present_of(dataset, looked), self.settings, self.seed, watching)


def say_from(
    dataset: Dataset,
    looked: Mapping[int, Arrays],
    present: Present,
    settings: ImageLabelSettings,
    seed: int = 0,
    watching: Watching = Watching(),
) -> PseudoBoxes:
    """`ImageLabelTeacher.say` with the pictures' classes given: `present`, image id to (C,) bool."""
    check_pictures_of_classes(present, dataset.categories, settings.least_pictures)
    begin = time.perf_counter()
    counts = {id: len(looked[id]["boxes"]) for id in present}
    learnable = {id: own for id, own in present.items() if counts[id]}
    if not learnable:
        raise Unteachable(
            "no_proposals",
            f"{' and '.join(settings.regions.methods)} found nothing in any of {len(present)} pictures: are they blank? "
            "Other proposals may see more",
        )
    learned = learn(looked, learnable, settings.learning, seed=seed, watching=watching)
    by_id = {image.id: image for image in dataset.images}
    found, removed = {}, Removed()
    for id, own in present.items():
        watching.check()
        boxes = np.asarray(looked[id]["boxes"], np.float32).reshape(-1, 4)
        if len(boxes):
            scores, places = told_of(learned.net, looked[id]["vectors"], boxes)
        else:
            scores, places = np.zeros((0, len(own))), np.zeros((0, 4))
        kept = kept_boxes(by_id[id], scores, places, own, settings.keeping)
        found[id], gone = checked(kept, settings.geometry)
        removed = removed + gone
    about: dict[str, Any] = {
        "pictures": len(found),
        "without_label": sorted(set(looked) - set(present)),
        "without_region": sorted(set(present) - set(learnable)),
        "regions_of_a_picture": float(np.mean(list(counts.values()))),
        "removed": removed.to_json(),
        "curves": learned.curves,
        "seconds": time.perf_counter() - begin,
    }
    return PseudoBoxes(found, about | {"warnings": warnings_of(about, present, dataset.categories)})


def kept_boxes(
    image: Image, scores: np.ndarray, boxes: np.ndarray, present: np.ndarray, keeping: Keeping
) -> Prediction:
    """The pseudo boxes of one picture: `scores` (n, C) and `boxes` (n, 4) of its regions, `present` (C,) bool."""
    extent = np.array([image.width, image.height] * 2, np.float64)
    inside = np.clip(boxes, 0, extent)
    usable = np.flatnonzero((inside[:, 2:] - inside[:, :2] > 0).all(axis=1))
    rows, labels = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    for label in np.flatnonzero(present).tolist() if len(usable) else []:
        own = scores[usable, label]
        sure = usable[own >= keeping.relative * own.max()]
        chosen = nms(torch.as_tensor(inside[sure]), torch.as_tensor(scores[sure, label]), keeping.overlap)
        best = sure[chosen.numpy()[: keeping.most]]
        rows.append(best)
        labels.append(np.full(len(best), label))
    picked, classes = np.concatenate(rows), np.concatenate(labels)
    return Prediction(image.id, inside[picked], scores[picked, classes], classes)


def warnings_of(about: Mapping[str, Any], present: Present, names: Sequence[str]) -> list[str]:
    found = []
    if about["without_label"]:
        found.append(f"{len(about['without_label'])} pictures without a label are left out")
    if about["without_region"]:
        found.append(f"{len(about['without_region'])} pictures have no region and get no box")
    if everywhere := always_there(present, names):
        found.append(
            f"{', '.join(everywhere[:10])}: in every picture, so no label tells what it is from what is always beside it; "
            "add pictures without it"
        )
    return found
