"""Fine-tuning by published recipes: `plan_of` resolves one for a checkpoint and a dataset, `train` carries it out."""

from worker.training.errors import TrainingDiverged, Untrainable
from worker.training.fine_tune import train
from worker.training.loop import Trained
from worker.training.plan import Plan, plan_of
from worker.training.recipe import Recipe, default_recipe, fitting, recipes

__all__ = [
    "Plan",
    "Recipe",
    "Trained",
    "TrainingDiverged",
    "Untrainable",
    "default_recipe",
    "fitting",
    "plan_of",
    "recipes",
    "train",
]
