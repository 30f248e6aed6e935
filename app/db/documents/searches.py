"""What a search decided, spent and found."""

from typing import Literal, NotRequired

from typing_extensions import TypedDict

from app.db.documents.rankings import LeftOut
from app.errors import Problem


class Part(TypedDict):
    """One candidate's training in a round of a search; what it came to is None until the round is settled."""

    checkpoint_id: str
    verification_id: str
    job_id: str | None
    begin: int
    begin_s: NotRequired[float]
    stop: int
    rung: NotRequired[int | None]  # of its stop, where parts of one round have several
    expected_improvement: NotRequired[
        float | None
    ]  # of the mAP that the search ends with, where that decided
    predicted_s: float
    seconds: float | None
    trained_s: NotRequired[float | None]
    loading_s: NotRequired[float | None]
    evaluating_s: NotRequired[float | None]
    state: str | None
    iterations: int | None
    map: float | None
    ap50: float | None
    error: Problem | None


class Round(TypedDict):
    """What a search decided at once, an item of `Search.rounds`. rung: from 0, which iteration of the ladder all its
    parts train up to; None where iterations are only timed."""

    kind: Literal["timing", "round", "final"]
    rung: int | None
    stop: int
    left_s: float
    predicted_s: float
    seconds: float | None
    decided_at: NotRequired[str]
    parts: list[Part]


class Spent(TypedDict):
    """Seconds of workers' time."""

    budget_s: float
    ranking_s: float
    training_s: float
    total_s: float
    left_s: float


class Best(TypedDict):
    checkpoint_id: str
    verification_id: str
    iterations: int
    whole: bool
    rank: int | None


class BruteForce(TypedDict):
    seconds: float
    minutes: float
    candidates: int
    iterations: int
    text: str


class Agreement(TypedDict):
    first: int
    second: int
    n: int
    kendall: float | None


class Sure(TypedDict):
    runner_up: str | None
    margin: float | None
    at: int | None
    val_images: int | None
    rounds_agree: list[Agreement]
    score_agrees: Agreement | None
    text: str


class Ladder(TypedDict, total=False):
    """By what a search spends, and where its rounds end. late: candidates too slow to enter with the others."""

    strategy: Literal["halving", "expected_improvement"]
    longest: int  # iterations of a training as it was asked for
    ladder: list[int]
    late: list[str]


class SearchResult(Ladder):
    """What the `search` job writes, with every round anew; `sure` and `summary` at the end."""

    names: dict[str, str]  # of checkpoints, told apart
    spent: Spent
    best: Best | None
    brute_force: BruteForce | None
    left_out: list[LeftOut]
    warnings: list[str]
    sure: NotRequired[Sure | None]
    summary: NotRequired[str]
