"""What predictions are worth against the truth: COCO's and Pascal VOC's numbers, CorLoc, curves and pictures."""

from worker.evaluation.errors import Unevaluable
from worker.evaluation.evaluate import Evaluation, evaluate
from worker.evaluation.pictures import Shown, show_best_and_worst
from worker.evaluation.plots import learning_curve, precision_recall
from worker.evaluation.prediction import Prediction, prediction_of

__all__ = [
    "Evaluation",
    "Prediction",
    "Shown",
    "Unevaluable",
    "evaluate",
    "learning_curve",
    "precision_recall",
    "prediction_of",
    "show_best_and_worst",
]
