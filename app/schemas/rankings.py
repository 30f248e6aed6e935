"""Requests about rankings."""

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, GetJsonSchemaHandler, model_validator
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from app.queue.ranking_order import OrderBy
from app.schemas.common import (
    Body,
    CheckpointId,
    DatasetId,
    JobStateName,
    Line,
    Name,
    PageQuery,
    Prioritised,
    Seed,
    WaitQuery,
)
from app.schemas.verifications import RankingId, RankingVerify

LevelChoice = Literal["local", "global", "both"]
Level = Literal["local", "global"]
Quantity = Literal["gain", "value"]


class RankBy(Body):
    """Which score orders the candidates; what is null is chosen by the default rule."""

    metric: Annotated[str, Line(60)] | None = None
    layer: Annotated[str, Line(60)] | None = Field(
        default=None,
        description="a layer's name, or `size_matched`: of the backbone maps that all candidates have, the "
        "one whose cells fit the size of the objects; where `layers` names none, these maps are read",
    )
    level: Level | None = None
    quantity: Quantity | None = Field(
        default=None,
        description="`gain`: what the weights bring beyond their untrained architecture, which needs "
        "`zero_point`; `value`: the score as it is; null: the gain where every candidate has one, else the "
        "value",
    )

    @model_validator(mode="before")
    @classmethod
    def _name_alone(cls, value: Any) -> Any:
        return {"metric": value} if isinstance(value, str) else value

    @classmethod
    def __get_pydantic_json_schema__(
        cls, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        name = {"type": "string", "minLength": 1, "maxLength": 60, "description": "a metric's name"}
        return {"anyOf": [handler(schema), name]}


class RegionsAsked(Body):
    """Boxes drawn around and beside true ones, for metrics that read regions. Null is the default."""

    jittered: int | None = Field(
        default=None, ge=1, le=64, description="true boxes moved and scaled, for each object"
    )
    background: int | None = Field(
        default=None,
        ge=0,
        le=64,
        description="boxes that overlap every true box by an IoU below 0.3, for each object",
    )
    hard: float | None = Field(
        default=None,
        ge=0,
        le=1,
        allow_inf_nan=False,
        description="share of the background that lies beside an object and partly covers it",
    )
    shift: float | None = Field(
        default=None,
        ge=0,
        le=1,
        allow_inf_nan=False,
        description="the most a true box is moved, in its own sides",
    )
    scale: float | None = Field(
        default=None,
        ge=0,
        le=2,
        allow_inf_nan=False,
        description="the most the log of each of its sides changes",
    )

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [{"jittered": 8, "background": 8, "hard": 0.5, "shift": 0.4, "scale": 0.5}]
        },
    )


Bytes = Annotated[int, Field(ge=0, le=2**63 - 1)]
Amount = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class CostLimits(Body):
    """Limits on what a candidate costs; one whose cost is not known does not keep them."""

    max_parameters: Bytes | None = None
    max_memory_bytes: Bytes | None = Field(default=None, description="of reading it")
    max_ms_per_image: Amount | None = Field(default=None, description="of reading it in batches")
    max_inference_ms: Amount | None = Field(
        default=None, description="of finding the objects of one picture with the whole detector"
    )
    max_inference_memory_bytes: Bytes | None = None
    max_training_s: Amount | None = Field(default=None, description="seconds of fine-tuning on this device")
    max_training_memory_bytes: Bytes | None = None
    fits: bool | None = Field(
        default=None, description="true: only those whose fine-tuning fits into the device's memory"
    )


class RankingFilters(CostLimits):
    """Limits that a candidate must keep to have a place; one whose cost is not known does not keep them."""

    licences: Annotated[list[Annotated[str, Line(200)]], Field(min_length=1, max_length=100)] | None = Field(
        default=None, description="SPDX names, in any case"
    )


class RankingCreate(Prioritised):
    """Only dataset and candidates are needed; `request` in the answer shows every default filled in."""

    dataset_id: DatasetId
    checkpoint_ids: list[CheckpointId] = Field(min_length=1, max_length=10_000)
    name: Name | None = None
    metrics: Annotated[list[Annotated[str, Line(60)]], Field(min_length=1, max_length=100)] | None = Field(
        default=None, description="see GET /v1/metrics"
    )
    layers: Annotated[list[Annotated[str, Line(60)]], Field(min_length=1, max_length=100)] | None = Field(
        default=None, description="see GET /v1/layers; `all` is every trained layer of each candidate"
    )
    level: LevelChoice | None = None
    max_images: int | None = Field(
        default=None,
        ge=1,
        le=10_000_000,
        description="a seeded sample of the training images; null: all of them",
    )
    image_size: int | None = Field(
        default=None, ge=32, le=4096, description="shorter side in pixels; null: each checkpoint's own"
    )
    seed: Seed | None = None
    calibrate: bool | None = Field(
        default=None,
        description="give scores their null (labels permuted 20 times), z and an interval over images (20 groups left out), "
        "and with them which candidates cannot be told apart. null: the score that orders, by `rank_by` or by default; true: every "
        "score, for those who look at several; false: none. It costs 8 to 40 times the scoring alone, the more the more "
        "channels: for all seven default metrics 4 to 5 % of a candidate's time at layers of 100 channels, about a third at "
        "3,000 objects and 1,280 channels, more where features are cached or metrics are slow (n_leep, parc)",
    )
    zero_point: bool = Field(
        default=True,
        description="also read the untrained detector of each candidate's architecture, on the same images "
        "at the same layers, and say what the weights bring beyond it (`gain`). It doubles the reading "
        "where no other candidate has that architecture, and costs nothing more where one has",
    )
    regions: RegionsAsked | None = Field(
        default=None,
        description="how regions are drawn; null: as usual, and only where a metric reads them (`rows` in "
        "GET /v1/metrics)",
    )
    keep_features: bool | None = Field(
        default=None,
        description="false: only statistics of the features are gathered while they are read, in memory "
        "that does not grow with the images; metrics that need the features themselves are then undefined. "
        "null: by the size of the tables",
    )
    shards: int | None = Field(
        default=None,
        ge=1,
        le=256,
        description="read each candidate's images in so many parts, by any number of gpu workers; the "
        "scores stay the same. null: by the number of images (DETRANK_SHARD_IMAGES)",
    )
    rank_by: RankBy | None = Field(
        default=None, description="a metric's name, or an object with metric, layer, level and quantity"
    )
    filters: RankingFilters | None = None
    measure_training: bool | None = Field(
        default=None,
        description="try a step of fine-tuning of each architecture of which none is known on this device, for its seconds "
        "and memory (`cost.training`). null: where that takes at most a tenth of what scoring took; false: never",
    )
    compare_with: RankingId | None = Field(
        default=None,
        description="a ranking that has its order, such as that of the same checkpoints on true boxes where this one is on "
        "pseudo boxes: the answer says how far both orders agree",
    )
    verify: RankingVerify | None = Field(
        default=None,
        description="fine-tune the best candidates once the order is known, and compare mAP with the scores",
    )

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
                    "calibrate": None,
                    "zero_point": True,
                    "regions": {"jittered": 4, "background": 4, "hard": 0.25},
                    "rank_by": {"metric": "tlogme", "quantity": "gain"},
                    "filters": {"max_parameters": 50_000_000},
                }
            ]
        }
    )


class RankingQuery(PageQuery):
    state: JobStateName | None = None
    dataset_id: DatasetId | None = None
    checkpoint_id: CheckpointId | None = None


class RankingViewQuery(WaitQuery, CostLimits):
    """Limits and order of this view only: the ranks of those that stay close up."""

    order_by: OrderBy | None = Field(
        default=None,
        description="predicted_map: by the mAP that is predicted now, which the workspace's own verifications sharpen; "
        "score: by the one that the ranking asks for or that is the default; null: predicted_map, but for a "
        "ranking whose `rank_by` names a score, and where something is not predicted of all candidates, or "
        "nothing was ever learned from the architecture of one",
    )

    frontier: bool | None = Field(
        default=None,
        description="true: only those that no faster one is predicted to beat, false: the others",
    )
    licence: Annotated[list[Annotated[str, Line(200)]], Field(max_length=100)] = Field(
        default=[], description="allowed names, in any case; may be repeated"
    )
