"""Requests and answers about datasets."""

from datetime import datetime
from typing import Any, Literal

from pydantic import ConfigDict, Field, model_validator

from app.schemas.common import Body, Name, PageQuery, ResourceStateName, Seed, UploadId, View, text

Supervision = Literal["boxes", "masks", "image_labels", "none"]


class DatasetOptions(Body):
    """How to read the archive. All of it can be left out."""

    name: Name = "dataset"
    format: text(40) | None = Field(
        default=None, description="see GET /v1/formats; recognised where left out"
    )
    seed: Seed = Field(default=0, description="of the drawn splits")
    val_fraction: float = Field(
        default=0.2, ge=0, lt=1, description="of the images, where the archive has no splits"
    )
    test_fraction: float = Field(
        default=0.0, ge=0, lt=1, description="of the images, where the archive has no splits"
    )

    @model_validator(mode="after")
    def _something_to_train_on(self) -> "DatasetOptions":
        if self.val_fraction + self.test_fraction >= 1:
            raise ValueError(
                "val_fraction and test_fraction together leave nothing to train on; keep their sum below 1"
            )
        return self


class DatasetCreate(DatasetOptions):
    """A dataset from a finished upload, or from a path on the server's disk where that is allowed."""

    upload_id: UploadId | None = None
    source: text(4000) | None = Field(
        default=None, description="an absolute path; only where DETRANK_ALLOW_LOCAL_PATHS is set"
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
    supervision: str | None
    digest: str | None = Field(description="SHA-256 over pictures and annotations, the same on every machine")
    source_sha256: str | None
    summary: dict[str, Any] | None = Field(description="images, annotations, categories, splits, histograms")
    previews: list[str] = Field(description="links to pictures with boxes drawn")
    error: dict[str, Any] | None
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
                    "request": {"format": None, "seed": 0, "val_fraction": 0.2, "test_fraction": 0.0},
                    "format": "coco",
                    "supervision": "boxes",
                    "digest": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
                    "source_sha256": "60303ae22b998861bce3b28f33eec1be758a213c86c93c076dbe9f558c11c752",
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
    name: text(200) | None = Field(default=None, description="part of the name, in any case")
