"""The teacher `words`: a detector that finds what words name (Grounding DINO, OWL, OmDet-Turbo) is asked for classes."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from models_store.open_vocabulary.detector import OpenVocabularyDetector
from models_store.open_vocabulary.said import Said
from worker.data.batches import decoded
from worker.data.dataset import Dataset, Image
from worker.evaluation.prediction import Prediction
from worker.pseudo_boxes.confidence import confidence_for
from worker.pseudo_boxes.geometry import Geometry, Removed, above, checked, chosen, within_labels
from worker.pseudo_boxes.pseudo_boxes import Arrays, PseudoBoxes, Unteachable, Watching

VERSION = 1
TEXT_THRESHOLD = 0.25
OVERLAP = 0.5
MOST_BOXES = 100
# What is kept of a look, so that thresholds may change later without another.
LOWEST_SCORE, MOST_LOOKED = 0.01, 300
# pictures that the network sees together: more are no faster on a CPU
_AT_ONCE = {"cpu": 2, "cuda": 8}


@dataclass(frozen=True)
class WordSettings:
    """Which boxes become pseudo boxes.

    `confidence`: what a box's score needs; None: chosen on the validation split where that has true boxes, else what the
    family's own processor takes. `text_threshold`: what the best token of the box's own prompt needs (Grounding DINO, whose
    score is that of the best token of the whole text). `overlap`: IoU from which two boxes of a class are one object.
    `most_boxes` of a picture. `all_classes`: keep classes, too, that a picture does not have by its image labels.
    """

    confidence: float | None = None
    text_threshold: float = TEXT_THRESHOLD
    overlap: float = OVERLAP
    most_boxes: int = MOST_BOXES
    all_classes: bool = False


class WordTeacher:
    """Teacher protocol over an open-vocabulary detector.

    `words`: of each category looked for its prompts; none: its name, in the family's form. A box is of the category whose prompt
    it answers best. Raises Unusable ``bad_prompt`` or ``prompt_too_long`` when it is made, Unteachable `unknown_class` for a
    category that is not there, `same_prompt` where two share one.
    """

    def __init__(
        self,
        detector: OpenVocabularyDetector,
        categories: Sequence[str],
        words: Mapping[str, Sequence[str]],
        settings: WordSettings = WordSettings(),
        image_size: int | None = None,
    ) -> None:
        self.detector, self.settings, self.image_size = detector, settings, image_size
        self.prompts = prompts_of(words, categories, detector)
        places = {name: label for label, name in enumerate(categories)}
        pairs = [(prompt, places[name]) for name, given in self.prompts.items() for prompt in given]
        self._places = {name: places[name] for name in self.prompts}
        self._labels = np.array([label for _, label in pairs], np.int64)
        self._asked = detector.ask([prompt for prompt, _ in pairs])

    @property
    def key(self) -> str:
        """A digest of what is seen: thresholds are no part of it."""
        facts = {
            "teacher": "words",
            "version": VERSION,
            "weights": self.detector.manifest.weights_sha256,
            "preprocessor": self.detector.manifest.options["preprocessor"],
            "prompts": list(self.prompts.items()),
            "labels": self._labels.tolist(),
            "image_size": self.image_size,
        }
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()

    def look(
        self, images: Sequence[Image], watching: Watching = Watching()
    ) -> Iterator[tuple[Image, dict[str, np.ndarray]]]:
        """Yield each image with `boxes` (n, 4) float32 xyxy pixels, `scores`, `texts` (n,) float32 and `labels` (n,), surest first."""
        done = 0
        device = next(self.detector.module.parameters()).device.type
        pictures = decoded(images, threads=watching.threads)
        while batch := list(itertools.islice(pictures, _AT_ONCE.get(device, 1))):
            watching.check()
            found = self.detector.look([pixels for _, pixels in batch], self._asked, self.image_size)
            for (image, _), said in zip(batch, found, strict=True):
                done += 1
                yield image, self._arrays(said, image)
            watching.progress(done, len(images), "pictures")

    def say(
        self, dataset: Dataset, looked: Mapping[int, Arrays], watching: Watching = Watching()
    ) -> PseudoBoxes:
        """Boxes above the confidence, each object once. Raises Unteachable `no_pseudo_boxes`."""
        settings = self.settings
        found, removed = {}, Removed()
        for id, arrays in looked.items():
            watching.check()
            found[id], gone = checked(self._told(id, arrays), Geometry(duplicate=settings.overlap))
            removed = removed + gone
        if dataset.supervision == "image_labels" and not settings.all_classes:
            found = within_labels(dataset, found)
        confidence, f1 = confidence_for(
            dataset, found, settings.confidence, usual=self.detector.family.confidence
        )
        kept = {id: _surest(above(each, confidence), settings.most_boxes) for id, each in found.items()}
        about = {"confidence": confidence, "f1_on_validation": f1, "removed": removed.to_json()}
        made = PseudoBoxes(kept, about | self._about(kept))
        if not made.boxes:
            best = max((float(each.scores.max(initial=0.0)) for each in found.values()), default=0.0)
            raise Unteachable(
                "no_pseudo_boxes",
                f"nothing in {len(found)} pictures answers the words above a confidence of {confidence:g} (the best box has "
                f"{best:.3f}): give a lower confidence, or other prompts in words",
            )
        return made

    def _arrays(self, said: Said, image: Image) -> dict[str, np.ndarray]:
        extent = torch.tensor([image.width, image.height] * 2, device=said.boxes.device)
        inside = said.boxes.clamp(min=0).minimum(extent.to(said.boxes))
        rows = torch.nonzero(said.scores >= LOWEST_SCORE).flatten()
        rows = rows[said.scores[rows].argsort(descending=True, stable=True)[:MOST_LOOKED]]
        return {
            "boxes": inside[rows].cpu().numpy(),
            "scores": said.scores[rows].cpu().numpy(),
            "texts": said.texts[rows].cpu().numpy(),
            "labels": self._labels[said.prompts[rows].cpu().numpy()],
        }

    def _told(self, image_id: int, arrays: Arrays) -> Prediction:
        rows = arrays["texts"] > self.settings.text_threshold if self._has_texts else slice(None)
        return Prediction(
            image_id,
            arrays["boxes"][rows].astype(np.float64),
            arrays["scores"][rows].astype(np.float64),
            arrays["labels"][rows],
        )

    @property
    def _has_texts(self) -> bool:
        return self.detector.family.rule == "phrases"

    def _about(self, kept: Mapping[int, Prediction]) -> dict[str, Any]:
        seen = {label for each in kept.values() for label in each.labels.tolist()}
        unseen = [name for name, label in self._places.items() if label not in seen]
        return {
            "prompts": dict(self.prompts),
            "texts_of_a_picture": self._asked.texts,
            "warnings": [f"no box answers the words for {', '.join(unseen[:10])}"] if unseen else [],
        }


def prompts_of(
    words: Mapping[str, Sequence[str]], categories: Sequence[str], detector: OpenVocabularyDetector
) -> dict[str, list[str]]:
    """Category to its prompts, each once. Raises Unteachable `unknown_class`, `same_prompt`."""
    unknown = [name for name in words if name not in categories]
    if unknown:
        raise Unteachable(
            "unknown_class", f"{unknown[0]!r} is none of the categories: {', '.join(categories[:10])}"
        )
    made: dict[str, list[str]] = {}
    whose: dict[str, str] = {}
    # in the categories' order: JSON in a database has none of its own
    for name in (each for each in categories if each in words):
        made[name] = list(dict.fromkeys(words[name])) or [detector.prompt_for(name)]
        for prompt in made[name]:
            plain = " ".join(prompt.lower().split()).rstrip(". ")
            if whose.setdefault(plain, name) != name:
                raise Unteachable(
                    "same_prompt",
                    f"the prompt {prompt!r} is of {whose[plain]} and of {name}: a box cannot be of both; give each its own words",
                )
    return made


def _surest(found: Prediction, most: int) -> Prediction:
    return chosen(found, np.argsort(-found.scores, kind="stable")[:most])
