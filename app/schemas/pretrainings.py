"""Requests and answers about pretrainings: detectors that learn from pictures without labels, and what that gains."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from app.schemas.common import (
    CheckpointId,
    DatasetId,
    JobStateName,
    Line,
    Name,
    PageQuery,
    Prioritised,
    Seed,
)
from app.schemas.jobs import Progress
from app.schemas.verifications import FileView, TrainingTerms
from app.schemas.work import WorkDetails, WorkSummary

Fraction = Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)]
Method = Literal["detreg", "self_training"]
Verdict = Literal["helped", "hurt", "not_shown"]


class CompareTerms(TrainingTerms):
    """The same fine-tuning from the pretrained weights and from what they started from, on the same subsets.

    With the method self_training: the student of a teacher of each seed, and that teacher, which has the labels alone.
    """

    dataset_id: DatasetId | None = Field(
        default=None,
        description="with boxes; null: the dataset that is pretrained on, or the labelled one of a self-training",
    )
    label_fractions: list[Fraction] | None = Field(
        default=None,
        min_length=1,
        max_length=20,
        description="shares of the training images; null: 0.05, of a self-training all of them",
    )
    seeds: int = Field(
        default=3, ge=1, le=20, description="subsets and fine-tunings of each arm; one gives no interval"
    )
    self_training: bool = Field(
        default=False,
        description="another arm: what the start becomes with the labels says where objects are in the other training images, "
        "and a student of both begins from the start again",
    )
    checkpoint_ids: list[CheckpointId] = Field(
        default=[],
        max_length=20,
        description="others to compare with, fine-tuned as they are, such as the best of a ranking",
    )


class PretrainingCreate(Prioritised):
    """A dataset and something to start from are needed; `request` in the answer shows every default filled in."""

    method: Method = Field(
        default="detreg",
        description="detreg: a DETR learns to find regions. self_training: a detector that was verified says where objects are in "
        "the pictures, and a student learns from these and from labels, under stronger augmentation",
    )
    dataset_id: DatasetId = Field(description="its training split is learned from; labels are not read")
    labelled_dataset_id: DatasetId | None = Field(
        default=None,
        description="self_training: with boxes; its labels are learned from, its validation images choose the confidence",
    )
    teacher_checkpoint: CheckpointId | None = Field(
        default=None,
        description="self_training: a detector that was fine-tuned on the labelled dataset; null: the one of its verifications "
        "with the best mAP on validation",
    )
    rounds: int | None = Field(
        default=None,
        ge=1,
        le=10,
        description="self_training: each round's student is the teacher of the next, and labels all pictures anew; null: 1",
    )
    mean_teacher: bool | None = Field(
        default=None,
        description="self_training: after a third of the steps the mean of the student's own weights (ema, 0.999 where nobody says) "
        "says the pseudo boxes of each batch anew; null: those of the teacher stand for the round",
    )
    from_checkpoint: CheckpointId | None = Field(
        default=None,
        description="a DETR or Deformable DETR to go on with, such as the best of a ranking; self_training: what the student "
        "begins with, null: what the teacher began with",
    )
    architecture: Literal["detr", "deformable_detr"] | None = Field(
        default=None, description="instead of from_checkpoint: a fresh one around the encoder's body"
    )
    encoder_checkpoint: CheckpointId | None = Field(
        default=None,
        description="the frozen network that says what is in a region; null: the body of from_checkpoint",
    )
    config: dict[Annotated[str, Line(60)], int | float | bool] | None = Field(
        default=None,
        max_length=40,
        description="of a fresh detector: changes of transformers' configuration, such as num_queries",
    )
    name: Name | None = None
    recipe: Annotated[str, Line(60)] | None = Field(
        default=None,
        description="see GET /v1/pretraining-recipes; null: the quick one of the architecture. self_training: one of GET /v1/recipes, "
        "null: the teacher's own with its terms",
    )
    proposals: Annotated[str, Line(40)] | None = Field(
        default=None, description="selective_search, objectness or random; null: the recipe's"
    )
    max_proposals: int | None = Field(default=None, ge=1, le=1000, description="regions of a picture")
    embedding_layer: Annotated[str, Line(60)] | None = Field(
        default=None, description="map of the encoder whose mean is the vector of a region, e.g. backbone.c3"
    )
    epochs: float | None = Field(default=None, gt=0, le=100_000, allow_inf_nan=False)
    iterations: int | None = Field(default=None, ge=1, le=100_000_000, description="steps of the optimiser")
    budget_minutes: float | None = Field(default=None, gt=0, allow_inf_nan=False, description="of training")
    image_size: int | None = Field(default=None, ge=32, le=4096, description="shorter side in pixels")
    batch_size: int | None = Field(default=None, ge=1, le=4096)
    precision: Annotated[str, Line(40)] | None = Field(
        default=None, description="auto, float32, bfloat16 or float16"
    )
    evaluations: int | None = Field(
        default=None, ge=1, le=10_000, description="looks at recall, spread evenly over the training"
    )
    lr_factor: float | None = Field(default=None, gt=0, le=1000, allow_inf_nan=False)
    ema: float | None = Field(
        default=None,
        ge=0,
        lt=1,
        allow_inf_nan=False,
        description="decay of averaged weights, which are what is evaluated, kept and taught by; 0: none",
    )
    seed: Seed = 0
    compare: CompareTerms | None = Field(default=None, description="was it worth it?")

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "dataset_id": "ds_0197c0de9a5b7f0e8a5b7f0e8a5b7f0e",
                    "architecture": "deformable_detr",
                    "encoder_checkpoint": "ckpt_0197c0de9a5b7f0e8a5b7f0e8a5b7f0e",
                    "proposals": "selective_search",
                    "epochs": 50,
                    "compare": {"label_fractions": [0.05, 0.1], "seeds": 3, "recipe": "quick"},
                },
                {
                    "method": "self_training",
                    "dataset_id": "ds_0197c0de9a5b7f0e8a5b7f0e8a5b7f0e",
                    "labelled_dataset_id": "ds_0197c0de9a5b7f0e8a5b7f0e8a5b7f0f",
                    "ema": 0.999,
                    "compare": {"seeds": 3},
                },
            ]
        },
    )


class Interval(BaseModel):
    """Mean of the differences over `n` paired seeds, with its 95 % limits."""

    n: int
    mean: float | None
    low: float | None
    high: float | None
    undefined: str | None
    says: Verdict


class ComparedArm(BaseModel):
    """What fine-tuning from one checkpoint came to with one share of the labels."""

    label_fraction: float
    arm: Literal["pretrained", "start", "self_training", "other"]
    checkpoint_id: str
    name: str
    map: float | None
    ap50: float | None
    by_seed: dict[str, dict[str, float]]


class ComparedGain(BaseModel):
    """What the pretrained weights, or self-training, gain over one other checkpoint."""

    label_fraction: float
    against: Literal["start", "self_training", "other"]
    checkpoint_id: str
    name: str
    map: Interval
    ap50: Interval


class Comparison(BaseModel):
    dataset_id: str
    measured_on: list[str] = Field(description="test, or val where there are no test images")
    arms: list[ComparedArm]
    gains: list[ComparedGain]
    left_out: list[dict[str, Any]] = Field(description="fine-tunings without a number, and why")
    verdict: list[str]


class SelfTrainingRound(BaseModel):
    """What a teacher said of the pictures without labels, and what its student came to on the labelled dataset."""

    verification_id: str
    teacher_checkpoint_id: str
    trained_checkpoint_id: str | None
    confidence: float = Field(description="that a box needed")
    f1: float | None = Field(description="of the teacher on validation with it; null: chosen without boxes")
    boxes: int
    pictures: int = Field(description="in which it found any")
    unlabelled_pictures: int
    equal_content: int = Field(description="pictures kept out, since they have labels or are measured on")
    map: float | None
    ap50: float | None
    split: str | None = Field(description="what mAP and AP50 are of: test, or val without test images")


class SelfTrainingView(BaseModel):
    teacher: dict[str, Any] = Field(
        description="the first one, with its figures where a verification has them"
    )
    rounds: list[SelfTrainingRound]


class PretrainingSummary(WorkSummary):
    """A pretraining in a list."""

    method: Method
    dataset_id: str
    start_checkpoint_id: str | None
    encoder_checkpoint_id: str | None
    trained_checkpoint_id: str | None
    recipe: str
    proposals: str | None = Field(description="null where nothing is learned from regions")
    seed: int
    progress: Progress | None


class PretrainingView(PretrainingSummary, WorkDetails):
    """A detector pretrained on pictures without labels, and whether that was worth it."""

    plan: dict[str, Any] | None
    recall: dict[str, Any] | None = Field(
        description="share of regions, and of true objects where they are known, that the k best boxes cover: "
        "before the first step and at the end"
    )
    trained_on: int | None = Field(description="pictures that were learned from")
    held_out: dict[str, Any] | None = Field(
        description="pictures kept out: those watched (`split`), and training pictures whose content is also in "
        "validation or test (`equal_content`)"
    )
    iterations: int | None
    finished: str | None
    warnings: list[str]
    self_training: SelfTrainingView | None = Field(description="of that method, once its rounds are done")
    verification_ids: list[str] = Field(description="fine-tunings, of the rounds and of the comparison")
    comparison: Comparison | None
    cost: dict[str, float] | None = Field(description="seconds of workers, by what they were spent on")
    pictures: list[FileView]
    plots: list[FileView]
    seconds: float | None = Field(description="of training")
    resumable_at: int | None


class PretrainingQuery(PageQuery):
    state: JobStateName | None = None
    dataset_id: DatasetId | None = None


class PretrainingRecipeInfo(BaseModel):
    name: str
    title: str
    source: str
    help: str
    architectures: list[str]
    epochs: float
    batch_size: int
    image_size: int | None
    proposals: str
    max_proposals: int
    embedding_layer: str


class PretrainingRecipes(BaseModel):
    items: list[PretrainingRecipeInfo]
    proposals: list[str]
