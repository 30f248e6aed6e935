"""The teacher `detector`: a detector that was fine-tuned says what it finds."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from models_store.detector import Detector
from models_store.sizes import Size
from worker.data.dataset import Dataset, Image
from worker.evaluation.prediction import Prediction
from worker.pseudo_boxes.confidence import confidence_for
from worker.pseudo_boxes.geometry import above, plausible, within_labels
from worker.pseudo_boxes.pseudo_boxes import Arrays, PseudoBoxes, Unteachable, Watching
from worker.training.pictures import Pictures
from worker.training.validate import predictions_of

VERSION = 1
# Without true boxes to choose it by: above it a detector's box is more often meant than not.
CONFIDENCE = 0.5
_AT_ONCE = 64


@dataclass(frozen=True)
class DetectorTeacher:
    """`classes`: its class to the category that it is, both from 0; what is missing there is not looked for.

    `confidence`: what a box needs; None: chosen on the validation split where that has true boxes, else CONFIDENCE.
    """

    detector: Detector
    classes: Mapping[int, int]
    image_size: Size | None = None
    confidence: float | None = None

    @property
    def key(self) -> str:
        weights = self.detector.manifest.weights_sha256
        text = json.dumps(["detector", VERSION, weights, sorted(self.classes.items()), self.image_size])
        return hashlib.sha256(text.encode()).hexdigest()

    def look(
        self, images: Sequence[Image], watching: Watching
    ) -> Iterator[tuple[Image, dict[str, np.ndarray]]]:
        """Every box that the detector gives, whatever its score, with `boxes`, `scores` and `labels`."""
        by_id = {image.id: image for image in images}
        self.detector.module.eval()
        done = 0
        for start in range(0, len(images), _AT_ONCE):
            with torch.no_grad(), Pictures(max_bytes=0) as pictures:
                found = predictions_of(
                    self.detector,
                    images[start : start + _AT_ONCE],
                    pictures,
                    self.image_size,
                    threads=watching.threads,
                    check=watching.check,
                )
            for each in found:
                done += 1
                watching.progress(done, len(images), "pictures")
                yield by_id[each.image_id], self._arrays(each)

    def say(self, dataset: Dataset, looked: Mapping[int, Arrays], watching: Watching) -> PseudoBoxes:
        """Boxes above the confidence. Raises Unteachable `no_pseudo_boxes`."""
        found = {id: plausible(_prediction(id, arrays)) for id, arrays in looked.items()}
        if dataset.supervision == "image_labels":
            found = within_labels(dataset, found)
        confidence, f1 = confidence_for(dataset, found, self.confidence, usual=CONFIDENCE)
        kept = PseudoBoxes(
            {id: above(each, confidence) for id, each in found.items()},
            about={"confidence": confidence, "f1_on_validation": f1},
        )
        if not kept.boxes:
            raise Unteachable(
                "no_pseudo_boxes",
                f"the teacher finds nothing above a confidence of {confidence:g} in {len(found)} pictures: it has too "
                "little to teach; fine-tune it longer or with more labels, or give a lower confidence",
            )
        return kept

    def _arrays(self, found: Prediction) -> dict[str, np.ndarray]:
        known = np.isin(found.labels, list(self.classes))
        labels = np.array([self.classes[label] for label in found.labels[known].tolist()], np.int64)
        return {
            "boxes": found.boxes[known].astype(np.float32),
            "scores": found.scores[known].astype(np.float32),
            "labels": labels,
        }


def _prediction(image_id: int, arrays: Arrays) -> Prediction:
    return Prediction(
        image_id,
        arrays["boxes"].astype(np.float64),
        arrays["scores"].astype(np.float64),
        arrays["labels"],
    )
