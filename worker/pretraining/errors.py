"""What can be wrong with a pretraining."""

from worker.training.errors import Untrainable


class Unpretrainable(Untrainable):
    """A pretraining cannot be had as asked; trying again would not help.

    Codes, beside those of Untrainable: unknown_proposals too_few_pictures no_proposals broken_proposals no_embedding
    no_branch class_agnostic.
    """
