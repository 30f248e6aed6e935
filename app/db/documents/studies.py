"""What a study found."""

from typing import Any

from typing_extensions import TypedDict


class StudyLeftOut(TypedDict):
    """A candidate on a dataset, or all of them, that no number stands on."""

    dataset_id: str
    dataset: str
    checkpoint_id: str | None
    candidate: str | None
    reason: str


class StudySpent(TypedDict):
    scoring_s: float
    training_s: float
    reused: int
    reused_s: float


class StudyResult(TypedDict):
    """What the `study` job writes. correlations: as worker/studies/measures/correlation.py has them."""

    correlations: dict[str, Any]
    verdict: list[str]
    names: dict[str, str]
    left_out: list[StudyLeftOut]
    warnings: list[str]
    spent: StudySpent
