"""Requests and answers about studies: which metric deserved trust."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from app.schemas.common import CheckpointId, DatasetId, JobStateName, Name, PageQuery, Prioritised, Seed
from app.schemas.searches import RankingTerms
from app.schemas.verifications import FileView, TrainingTerms
from app.schemas.work import WorkDetails, WorkSummary


class StudyCreate(RankingTerms, TrainingTerms, Prioritised):
    """Datasets and candidates are needed. Every pair is scored, and fine-tuned for each seed."""

    dataset_ids: list[DatasetId] = Field(min_length=1, max_length=100)
    checkpoint_ids: list[CheckpointId] = Field(min_length=1, max_length=10_000)
    name: Name | None = None
    seeds: Annotated[list[Seed], Field(min_length=1, max_length=20)] = Field(
        default=[0],
        description="of fine-tuning; with two or more it is known how well mAP agrees with itself",
    )
    score_seed: Seed = Field(default=0, description="of the images that scores are computed on")
    calibrate: bool = Field(default=False, description="scores with their intervals; see POST /v1/rankings")
    zero_point: bool = Field(
        default=True, description="with what the weights bring (`gain`); see POST /v1/rankings"
    )
    keep_weights: bool = Field(
        default=False,
        description="every fine-tuned candidate becomes a checkpoint, with pictures of what it finds",
    )
    reuse: bool = Field(
        default=True,
        description="take over a verification that ended before with the same weights, images and plan, "
        "instead of training again",
    )

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [
                {
                    "dataset_ids": ["ds_0197c0de9a5b7f0e8a5b7f0e8a5b7f0e"],
                    "checkpoint_ids": [
                        "ckpt_0197c0de9a5b7f0e8a5b7f0e8a5b7f0e",
                        "ckpt_0197c0de9a5b7f0e8a5b7f0e8a5b7f0f",
                        "ckpt_0197c0de9a5b7f0e8a5b7f0e8a5b7f10",
                    ],
                    "recipe": "quick",
                    "iterations": 200,
                    "seeds": [0, 1],
                    "layers": ["backbone.c4", "neck.roi"],
                }
            ]
        },
    )


class StudyRanking(BaseModel):
    """The ranking of the candidates for one dataset."""

    id: str
    dataset_id: str
    dataset: str
    state: JobStateName
    error: Mapping[str, Any] | None


class StudyTraining(BaseModel):
    """One candidate fine-tuned on one dataset with one seed."""

    verification_id: str
    dataset_id: str
    checkpoint_id: str
    seed: int
    state: JobStateName
    map: float | None
    ap50: float | None
    split: Literal["test", "val"] | None
    seconds: float | None
    reused_from: str | None = Field(description="the verification whose result was taken over")
    error: Mapping[str, Any] | None


class StudyCoefficient(BaseModel):
    """How well a score agrees with mAP on one dataset, or on average (`dataset` is `average`)."""

    dataset: str
    kind: Literal["metric", "baseline", "noise ceiling", "difference"]
    metric: str
    layer: str
    level: str
    measure: str = Field(description="pearson, spearman, kendall, weighted_tau, rel_at_1, regret_at_1, ...")
    value: float | None
    low: float | None = Field(description="95 % limits by bootstrap; null: no interval can be told")
    high: float | None
    n: int = Field(description="candidates it stands on; of an average datasets")
    undefined: str | None
    excluded: dict[str, str] = Field(description="who is not among the n, and why")


class StudyAhead(StudyCoefficient):
    """How far a score is ahead of a static baseline: the mean of the differences, dataset by dataset."""

    baseline: str


class StudyCorrelations(BaseModel):
    measures: list[str]
    rows: list[StudyCoefficient]
    ahead: list[StudyAhead]


class StudyLeftOut(BaseModel):
    """A candidate on a dataset, or a whole dataset, that no number stands on, and why."""

    dataset_id: str
    dataset: str
    checkpoint_id: str | None
    candidate: str | None
    reason: str


class StudyProgress(BaseModel):
    done: int
    total: int
    fraction: float


class StudySpent(BaseModel):
    """Seconds of workers' time, and what was not spent again."""

    scoring_s: float
    training_s: float
    reused: int = Field(description="trainings that were taken over from earlier verifications")
    reused_s: float = Field(description="that training them took then")


class StudySummary(WorkSummary):
    """A study in a list."""

    dataset_ids: list[str]
    checkpoint_ids: list[str]
    seeds: list[int]
    progress: StudyProgress
    verdict: list[str] = Field(description="what the study says, in sentences")


class StudyView(StudySummary, WorkDetails):
    """Candidates x datasets, ranked and verified: which metric deserved trust."""

    names: dict[str, str] = Field(
        description="of datasets and candidates by id, as they stand in `correlations`"
    )
    rankings: list[StudyRanking]
    trainings: list[StudyTraining]
    correlations: StudyCorrelations | None
    left_out: list[StudyLeftOut]
    warnings: list[str]
    spent: StudySpent | None
    report: str | None = Field(description="the report as one HTML page")
    files: list[FileView] = Field(description="tables and plots")


class StudyQuery(PageQuery):
    state: JobStateName | None = None
    dataset_id: DatasetId | None = None
