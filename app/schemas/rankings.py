"""Requests and answers about rankings."""

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from app.schemas.common import (
    Body,
    CheckpointId,
    DatasetId,
    JobStateName,
    Name,
    PageQuery,
    Seed,
    View,
    WaitQuery,
    text,
)
from app.schemas.verifications import RankingVerify

LevelChoice = Literal["local", "global", "both"]
Level = Literal["local", "global"]
Quantity = Literal["gain", "value"]


class RankBy(Body):
    """Which score orders the candidates; what is null is chosen by the default rule."""

    metric: text(60) | None = None
    layer: text(60) | None = Field(
        default=None,
        description="a layer's name, or `size_matched`: of the backbone maps that all candidates have, the one whose cells fit "
        "the size of the objects; where `layers` names none, these maps are read",
    )
    level: Level | None = None
    quantity: Quantity | None = Field(
        default=None,
        description="`gain`: what the weights bring beyond their untrained architecture, which needs `zero_point`; `value`: the score as "
        "it is; null: the gain where every candidate has one, else the value",
    )


class RegionsAsked(Body):
    """Boxes drawn around and beside true ones, for metrics that read regions; what is null has the default."""

    jittered: int | None = Field(default=None, ge=1, le=64, description="true boxes moved and scaled, for each object")
    background: int | None = Field(default=None, ge=0, le=64, description="boxes that overlap every true box by an IoU below 0.3, for each object")
    hard: float | None = Field(
        default=None, ge=0, le=1, allow_inf_nan=False, description="share of the background that lies beside an object and partly covers it"
    )
    shift: float | None = Field(
        default=None, ge=0, le=1, allow_inf_nan=False, description="the most a true box is moved, in its own sides"
    )
    scale: float | None = Field(
        default=None, ge=0, le=2, allow_inf_nan=False, description="the most the log of each of its sides changes"
    )

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"jittered": 8, "background": 8, "hard": 0.5, "shift": 0.4, "scale": 0.5}]}
    )


class RankingFilters(Body):
    """Limits that a candidate must keep to have a place; one whose cost is not known does not keep them."""

    max_parameters: int | None = Field(default=None, ge=0, le=2**63 - 1)
    max_memory_bytes: int | None = Field(default=None, ge=0, le=2**63 - 1)
    max_ms_per_image: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    licences: Annotated[list[text(200)], Field(min_length=1, max_length=100)] | None = Field(
        default=None, description="SPDX names, in any case"
    )


class RankingCreate(Body):
    """Only the dataset and the candidates are needed; `request` in the answer shows every default filled in."""

    dataset_id: DatasetId
    checkpoint_ids: list[CheckpointId] = Field(min_length=1, max_length=10_000)
    name: Name | None = None
    metrics: Annotated[list[text(60)], Field(min_length=1, max_length=100)] | None = Field(
        default=None, description="see GET /v1/metrics"
    )
    layers: Annotated[list[text(60)], Field(min_length=1, max_length=100)] | None = Field(
        default=None, description="see GET /v1/layers; `all` is every trained layer of each candidate"
    )
    level: LevelChoice | None = None
    max_images: int | None = Field(
        default=None, ge=1, le=10_000_000, description="a seeded sample of the training images; null: all of them"
    )
    image_size: int | None = Field(
        default=None, ge=32, le=4096, description="shorter side in pixels; null: each checkpoint's own"
    )
    seed: Seed | None = None
    calibrate: bool = Field(
        default=True,
        description="give every score its null (labels permuted 20 times), z and an interval over images (20 groups left "
        "out), and with them which candidates cannot be told apart. It costs 20 to 40 times the scoring alone: "
        "under 1 % of a candidate's time at layers of 100 channels, about a third at 3,000 objects and 1,280 channels, more "
        "where features are cached or metrics are slow (n_leep, parc). With false the order comes without them",
    )
    zero_point: bool = Field(
        default=True,
        description="also read the untrained detector of each candidate's architecture, on the same images at the same layers, and "
        "say what the weights bring beyond it (`gain`). It doubles the reading where no other candidate has that architecture, "
        "and costs nothing more where one has",
    )
    regions: RegionsAsked | None = Field(
        default=None, description="how regions are drawn; null: as usual, and only where a metric reads them (`rows` in GET /v1/metrics)"
    )
    keep_features: bool | None = Field(
        default=None,
        description="false: only statistics of the features are gathered while they are read, in memory that does not grow "
        "with the images; metrics that need the features themselves are then undefined. null: by the size of the tables",
    )
    shards: int | None = Field(
        default=None,
        ge=1,
        le=256,
        description="read each candidate's images in so many parts, by any number of gpu workers; the scores stay the same. "
        "null: by the number of images (DETRANK_SHARD_IMAGES)",
    )
    rank_by: RankBy | None = Field(
        default=None, description="a metric's name, or an object with metric, layer, level and quantity"
    )
    filters: RankingFilters | None = None
    verify: RankingVerify | None = Field(
        default=None, description="fine-tune the best candidates once the order is known, and compare mAP with the scores"
    )

    @field_validator("rank_by", mode="before")
    @classmethod
    def _name_alone(cls, value: Any) -> Any:
        return {"metric": value} if isinstance(value, str) else value

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "dataset_id": "ds_0197c0de9a5b7f0e8a5b7f0e8a5b7f0e",
                    "checkpoint_ids": [
                        "ckpt_0197c0de9a5b7f0e8a5b7f0e8a5b7f0e",
                        "ckpt_0197c0de9a5b7f0e8a5b7f0e8a5b7f0f",
                    ],
                    "metrics": ["logme", "tlogme", "detection_evidence"],
                    "layers": ["backbone.c4", "neck.roi"],
                    "level": "local",
                    "max_images": 200,
                    "calibrate": True,
                    "zero_point": True,
                    "regions": {"jittered": 4, "background": 4, "hard": 0.25},
                    "rank_by": {"metric": "tlogme", "quantity": "gain"},
                    "filters": {"max_parameters": 50_000_000},
                }
            ]
        }
    )


Interval = Annotated[
    list[float],
    Field(min_length=2, max_length=2, description="95 % limits, from leaving out groups of images", examples=[[0.41, 0.47]]),
]


class NullView(BaseModel):
    """What the metric gives when labels and boxes are handed to the wrong objects: its value without any signal."""

    mean: float
    std: float
    permutations: int


class ScoreView(BaseModel):
    """A metric's value at one layer; `undefined` holds the reason where there is no value."""

    metric: str
    layer: str
    level: Level
    value: float | None
    undefined: str | None
    seconds: float
    null: NullView | None
    z: float | None = Field(description="(value - null.mean) / null.std: comparable between widths and datasets")
    interval: Interval | None
    zero_point: float | None = Field(
        description="the value of the same architecture with its initial weights; null: not asked for, or the notes say why"
    )
    gain: float | None = Field(description="value - zero_point: what the weights bring")
    gain_interval: Interval | None
    pool_relative: bool = Field(description="the value changes when a candidate joins or leaves")
    notes: list[str]
    details: dict[str, Any] | None = Field(
        description="objects, regions and dimensions it was computed on; object_pixels: median side of an object in the input"
    )

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "metric": "tlogme",
                    "layer": "backbone.c4",
                    "level": "local",
                    "value": 0.44,
                    "undefined": None,
                    "seconds": 0.01,
                    "null": {"mean": 0.12, "std": 0.004, "permutations": 20},
                    "z": 80.0,
                    "interval": [0.41, 0.47],
                    "zero_point": 0.21,
                    "gain": 0.23,
                    "gain_interval": [0.2, 0.26],
                    "pool_relative": False,
                    "notes": [],
                    "details": {"objects": 1423, "dimensions": 96, "object_pixels": 61.5},
                }
            ]
        }
    )


class Cost(BaseModel):
    """What the candidate costs to run; null is not known."""

    parameters: int | None
    peak_memory_bytes: int | None
    ms_per_image: float | None
    device: str | None
    licence: str | None


class CandidateVerification(BaseModel):
    """One fine-tuning of a candidate."""

    id: str
    seed: int
    state: JobStateName
    map: float | None
    ap50: float | None
    trained_checkpoint_id: str | None
    error: dict[str, Any] | None


class CandidateView(BaseModel):
    """A checkpoint inside a ranking. `value`, `z`, `interval`, `zero_point`, `gain` and `gain_interval` are of the score that it was ranked by."""

    checkpoint_id: str
    name: str
    rank: int | None
    state: JobStateName
    error: dict[str, Any] | None
    job_id: str
    value: float | None
    z: float | None
    interval: Interval | None
    zero_point: float | None
    gain: float | None
    gain_interval: Interval | None
    chance_of_best: float | None = Field(
        description="that it is the best of the ranking's candidates, as far as the choice of images goes; null: not known"
    )
    group: int | None = Field(description="place in `groups` of the ranking, from 1; null: no interval")
    near: list[str] = Field(description="candidates that cannot be told apart from this one")
    scores: list[ScoreView]
    cost: Cost
    timings: dict[str, Any] = Field(description="seconds by step")
    warnings: list[Any]
    map: float | None = Field(
        description="mAP@[.5:.95] after fine-tuning, the mean over the seeds that succeeded by the terms asked for last"
    )
    verifications: list[CandidateVerification]
    baselines: dict[str, Any] = Field(
        description="value and rank of each static baseline: a metric that does not beat them is not worth its seconds"
    )


class LeftOut(BaseModel):
    """A candidate without a place, and why."""

    checkpoint_id: str
    name: str
    code: str = Field(description="failed, cancelled, filtered, no_score or undefined")
    reason: str


class RankedBy(BaseModel):
    metric: str | None
    layer: str | None
    level: str | None
    quantity: str | None = Field(description="`gain` or `value`: what of that score orders the candidates")
    chosen_by: str | None


class CoefficientView(BaseModel):
    """A measure of agreement with mAP; `undefined` holds the reason where there is no value."""

    value: float | None
    low: float | None = Field(description="95 % limits, from resampling candidates; null: no interval can be told")
    high: float | None
    undefined: str | None


class CorrelationView(BaseModel):
    """How one score, or one static baseline, agrees with mAP over the candidates that were verified."""

    kind: Literal["metric", "baseline"]
    metric: str
    layer: str | None
    level: str | None
    n: int
    measures: dict[str, CoefficientView] = Field(description="pearson, spearman, kendall, weighted_tau, ...")
    excluded: dict[str, str] = Field(description="verified candidates that are not among the n, and why")


class Verified(BaseModel):
    """What verifications by the same terms say about the scores."""

    terms: str = Field(description="digest of what all of them have in common")
    recipes: list[str]
    split: Literal["test", "val"] = Field(description="where mAP was measured")
    seeds: list[int]
    candidates: int
    without: dict[str, str] = Field(description="candidates that were to be verified and have no mAP, and why")
    summary: str
    correlations: list[CorrelationView]


class RankingProgress(BaseModel):
    done: int
    total: int
    fraction: float


class RankingView(View):
    """The order of the candidates, best first; those without a rank come last."""

    id: str
    name: str | None
    dataset_id: str
    state: JobStateName
    stage: str | None
    request: dict[str, Any]
    progress: RankingProgress
    ranked_by: RankedBy | None
    candidates: list[CandidateView]
    left_out: list[LeftOut]
    summary: str | None = Field(
        description="the order in a sentence", examples=["candidates 2 to 4 cannot be told apart"]
    )
    groups: list[list[str]] = Field(
        description="candidates in order; those of one group cannot be told apart from its first (95 %)"
    )
    ties: list[list[str]] = Field(description="sets of two or more that cannot be told apart")
    warnings: list[dict[str, Any]]
    verified: list[Verified] = Field(description="how scores and mAP agree, for each set of terms, the last asked for first")
    error: dict[str, Any] | None
    cancel_requested_at: datetime | None
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None


class RankingSummary(View):
    """A ranking in a list: without its candidates."""

    id: str
    name: str | None
    dataset_id: str
    state: JobStateName
    stage: str | None
    checkpoint_ids: list[str]
    error: dict[str, Any] | None
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None


class RankingQuery(PageQuery):
    state: JobStateName | None = None
    dataset_id: DatasetId | None = None
    checkpoint_id: CheckpointId | None = None


class RankingViewQuery(WaitQuery):
    """Limits applied to this view only: the ranks of those that stay close up."""

    max_parameters: int | None = Field(default=None, ge=0, le=2**63 - 1)
    max_memory_bytes: int | None = Field(default=None, ge=0, le=2**63 - 1)
    max_ms_per_image: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    licence: Annotated[list[text(200)], Field(max_length=100)] = Field(
        default=[], description="allowed names, in any case; may be repeated"
    )
