"""Requests and answers about pseudo-labellings: what a teacher says of pictures, as a dataset."""

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
from app.schemas.verifications import FileView
from app.schemas.work import WorkDetails, WorkSummary

TeacherName = Literal["detector", "image_labels", "words"]
RegionName = Literal["selective_search", "objectness", "cuts"]
FormName = Literal["regions", "detr"]
DetrName = Literal["detr", "deformable_detr"]
Split = Literal["train", "val", "test"]
ClassName = Annotated[str, Line(200)]
Prompts = Annotated[list[Annotated[str, Line(200)]], Field(max_length=20)]


class PseudoLabellingCreate(Prioritised):
    """A dataset and a teacher; `request` in the answer shows every default filled in."""

    dataset_id: DatasetId = Field(description="its pictures get pseudo boxes")
    teacher: TeacherName = Field(
        description="detector: one that was fine-tuned says what it finds. image_labels: what the pictures of a class have in "
        "common is learned from which classes each picture holds (multiple-instance learning); where the dataset has boxes, "
        "their places are not looked at. words: a detector that finds what words name is asked for the classes"
    )
    detector_checkpoint: CheckpointId | None = Field(
        default=None, description="teacher detector: such as the best verified one of a ranking"
    )
    backbone_checkpoint: CheckpointId | None = Field(
        default=None, description="teacher image_labels: whose body reads the regions of a picture"
    )
    words_checkpoint: CheckpointId | None = Field(
        default=None,
        description="teacher words: a Grounding DINO, MM-Grounding-DINO, OWL-ViT, OWLv2 or OmDet-Turbo",
    )
    words: dict[ClassName, Prompts] | None = Field(
        default=None,
        max_length=1000,
        description="teacher words: classes to look for, each with what is asked for it; an empty list asks for its name, as the "
        "family wants it. null: every class of the dataset by its name",
    )
    text_threshold: float | None = Field(
        default=None,
        ge=0,
        le=1,
        allow_inf_nan=False,
        description="teacher words, of a Grounding DINO: what the best token of the prompt that a box answers needs; null: 0.25",
    )
    overlap: float | None = Field(
        default=None,
        gt=0,
        le=1,
        allow_inf_nan=False,
        description="teacher words: IoU from which two boxes of a class are one object, of which the surer stays; null: 0.5",
    )
    max_boxes: int | None = Field(
        default=None, ge=1, le=300, description="teacher words: of a picture, the surest; null: 100"
    )
    all_classes: bool | None = Field(
        default=None,
        description="teacher words, of a dataset with image labels: keep classes, too, that a picture is not labelled with",
    )
    proposals: list[RegionName] | None = Field(
        default=None,
        min_length=1,
        max_length=3,
        description="teacher image_labels: where objects may be, one or several together; cuts are normalised cuts of a vision "
        "transformer's attention. null: selective_search",
    )
    layers: list[Annotated[str, Line(60)]] | None = Field(
        default=None,
        min_length=1,
        max_length=8,
        description="teacher image_labels: maps of the body that regions are read at; null: the one of stride 16",
    )
    form: FormName | None = Field(
        default=None,
        description="teacher image_labels. regions: heads over features of regions, which a frozen body gives. detr: a DETR "
        "whose instances are the regions learns end to end, and becomes a checkpoint that needs no regions. null: regions",
    )
    architecture: DetrName | None = Field(
        default=None,
        description="form detr: a fresh one around the body of backbone_checkpoint; null: the checkpoint itself where it is a "
        "DETR or Deformable DETR, else deformable_detr",
    )
    config: dict[Annotated[str, Line(60)], int | float | bool] | None = Field(
        default=None,
        max_length=40,
        description="form detr, of a fresh one: changes of transformers' configuration, such as num_queries",
    )
    batch_size: int | None = Field(
        default=None, ge=1, le=4096, description="form detr: pictures of a step; null: 4"
    )
    epochs: int | None = Field(
        default=None,
        ge=1,
        le=1000,
        description="teacher image_labels: over the pictures; null: 12, and 40 in the form detr",
    )
    least_pictures: int | None = Field(
        default=None,
        ge=1,
        le=10_000,
        description="teacher image_labels: a class that fewer pictures are labelled with is refused; null: 2",
    )
    classes: dict[ClassName, ClassName] | None = Field(
        default=None,
        max_length=1000,
        description="teacher detector: its class to a category of the dataset; null: equal names, whatever their case",
    )
    splits: list[Split] | None = Field(
        default=None,
        min_length=1,
        max_length=3,
        description="whose pictures get pseudo boxes; the others keep what people drew. null: all, or train alone "
        "where the dataset has boxes",
    )
    confidence: float | None = Field(
        default=None,
        ge=0,
        le=1,
        allow_inf_nan=False,
        description="teachers detector and words: what a box needs; null: chosen on the validation split where that has true "
        "boxes, else 0.5 of a detector, and of words what the family's own processor takes (0.1 to 0.3)",
    )
    image_size: int | None = Field(
        default=None, ge=32, le=4096, description="shorter side in pixels; null: the teacher's own"
    )
    truth_dataset_id: DatasetId | None = Field(
        default=None,
        description="the same pictures, or some of them, with true boxes: only to measure the pseudo boxes by",
    )
    name: Name | None = Field(default=None, description="of the pseudo-labelling and of the dataset")
    seed: Seed = 0

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "dataset_id": "ds_0197c0de9a5b7f0e8a5b7f0e8a5b7f0e",
                    "teacher": "detector",
                    "detector_checkpoint": "ckpt_0197c0de9a5b7f0e8a5b7f0e8a5b7f0e",
                }
            ]
        },
    )


class PseudoLabellingSummary(WorkSummary):
    """A pseudo-labelling in a list."""

    dataset_id: str
    teacher: str
    checkpoint_id: str | None
    truth_dataset_id: str | None
    made_dataset_id: str | None = Field(description="the dataset with pseudo boxes, once it is there")
    trained_checkpoint_id: str | None = Field(description="a detector that learned on the way")
    progress: Progress | None


class CalibrationBin(BaseModel):
    low: float
    high: float
    boxes: int
    score: float
    right: float


class Calibration(BaseModel):
    """Whether a score is the share of such boxes that are right."""

    error: float | None = Field(description="expected calibration error over ten bins")
    bins: list[CalibrationBin]
    fitted_on: int | None = Field(
        description="boxes that scores were fitted to; null: they are the teacher's own"
    )


class ClassQuality(BaseModel):
    category: str
    objects: int
    boxes: int
    precision: float | None
    recall: float | None
    ap50: float | None
    corloc: float | None


class PseudoBoxQuality(BaseModel):
    """Pseudo boxes against true boxes; shares at IoU 0.5, over all classes."""

    measured_on: str = Field(description="whose true boxes, of which pictures")
    pictures: int
    objects: int
    boxes: int
    precision: float | None
    recall: float | None
    f1: float | None
    ap50: float | None
    map: float | None
    corloc: float | None
    per_class: list[ClassQuality]
    calibration: Calibration


class PseudoLabellingView(PseudoLabellingSummary, WorkDetails):
    """What a teacher says of pictures, and what that is worth."""

    looked_at: int | None = Field(description="pictures")
    labelled: int | None = Field(description="pictures that got a pseudo box")
    boxes: int | None
    said: dict[str, Any] | None = Field(description="what the teacher chose and measured on the way")
    quality: PseudoBoxQuality | None = Field(description="null where no true box is known")
    warnings: list[str]
    cost: dict[str, float] | None = Field(description="seconds of workers, by what they were spent on")
    pictures: list[FileView]
    plots: list[FileView]
    seconds: float | None = Field(description="of the teacher")


class PseudoLabellingQuery(PageQuery):
    state: JobStateName | None = None
    dataset_id: DatasetId | None = None
