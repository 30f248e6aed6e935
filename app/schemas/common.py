"""Types and shapes that every resource uses."""

import math
from datetime import datetime
from typing import Annotated, Any, Generic, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints

Item = TypeVar("Item", bound=BaseModel)


def _storable(text: str) -> str:
    # Postgres refuses NUL in text, UTF-8 refuses half a surrogate pair, terminals obey the other controls
    if any(ord(c) < 32 or 0x7F <= ord(c) < 0xA0 or 0xD800 <= ord(c) < 0xE000 for c in text):
        raise ValueError("control characters and unpaired surrogates are not allowed")
    return text


def text(max_length: int, min_length: int = 1) -> Any:
    """The type of a line of text that every database and terminal can hold."""
    limits = StringConstraints(min_length=min_length, max_length=max_length, strip_whitespace=True)
    return Annotated[str, limits, AfterValidator(_storable)]


def _storable_json(value: Any, depth: int = 0) -> Any:
    if depth > 20:
        raise ValueError("nested more than 20 deep")
    if isinstance(value, str):
        if any(c == "\0" or 0xD800 <= ord(c) < 0xE000 for c in value):
            raise ValueError("NUL and unpaired surrogates are not allowed")
    elif isinstance(value, float) and not math.isfinite(value):
        raise ValueError("NaN and infinity are not JSON")
    elif isinstance(value, dict):
        for key, inner in value.items():
            _storable_json(key, depth + 1)
            _storable_json(inner, depth + 1)
    elif isinstance(value, list):
        for inner in value:
            _storable_json(inner, depth + 1)
    return value


Name = text(200)
JsonObject = Annotated[dict[str, Any], AfterValidator(_storable_json)]
Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
DatasetId = Annotated[str, StringConstraints(pattern=r"^ds_[0-9a-f]{32}$")]
CheckpointId = Annotated[str, StringConstraints(pattern=r"^ckpt_[0-9a-f]{32}$")]
UploadId = Annotated[str, StringConstraints(pattern=r"^up_[0-9a-f]{32}$")]
Seed = Annotated[int, Field(ge=0, le=2**32 - 1)]
JobStateName = Literal["queued", "running", "cancelling", "succeeded", "failed", "cancelled"]
ResourceStateName = Literal["processing", "ready", "invalid"]


class Body(BaseModel):
    """What a caller sends: a field nobody knows is a mistake worth saying."""

    model_config = ConfigDict(extra="forbid")


class View(BaseModel):
    """What we answer, read from a record."""

    model_config = ConfigDict(from_attributes=True)


class WaitQuery(BaseModel):
    """Of one record that work goes on for."""

    model_config = ConfigDict(extra="forbid")
    wait: float = Field(
        default=0,
        ge=0,
        le=60,
        description="seconds to wait for a change against If-None-Match, or for the end without it",
    )


class FieldFault(BaseModel):
    pointer: str = Field(
        description="JSON pointer (RFC 6901) to the field at fault; `/name` for a parameter of that name"
    )
    message: str
    model_config = ConfigDict(extra="allow")


class Problem(BaseModel):
    """What went wrong and what to change (RFC 9457)."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    instance: str | None = None
    request_id: str | None = None
    retryable: bool = False
    errors: list[FieldFault] = []
    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "type": "urn:detrank:problem:invalid_request",
                    "title": "The request cannot be carried out as written",
                    "status": 422,
                    "detail": "1 field is wrong: /metrics/1",
                    "code": "invalid_request",
                    "instance": "/v1/rankings",
                    "request_id": "0197c0de9a5b7f0e",
                    "retryable": False,
                    "errors": [
                        {
                            "pointer": "/metrics/1",
                            "message": "no metric is called logmee; did you mean logme?",
                        }
                    ],
                }
            ]
        }
    )


class Page(BaseModel, Generic[Item]):
    """A part of a list, newest first unless `sort` says otherwise; `next_cursor` is null on the last page."""

    items: list[Item]
    next_cursor: str | None = None


class PageQuery(BaseModel):
    """Parameters of every list."""

    model_config = ConfigDict(extra="forbid")
    limit: int = Field(default=20, ge=1, le=100)
    cursor: str | None = Field(default=None, max_length=200, description="`next_cursor` of the page before")
    sort: Literal["-created_at", "created_at"] = "-created_at"
    created_after: datetime | None = Field(default=None, description="RFC 3339, with a time zone")
    created_before: datetime | None = Field(default=None, description="RFC 3339, with a time zone")
