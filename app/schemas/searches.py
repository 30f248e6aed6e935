"""Requests and answers about searches: the best checkpoint that a budget can find."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from app.schemas.common import CheckpointId, DatasetId, JobStateName, Line, Name, PageQuery, Prioritised, Seed
from app.schemas.ranking_views import LeftOut
from app.schemas.rankings import LevelChoice, RankBy, RankingFilters
from app.schemas.verifications import TrainingTerms
from app.schemas.work import WorkDetails, WorkSummary

MOST_MINUTES = 60 * 24 * 365.0


class RankingTerms(BaseModel):
    """How candidates are scored; see POST /v1/rankings. Null is the default there."""

    metrics: Annotated[list[Annotated[str, Line(60)]], Field(min_length=1, max_length=100)] | None = None
    layers: Annotated[list[Annotated[str, Line(60)]], Field(min_length=1, max_length=100)] | None = None
    level: LevelChoice | None = None
    max_images: int | None = Field(
        default=None, ge=1, le=10_000_000, description="that scores are computed on, a seeded sample"
    )
    score_image_size: int | None = Field(
        default=None,
        ge=32,
        le=4096,
        description="shorter side in pixels for scoring; `image_size` is of training",
    )


SearchStrategy = Literal["halving", "expected_improvement"]


class SearchCreate(RankingTerms, TrainingTerms, Prioritised):
    """Dataset, candidates and budget are needed; `request` in the answer shows every default filled in."""

    dataset_id: DatasetId
    checkpoint_ids: list[CheckpointId] = Field(min_length=1, max_length=10_000)
    name: Name | None = None
    budget_minutes: float = Field(
        gt=0,
        le=MOST_MINUTES,
        allow_inf_nan=False,
        description="of workers' time in all, scoring and evaluation included: n workers are through in "
        "about 1/n of it",
    )
    seed: Seed = 0
    strategy: SearchStrategy | None = Field(
        default=None,
        description="halving: ever fewer are trained ever longer, in the order of the score; expected_improvement: each time "
        "what is expected to raise the best mAP most for a second, by all that is believed of the candidates; null: this where the "
        "ranking is ordered by the predicted mAP, since something was learned from the architecture of each candidate and "
        "`rank_by` names no score, else halving",
    )
    eta: int = Field(
        default=3, ge=2, le=10, description="of halving: one in so many goes on from each round to the next"
    )
    parallel: int | None = Field(
        default=None,
        ge=1,
        le=1000,
        description="of expected_improvement: parts that train at once; null: as many as there are workers",
    )
    min_improvement: float = Field(
        default=0.001,
        ge=0,
        le=1,
        allow_inf_nan=False,
        description="of expected_improvement: the search ends where as many seconds as a whole training takes "
        "are expected to raise the best mAP by less",
    )
    max_val_images: int | None = Field(
        default=200,
        ge=1,
        le=10_000_000,
        description="that rounds are decided on, a seeded sample; null: all of them",
    )
    min_iterations: int = Field(
        default=20,
        ge=1,
        le=1_000_000,
        description="the first round lasts at least so many: less says nothing",
    )
    calibrate: bool = Field(default=False, description="scores with their intervals; see POST /v1/rankings")
    zero_point: bool = Field(
        default=True, description="with what the weights bring (`gain`); see POST /v1/rankings"
    )
    rank_by: RankBy | None = Field(default=None, description="the score that gives the order")
    filters: RankingFilters | None = None

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [
                {
                    "dataset_id": "ds_0197c0de9a5b7f0e8a5b7f0e8a5b7f0e",
                    "checkpoint_ids": [
                        "ckpt_0197c0de9a5b7f0e8a5b7f0e8a5b7f0e",
                        "ckpt_0197c0de9a5b7f0e8a5b7f0e8a5b7f0f",
                    ],
                    "budget_minutes": 30,
                    "recipe": "quick",
                    "iterations": 300,
                    "seed": 0,
                }
            ]
        },
    )


class SearchPart(BaseModel):
    """One candidate's training in a round."""

    checkpoint_id: str
    name: str
    verification_id: str
    job_id: str | None
    state: JobStateName
    begin: int = Field(description="the iteration it went on from")
    stop: int = Field(description="the iteration it was to pause at")
    iterations: int | None = Field(
        description="where it stands; below `stop` where its share of the clock ran out"
    )
    map: float | None = Field(description="mAP@[.5:.95] on validation, by which the next round is chosen")
    ap50: float | None
    predicted_s: float
    expected_improvement: float | None = Field(
        description="by how much it was expected to raise the mAP of the best, which is why it was chosen; 0: the "
        "one that was named was trained to its end; null: not by expected_improvement"
    )
    seconds: float | None = Field(description="of a worker, all in")
    goes_on: bool | None = Field(description="whether it takes part in a later round; null: not decided")
    error: Mapping[str, Any] | None


class SearchRound(BaseModel):
    """What was decided at once: who trains, and up to where."""

    kind: Literal["timing", "round", "final"] = Field(
        description="timing: a few iterations to know the seconds of one; final: the winner is looked at on "
        "test"
    )
    rung: int | None = Field(
        description="from 0; one that lets more candidates in has the number of the one before"
    )
    stop: int
    left_s: float = Field(description="of the budget, when it was decided")
    predicted_s: float
    seconds: float | None = Field(description="spent by its parts; null until all have ended")
    parts: list[SearchPart]


class SearchBest(BaseModel):
    """The best checkpoint that was found. `trained_checkpoint_id` holds its fine-tuned weights."""

    checkpoint_id: str
    name: str
    verification_id: str
    trained_checkpoint_id: str | None
    iterations: int
    whole: bool = Field(description="whether it was trained to the end, or for as long as the budget lasted")
    val_map: float | None = Field(description="by which it was chosen, so a little too high")
    val_ap50: float | None
    test_map: float | None = Field(description="looked at once; null without test images")
    test_ap50: float | None
    rank: int | None = Field(description="its place in the order of the scores")


class Agreement(BaseModel):
    """Whether a round chose as the next one would have.

    Kendall's tau-b between the mAP of both, over `n` candidates.
    """

    first: int
    second: int
    n: int
    kendall: float | None


class Sure(BaseModel):
    """What can be said of how sure the answer is."""

    runner_up: str | None = Field(description="the second best of the furthest round")
    margin: float | None = Field(description="of validation mAP between the two")
    at: int | None = Field(description="iterations at which they were compared")
    val_images: int | None
    rounds_agree: list[Agreement]
    score_agrees: Agreement | None = Field(description="the score's order with the mAP of the first round")
    text: str


class Spent(BaseModel):
    """Seconds of workers' time."""

    budget_s: float
    ranking_s: float
    training_s: float
    total_s: float
    left_s: float


class BruteForce(BaseModel):
    """What fine-tuning every candidate to the end would have taken. An estimate."""

    seconds: float
    minutes: float
    candidates: int
    iterations: int
    text: str


class SearchSummary(WorkSummary):
    """A search in a list."""

    dataset_id: str
    checkpoint_ids: list[str]
    budget_minutes: float
    map: float | None = Field(description="of the best one: on test, or on validation without test images")
    trained_checkpoint_id: str | None


class SearchView(SearchSummary, WorkDetails):
    """A budget spent on finding the best of many checkpoints, and what came of it."""

    ranking_id: str | None = Field(description="its ranking, which gives the order")
    strategy: SearchStrategy | None = Field(
        description="by which it spends; null: not decided, since the ranking has no order yet"
    )
    ladder: list[int] = Field(description="iterations at which the rounds end; the last is a whole training")
    rounds: list[SearchRound] = Field(description="what was spent where, in order")
    best: SearchBest | None
    sure: Sure | None
    spent: Spent
    brute_force: BruteForce | None
    left_out: list[LeftOut] = Field(
        description="candidates without a place: by their score, or because they `failed`, were "
        "`cancelled`, had `no_room`, or `little_expected` of them"
    )
    warnings: list[str]
    summary: str | None


class SearchQuery(PageQuery):
    state: JobStateName | None = None
    dataset_id: DatasetId | None = None
    checkpoint_id: CheckpointId | None = Field(default=None, description="one of its candidates")
