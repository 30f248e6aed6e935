"""Requests and answers about datasets."""

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, model_validator

from app.schemas.common import Line, Name, PageQuery, Prioritised, ResourceStateName, Seed, UploadId, View

Supervision = Literal["boxes", "masks", "pseudo_boxes", "image_labels", "none"]


class DatasetOptions(Prioritised):
    """How to read the archive. All of it can be left out."""

    name: Name = "dataset"
    format: Annotated[str, Line(40)] | None = Field(
        default=None, description="see GET /v1/formats; recognised where left out"
    )
    seed: Seed = Field(default=0, description="of the drawn splits")
    val_fraction: float = Field(
        default=0.2, ge=0, lt=1, description="of the images, where the archive has no splits"
    )
    test_fraction: float = Field(
        default=0.0, ge=0, lt=1, description="of the images, where the archive has no splits"
    )
    unlabelled: Literal["leave_out", "background"] = Field(
        default="leave_out",
        description="what a picture counts as that no label belongs to, in an archive with labels",
    )

    @model_validator(mode="after")
    def _something_to_train_on(self) -> "DatasetOptions":
        if self.val_fraction + self.test_fraction >= 1:
            raise ValueError(
                "val_fraction and test_fraction together leave nothing to train on; keep their sum below 1"
            )
        return self


class DatasetCreate(DatasetOptions):
    """A dataset from a finished upload, or from a source or a path on the server's disk where that is allowed."""

    upload_id: UploadId | None = None
    source: Annotated[str, Line(4000)] | None = Field(
        default=None,
        description="`file:///folder`, `s3://bucket/prefix` or `hf://datasets/org/name@revision`: the pictures stay there and "
        "only those of samples are fetched; only what DETRANK_ALLOWED_SOURCES names. Or an absolute path, which is read whole; "
        "only where DETRANK_ALLOW_LOCAL_PATHS is set",
    )

    @model_validator(mode="after")
    def _one_source(self) -> "DatasetCreate":
        if (self.upload_id is None) == (self.source is None):
            raise ValueError("give exactly one of upload_id and source")
        return self

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"name": "wheat heads", "upload_id": "up_0197c0de9a5b7f0e8a5b7f0e8a5b7f0e"}]
        }
    )


class DatasetView(View):
    """A target dataset. While `processing`, follow `job_id`; `invalid` says why in `error`."""

    id: str
    name: str
    state: ResourceStateName
    request: dict[str, Any] = Field(description="format, seed and fractions as asked")
    format: str | None
    supervision: str | None = Field(
        description="boxes, masks, pseudo_boxes (a teacher said them), image_labels or none"
    )
    lineage: dict[str, Any] | None = Field(
        default=None,
        description="of one with pseudo boxes: the pseudo-labelling, its teacher, dataset and settings",
    )
    digest: str | None = Field(
        description="SHA-256 over pictures and annotations, the same on every machine; of pictures that stay elsewhere over "
        "name, size and mark"
    )
    stays_at: str | None = Field(description="where the pictures stay; null where they were sent")
    source_sha256: str | None
    summary: dict[str, Any] | None = Field(description="images, annotations, categories, splits, histograms")
    previews: list[str] = Field(description="links to pictures with boxes drawn")
    error: Mapping[str, Any] | None
    job_id: str | None
    created_at: datetime
    updated_at: datetime
    model_config = ConfigDict(
        from_attributes=True,
        json_schema_extra={
            "examples": [
                {
                    "id": "ds_0197c0de9a5b7f0e8a5b7f0e8a5b7f0e",
                    "name": "wheat heads",
                    "state": "ready",
                    "request": {
                        "format": None,
                        "seed": 0,
                        "val_fraction": 0.2,
                        "test_fraction": 0.0,
                        "unlabelled": "leave_out",
                    },
                    "format": "coco",
                    "supervision": "boxes",
                    "digest": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
                    "source_sha256": "60303ae22b998861bce3b28f33eec1be758a213c86c93c076dbe9f558c11c752",
                    "stays_at": None,
                    "summary": {
                        "images": 40,
                        "annotations": 512,
                        "categories": [{"id": 1, "name": "head", "annotations": 512}],
                    },
                    "previews": ["/v1/datasets/ds_0197c0de9a5b7f0e8a5b7f0e8a5b7f0e/previews/0"],
                    "error": None,
                    "job_id": "job_0197c0de9a5b7f0e8a5b7f0e8a5b7f0f",
                    "created_at": "2026-05-01T12:00:00Z",
                    "updated_at": "2026-05-01T12:00:09Z",
                }
            ]
        },
    )


class DatasetQuery(PageQuery):
    state: ResourceStateName | None = None
    supervision: Supervision | None = None
    name: Annotated[str, Line(200)] | None = Field(default=None, description="part of the name, in any case")
