"""Answers about rankings."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from app.queue.ranking_order import OrderBy
from app.schemas.common import JobStateName
from app.schemas.rankings import Level
from app.schemas.work import WorkDetails, WorkSummary

Interval = Annotated[
    list[float],
    Field(
        min_length=2,
        max_length=2,
        description="95 % limits, from leaving out groups of images",
        examples=[[0.41, 0.47]],
    ),
]


class NullView(BaseModel):
    """The metric's value without any signal: labels and boxes are handed to the wrong objects."""

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
    z: float | None = Field(
        description="(value - null.mean) / null.std: comparable between widths and datasets"
    )
    interval: Interval | None
    zero_point: float | None = Field(
        description="the value of the same architecture with its initial weights; null: not asked for, or "
        "the notes say why"
    )
    gain: float | None = Field(description="value - zero_point: what the weights bring")
    gain_interval: Interval | None
    pool_relative: bool = Field(description="the value changes when a candidate joins or leaves")
    notes: list[str]
    details: dict[str, Any] | None = Field(
        description="objects, regions and dimensions it was computed on; object_pixels: median side of an "
        "object in the input"
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


class InferenceCost(BaseModel):
    """Finding the objects of one picture with the whole detector, measured on the device that scored it."""

    ms_per_image: float
    peak_memory_bytes: int = Field(description="weights, and the most that is alive at once beside them")
    image_hw: list[int] = Field(description="size of the picture as the network saw it")
    device: str


class TrainingCost(BaseModel):
    """Fine-tuning it, by the recipe that the ranking verifies with, else that the workspace used last, else `quick`.

    Nothing is guessed: a step of such a training was measured on this device, once for all that train alike. Null is not
    known, and `unknown` says why.
    """

    recipe: str
    image_size: int | None
    batch_size: int | None
    iterations: int | None
    seconds: float | None = Field(
        description="of all steps and evaluations; loading, and storing what comes of it, take some seconds more"
    )
    step_s: float | None = Field(description="seconds of a step of the optimiser")
    peak_memory_bytes: int | None = Field(
        description="of a step at the largest size: weights, gradients, state of the optimiser, and what is kept for the "
        "gradients. On CUDA by its allocator; on a CPU counted by tensors, without decoded pictures and the program itself"
    )
    memory_bytes: int | None = Field(description="what the device has")
    fits: bool | None = Field(
        description="whether it does: true up to nine tenths of what the device has, false beyond all of it"
    )
    device: str
    measured: Literal["step", "verification"] | None = Field(
        description="by what: a step that was tried, or the last whole training of this kind"
    )
    unknown: str | None


class Cost(BaseModel):
    """What the candidate costs; null is not known. `peak_memory_bytes` and `ms_per_image` are of reading it in batches."""

    parameters: int | None
    peak_memory_bytes: int | None
    ms_per_image: float | None
    device: str | None
    licence: str | None
    inference: InferenceCost | None = None
    training: TrainingCost | None = None


class PredictedMap(BaseModel):
    """mAP@[.5:.95] that one fine-tuning will reach: its mean, and limits that hold it with the chance `level`."""

    mean: float
    low: float
    high: float
    level: float

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"mean": 0.31, "low": 0.2, "high": 0.43, "level": 0.8}]}
    )


class BeliefView(BaseModel):
    """What the predictions of a ranking stand on."""

    budget: str = Field(
        description="which mAP is meant where the workspace has trained nothing on this dataset; else it is "
        "that of its trainings"
    )
    studies: list[str] = Field(description="committed studies that it was learned from")
    own_verifications: int = Field(description="of this workspace that it stands on too")
    warnings: list[str]


class CandidateVerification(BaseModel):
    """One fine-tuning of a candidate."""

    id: str
    seed: int
    state: JobStateName
    map: float | None
    ap50: float | None
    trained_checkpoint_id: str | None
    error: Mapping[str, Any] | None


class CandidateView(BaseModel):
    """A checkpoint inside a ranking.

    `value`, `z`, `interval`, `zero_point`, `gain` and `gain_interval` are of the score that it was ranked by.
    """

    checkpoint_id: str
    name: str
    rank: int | None
    state: JobStateName
    error: Mapping[str, Any] | None
    job_id: str
    value: float | None
    z: float | None
    interval: Interval | None
    zero_point: float | None
    gain: float | None
    gain_interval: Interval | None
    predicted_map: PredictedMap | None = Field(
        description="what one fine-tuning will reach; null: not known yet, or being made anew"
    )
    chance_of_best: float | None = Field(
        description="that its mAP after fine-tuning is the highest of the ranking's candidates; null as above"
    )
    contributions: dict[str, float] = Field(
        description="what the prediction is made of, on the square root of mAP: `prior` of all that was ever "
        "trained, `target` how hard the dataset is, `candidate` its size, kind, architecture and trainings "
        "elsewhere, `object_sizes` how many objects are too small for the finest map that its head reads, `scores`, "
        "and `pair` its trainings on this dataset. They add up to the square root of mAP"
    )
    far: list[str] = Field(
        description="in what the candidate is unlike all that the prediction was learned from"
    )
    score_chance_of_highest: float | None = Field(
        description="that its score is the highest of the ranking's candidates, as far as the choice of "
        "images goes; null: not known"
    )
    group: int | None = Field(description="place in `groups` of the ranking, from 1; null: no interval")
    near: list[str] = Field(description="candidates that the score cannot tell apart from this one")
    scores: list[ScoreView]
    cost: Cost
    frontier: bool = Field(
        description="no candidate with a place is as fast or faster and predicted to reach a higher mAP; by the score "
        "where something is not predicted for all of them. Milliseconds are those of `cost.inference`, or where one has "
        "none of reading"
    )
    timings: dict[str, Any] = Field(description="seconds by step")
    warnings: list[Any]
    map: float | None = Field(
        description="mAP@[.5:.95] after fine-tuning, the mean over the seeds that succeeded by the terms "
        "asked for last"
    )
    verifications: list[CandidateVerification]
    baselines: dict[str, Any] = Field(
        description="value and rank of each static baseline: a metric that does not beat them is not worth "
        "its seconds"
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
    low: float | None = Field(
        description="95 % limits, from resampling candidates; null: no interval can be told"
    )
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
    without: dict[str, str] = Field(
        description="candidates that were to be verified and have no mAP, and why"
    )
    summary: str
    correlations: list[CorrelationView]


class OrdersAgree(BaseModel):
    """How far the order agrees with that of another ranking, by the candidates that have a place in both."""

    ranking_id: str
    dataset_id: str = Field(description="of the other ranking")
    n: int
    measures: dict[str, CoefficientView] = Field(description="kendall and spearman")
    only_one: list[str] = Field(description="checkpoints that have a place in one of them alone")


class RankingProgress(BaseModel):
    done: int
    total: int
    fraction: float


class RankingSummary(WorkSummary):
    """A ranking in a list: without its candidates."""

    dataset_id: str
    checkpoint_ids: list[str]


class RankingView(RankingSummary, WorkDetails):
    """The order of the candidates, best first; those without a rank come last."""

    progress: RankingProgress
    order_by: OrderBy = Field(
        description="of what the ranks are: the mAP that is predicted now, or the score of `ranked_by`"
    )
    ranked_by: RankedBy | None = Field(description="the score that orders candidates where scores do")
    candidates: list[CandidateView]
    left_out: list[LeftOut]
    summary: str | None = Field(
        description="the order in a sentence",
        examples=["ours most probably reaches the highest mAP, 46%; not far behind: theirs 30%"],
    )
    belief: BeliefView | None = Field(
        description="null: nothing is predicted yet. It is made anew within seconds of every verification that "
        "ends, is deleted or may no longer be used"
    )
    groups: list[list[str]] = Field(
        description="candidates in the order of the score; those of one group cannot be told apart from its first by it "
        "(95 %)"
    )
    ties: list[list[str]] = Field(description="sets of two or more that the score cannot tell apart")
    warnings: Sequence[Mapping[str, Any]]
    agreement: OrdersAgree | None = Field(description="with the ranking that `compare_with` named")
    verified: list[Verified] = Field(
        description="how scores and mAP agree, for each set of terms, the last asked for first"
    )
