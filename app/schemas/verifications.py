"""Requests and answers about verifications and the subsets they see."""

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from app.schemas.common import Body, CheckpointId, DatasetId, JobStateName, Name, PageQuery, Seed, View, text
from app.schemas.jobs import Progress

RankingId = text(48)
Split = Literal["test", "val"]


class TrainingTerms(Body):
    """How to fine-tune: a recipe, at most one budget, and what to change in the recipe. Null is the recipe's own."""

    recipe: text(60) | None = Field(
        default=None, description="see GET /v1/recipes; null: the published one of the checkpoint's architecture"
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
    subset_seed: Seed = Field(default=0, description="which images a fraction or shots take: the same for all seeds")
    freeze: text(40) | None = Field(default=None, description="what stays as it is; see GET /v1/recipes")
    image_size: int | None = Field(default=None, ge=32, le=4096, description="shorter side in pixels")
    batch_size: int | None = Field(default=None, ge=1, le=4096, description="images in one step of the optimiser")
    precision: text(40) | None = Field(default=None, description="auto, float32, bfloat16 or float16")
    patience: int | None = Field(default=None, ge=1, le=10_000, description="evaluations without a better mAP until it stops")
    evaluations: int | None = Field(default=None, ge=1, le=10_000, description="on validation, spread evenly")
    ema: float | None = Field(default=None, ge=0, lt=1, allow_inf_nan=False, description="decay of averaged weights; 0: none")
    lr_factor: float | None = Field(default=None, gt=0, le=1000, allow_inf_nan=False, description="of every learning rate")


class VerificationCreate(TrainingTerms):
    """Dataset and checkpoint are needed; `request` in the answer shows every default filled in."""

    dataset_id: DatasetId
    checkpoint_id: CheckpointId
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

    top_k: Annotated[int, Field(ge=1, le=10_000)] | Literal["all"] = Field(default=3, description="the best so many, or all")
    seeds: Annotated[list[Seed], Field(min_length=1, max_length=20)] = Field(default=[0], description="one training for each")


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


class VerificationSummary(View):
    """A verification in a list. `map` is of the test images, or of the validation images where there are no others."""

    id: str
    name: str | None
    state: JobStateName
    stage: str | None
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
    error: dict[str, Any] | None
    job_id: str | None
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None


class VerificationView(VerificationSummary):
    """Fine-tuning one checkpoint by a recipe, and what came of it."""

    request: dict[str, Any] = Field(description="as asked, every default filled in")
    plan: dict[str, Any] | None = Field(description="the recipe as resolved for this architecture and number of images")
    subset: SubsetSummary
    val: dict[str, Any] | None = Field(description="evaluation on validation images at the best point, by which it was chosen")
    test: dict[str, Any] | None = Field(description="evaluation on test images, looked at once")
    best: dict[str, Any] | None
    iterations: int | None
    finished: str | None = Field(description="completed, plateau, budget or paused")
    warnings: list[Any]
    pictures: list[FileView]
    plots: list[FileView]
    seconds: float | None
    resumable_at: int | None = Field(description="the iteration of the state that another attempt would go on from")
    cancel_requested_at: datetime | None


class CurvePoint(BaseModel):
    """A point of the learning curves: losses and rate, or an evaluation."""

    iteration: int
    model_config = ConfigDict(extra="allow")


class Curves(BaseModel):
    items: list[CurvePoint]


class VerificationQuery(PageQuery):
    state: JobStateName | None = None
    dataset_id: DatasetId | None = None
    checkpoint_id: CheckpointId | None = Field(default=None, description="the one that was fine-tuned")
    ranking_id: RankingId | None = None
    search_id: text(48) | None = None
    study_id: text(48) | None = None
