"""Scores that say how often such a box is right: Platt's fit on pictures whose true boxes are known."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from sklearn.linear_model import LogisticRegression

from worker.evaluation.matching import HIT, IGNORED, match
from worker.evaluation.prediction import Prediction
from worker.pseudo_boxes.truth import Truth

LEAST_BOXES, LEAST_OF_EACH = 30, 5
_EDGE = 1e-4


@dataclass(frozen=True)
class Calibration:
    """P(right | score) = 1 / (1 + exp(-(slope * logit(score) + offset))), with slope > 0, so that no order changes.

    Platt, "Probabilistic outputs for support vector machines" (1999), over the logit of the score. `boxes`: how many it was
    fitted to.
    """

    slope: float
    offset: float
    boxes: int

    def of(self, scores: np.ndarray) -> np.ndarray:
        """Scores (n,) in [0, 1] as shares."""
        return 1 / (1 + np.exp(-(self.slope * _logit(scores) + self.offset)))

    def applied(self, found: Mapping[int, Prediction]) -> dict[int, Prediction]:
        return {
            id: Prediction(each.image_id, each.boxes, self.of(each.scores), each.labels)
            for id, each in found.items()
        }


def fitted(truth: Truth, found: Mapping[int, Prediction]) -> Calibration | str:
    """Fitted to the boxes in the pictures of `truth`; a sentence that says why not where too few are known to be right or wrong."""
    matches = match(truth.dataset, truth.image_ids, truth.of(found))
    counted = matches.outcome != IGNORED
    scores, right = matches.scores[counted], matches.outcome[counted] == HIT
    fewest = min(int(right.sum()), int((~right).sum()))
    if len(scores) < LEAST_BOXES or fewest < LEAST_OF_EACH:
        return (
            f"scores are the teacher's own: {len(scores)} boxes whose truth is known, {int(right.sum())} of them right, are too "
            f"few to fit them to ({LEAST_BOXES}, and {LEAST_OF_EACH} right and wrong ones, are needed)"
        )
    # hardly any penalty: two numbers are fitted to dozens of boxes
    model = LogisticRegression(C=1e3).fit(_logit(scores)[:, None], right)
    slope, offset = float(model.coef_[0, 0]), float(model.intercept_[0])
    if slope <= 0:
        return "scores are the teacher's own, and say nothing: of boxes with higher scores no larger share is right"
    return Calibration(slope, offset, len(scores))


def halves(truth: Truth) -> tuple[Truth, Truth]:
    """Every other picture: one half to fit by, one to measure on."""
    ids = sorted(truth.ids)
    one, other = (
        Truth(truth.dataset, {id: truth.ids[id] for id in part}, truth.labels)
        for part in (ids[::2], ids[1::2])
    )
    return one, other


def _logit(scores: np.ndarray) -> np.ndarray:
    inside = np.clip(scores, _EDGE, 1 - _EDGE)
    return np.log(inside / (1 - inside))
