"""Pseudo boxes with scores that are shares, where the truth of some pictures is known, and what the boxes are worth."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from worker.evaluation.matching import HIT, IGNORED, match
from worker.evaluation.prediction import Prediction
from worker.pseudo_boxes.calibration import Calibration, fitted, halves
from worker.pseudo_boxes.quality import calibration_of, quality_of
from worker.pseudo_boxes.truth import Truth


@dataclass(frozen=True, eq=False)
class Weighed:
    """`found`: as it was said, but for the scores. `quality`: see quality.py, with `calibration.fitted_on`."""

    found: Mapping[int, Prediction]
    quality: dict[str, Any]
    warnings: list[str] = field(default_factory=list)


def weighed(found: Mapping[int, Prediction], truth: Truth) -> Weighed:
    """Scores are fitted to every other picture of the truth, and their calibration is measured on the rest.

    All else is measured on all pictures of the truth, with the teacher's own scores, whose order a fit does not change.
    """
    quality = quality_of(truth.dataset, truth.image_ids, truth.of(found))
    fitting, rest = halves(truth)
    fit = fitted(fitting, found)
    if not isinstance(fit, Calibration):
        quality["calibration"]["fitted_on"] = None
        return Weighed(found, quality, [fit])
    scaled = fit.applied(found)
    matches = match(rest.dataset, rest.image_ids, rest.of(scaled))
    counted = matches.outcome != IGNORED
    quality["calibration"] = calibration_of(matches.scores[counted], matches.outcome[counted] == HIT)
    quality["calibration"]["fitted_on"] = fit.boxes
    return Weighed(scaled, quality)
