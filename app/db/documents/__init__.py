"""The JSON in columns that workers write and the API reads, typed: both sides import it from here.

A key that rows of an earlier version may lack is `NotRequired`. Nothing is checked while it runs: the type checker holds
both sides to these, and tests/science/test_documents.py holds what real work leaves in the columns to them. `TypedDict` is
that of typing_extensions: pydantic, which tests check with, takes no other before Python 3.12.
"""

from app.db.documents.checkpoints import InputOfCheckpoint, LayerOfCheckpoint, Manifest, PlainForm
from app.db.documents.costs import Cost, InferenceCost, StepCost, TrainingAsked
from app.db.documents.datasets import DatasetLineage, DatasetSummary, SplitCount
from app.db.documents.pretrainings import PretrainingResult
from app.db.documents.pseudo_labellings import PseudoLabellingResult, Review
from app.db.documents.rankings import (
    Belief,
    Believed,
    Coefficient,
    Correlation,
    LeftOut,
    OrdersAgree,
    Placed,
    RankedBy,
    RankingResult,
    Verified,
    Warned,
)
from app.db.documents.scores import Interval, Null, ScoreDetails, ScoreFacts
from app.db.documents.searches import (
    Agreement,
    Best,
    BruteForce,
    Ladder,
    Part,
    Round,
    SearchResult,
    Spent,
    Sure,
)
from app.db.documents.shared import PREDICTIONS, Preview, Progress, StoredFile
from app.db.documents.studies import StudyLeftOut, StudyResult, StudySpent
from app.db.documents.verifications import Evaluation, PartSeconds, StopAt, VerificationResult

__all__ = [
    "PREDICTIONS",
    "Agreement",
    "Belief",
    "Believed",
    "Best",
    "BruteForce",
    "Coefficient",
    "Correlation",
    "Cost",
    "DatasetLineage",
    "DatasetSummary",
    "Evaluation",
    "InferenceCost",
    "InputOfCheckpoint",
    "Interval",
    "Ladder",
    "LayerOfCheckpoint",
    "LeftOut",
    "Manifest",
    "Null",
    "OrdersAgree",
    "Part",
    "PartSeconds",
    "Placed",
    "PlainForm",
    "PretrainingResult",
    "Preview",
    "Progress",
    "PseudoLabellingResult",
    "RankedBy",
    "RankingResult",
    "Review",
    "Round",
    "ScoreDetails",
    "ScoreFacts",
    "SearchResult",
    "Spent",
    "SplitCount",
    "StepCost",
    "StopAt",
    "StoredFile",
    "StudyLeftOut",
    "StudyResult",
    "StudySpent",
    "Sure",
    "TrainingAsked",
    "VerificationResult",
    "Verified",
    "Warned",
]
