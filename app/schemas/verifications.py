"""Requests and answers about verifications and the subsets they see."""

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from app.schemas.common import (
    Body,
    CheckpointId,
    DatasetId,
    JobStateName,
    Line,
    Name,
    Page,
    PageQuery,
    Prioritised,
    Seed,
    View,
)
from app.schemas.jobs import Progress
from app.schemas.work import WorkDetails, WorkSummary

RankingId = Annotated[str, Line(48)]
Split = Literal["test", "val"]


class TrainingTerms(Body):
    """How to fine-tune: a recipe, at most one budget, and changes of the recipe. Null is the recipe's own."""

    recipe: Annotated[str, Line(60)] | None = Field(
        default=None,
        description="see GET /v1/recipes; null: the published one of the checkpoint's architecture",
    )
    epochs: float | None = Field(default=None, gt=0, le=100_000, allow_inf_nan=False)
    iterations: int | None = Field(default=None, ge=1, le=100_000_000, description="steps of the optimiser")
    budget_minutes: float | None = Field(
        default=None, gt=0, allow_inf_nan=False, description="of training; evaluation comes on top"
    )
    label_fraction: float | None = Field(
        default=None, gt=0, le=1, allow_inf_nan=False, description="share of the training images"
    )
    shots: int | None = Field(default=None, ge=1, le=1_000_000, description="objects of each category")
    subset_seed: Seed = Field(
        default=0, description="which images a fraction or shots take: the same for all seeds"
    )
    freeze: Annotated[str, Line(40)] | None = Field(
        default=None, description="what stays as it is; see GET /v1/recipes"
    )
    image_size: int | None = Field(default=None, ge=32, le=4096, description="shorter side in pixels")
    batch_size: int | None = Field(
        default=None, ge=1, le=4096, description="images in one step of the optimiser"
    )
    precision: Annotated[str, Line(40)] | None = Field(
        default=None, description="auto, float32, bfloat16 or float16"
    )
    patience: int | None = Field(
        default=None, ge=1, le=10_000, description="evaluations without a better mAP until it stops"
    )
    evaluations: int | None = Field(default=None, ge=1, le=10_000, description="on validation, spread evenly")
    ema: float | None = Field(
        default=None, ge=0, lt=1, allow_inf_nan=False, description="decay of averaged weights; 0: none"
    )
    lr_factor: float | None = Field(
        default=None, gt=0, le=1000, allow_inf_nan=False, description="of every learning rate"
    )
    data_dependent_init: bool | None = Field(
        default=None,
        description="fresh layers begin at the scale of the training images; see docs/training.md",
    )


class VerificationCreate(TrainingTerms, Prioritised):
    """Dataset and checkpoint are needed; `request` in the answer shows every default filled in."""

    dataset_id: DatasetId
    checkpoint_id: CheckpointId
    test_dataset_id: DatasetId | None = Field(
        default=None,
        description="measured on the test images of this dataset (without any on its validation images) instead of its own, "
        "such as on true boxes where it learns from pseudo boxes; categories go by name",
    )
    teacher_checkpoint_id: CheckpointId | None = Field(
        default=None,
        description="self-training: a detector that was fine-tuned on the same subset says where objects are in the training "
        "images that it leaves out, and both are learned from, under stronger augmentation",
    )
    name: Name | None = None
    seed: Seed = 0

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "dataset_id": "ds_0197c0de9a5b7f0e8a5b7f0e8a5b7f0e",
                    "checkpoint_id": "ckpt_0197c0de9a5b7f0e8a5b7f0e8a5b7f0e",
                    "recipe": "frcnn_full",
                    "epochs": 12,
                    "label_fraction": 0.1,
                    "seed": 0,
                }
            ]
        }
    )


class RankingVerify(TrainingTerms):
    """Which candidates of a ranking are fine-tuned once their order is known, and how."""

    top_k: Annotated[int, Field(ge=1, le=10_000)] | Literal["all"] = Field(
        default=3, description="the best so many, or all"
    )
    seeds: Annotated[list[Seed], Field(min_length=1, max_length=20)] = Field(
        default=[0], description="one training for each"
    )


class RankingVerificationsCreate(RankingVerify):
    """Candidates of a ranking that has its order: the best `top_k`, or those named."""

    checkpoint_ids: Annotated[list[CheckpointId], Field(min_length=1, max_length=10_000)] | None = Field(
        default=None, description="instead of the best `top_k`"
    )


class SubsetSummary(View):
    """The training images a verification sees. What is null is known once the first job has drawn it."""

    id: str
    dataset_id: str
    kind: Literal["all", "fraction", "shots"]
    value: float | None
    seed: int
    split: str
    images: int | None
    objects: int | None
    missing: list[str] | None = Field(description="categories without an object in it")
    created_at: datetime
    drawn_at: datetime | None


class SubsetView(SubsetSummary):
    """A subset with its lists: the same for every candidate, attempt and process."""

    image_ids: list[int] | None
    annotation_ids: list[int] | None = Field(description="the only boxes that count; null: all of its images")
    coverage: dict[str, int] | None = Field(description="objects by category")


class SubsetQuery(PageQuery):
    dataset_id: DatasetId | None = None


class FileView(BaseModel):
    """A picture or plot under `url`."""

    url: str
    title: str
    about: dict[str, Any]


class VerificationSummary(WorkSummary):
    """A verification in a list. `map` is of the test images, or of validation where there are no others."""

    dataset_id: str
    checkpoint_id: str
    ranking_id: str | None
    search_id: str | None
    study_id: str | None
    recipe: str
    seed: int
    subset_id: str
    map: float | None = Field(description="mAP@[.5:.95]")
    ap50: float | None
    split: Split | None = Field(description="where `map` was measured")
    trained_checkpoint_id: str | None
    progress: Progress | None


class VerificationView(VerificationSummary, WorkDetails):
    """Fine-tuning one checkpoint by a recipe, and what came of it."""

    plan: dict[str, Any] | None = Field(
        description="the recipe as resolved for this architecture and number of images"
    )
    subset: SubsetSummary
    val: Mapping[str, Any] | None = Field(
        description="evaluation on validation images at the best point, by which it was chosen"
    )
    test: Mapping[str, Any] | None = Field(description="evaluation on test images, looked at once")
    best: dict[str, Any] | None
    taught: dict[str, Any] | None = Field(
        description="with teacher_checkpoint_id: its confidence, F1 on validation, pseudo boxes and their pictures"
    )
    iterations: int | None
    finished: str | None = Field(description="completed, plateau, budget or paused")
    warnings: list[Any]
    pictures: list[FileView]
    plots: list[FileView]
    seconds: float | None
    resumable_at: int | None = Field(
        description="the iteration of the state that another attempt would go on from"
    )


class CurvePoint(BaseModel):
    """A point of the learning curves: losses and rate, or an evaluation."""

    iteration: int
    model_config = ConfigDict(extra="allow")


class Curves(BaseModel):
    items: list[CurvePoint]


class PredictionsQuery(BaseModel):
    """Which images: those named, or a page of all, the worst first."""

    model_config = ConfigDict(extra="forbid")
    limit: int = Field(default=12, ge=1, le=50)
    cursor: str | None = Field(
        default=None, pattern=r"^[0-9]{1,9}$", description="`next_cursor` of the page before"
    )
    image_id: Annotated[list[int], Field(max_length=50)] = Field(
        default=[], description="only these, in this order; may be repeated"
    )


Corners = Annotated[
    list[float],
    Field(
        min_length=4,
        max_length=4,
        description="x1, y1, x2, y2 in pixels",
        examples=[[10.0, 20.0, 55.5, 80.0]],
    ),
]


class TrueBox(BaseModel):
    box: Corners
    category: int = Field(description="place in `categories`, from 0")
    ignored: bool = Field(description="a crowd, or to be ignored: counts neither way")


class FoundBox(BaseModel):
    box: Corners
    category: int = Field(description="place in `categories`, from 0")
    score: float
    outcome: Literal["hit", "false", "ignored"] = Field(
        description="at IoU .5; the same at every threshold, since an object belongs to the highest scored box on it"
    )
    object: int | None = Field(description="the one of `objects` that it hits")


class PredictedImage(BaseModel):
    """An image with its true boxes and what was found; f1, hits, false and missed are of boxes scored `threshold` or more."""

    image_id: int
    url: str | None = Field(description="the picture; null where it stays elsewhere or is deleted")
    width: int
    height: int
    split: str
    f1: float | None = Field(description="null where there was nothing to find and nothing was found")
    hits: int
    false: int
    missed: int
    objects: list[TrueBox]
    detections: list[FoundBox] = Field(description="the highest score first, at most 100")


class Predictions(Page[PredictedImage]):
    """What a fine-tuned detector finds, the worst image first."""

    threshold: float | None = Field(
        description="the score from which on F1 over all the images is best; null: nothing was found"
    )
    categories: list[str]
    images: int = Field(description="that were looked at, at most 500")


class VerificationQuery(PageQuery):
    state: JobStateName | None = None
    dataset_id: DatasetId | None = None
    checkpoint_id: CheckpointId | None = Field(default=None, description="the one that was fine-tuned")
    ranking_id: RankingId | None = None
    search_id: Annotated[str, Line(48)] | None = None
    study_id: Annotated[str, Line(48)] | None = None
