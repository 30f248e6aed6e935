"""Types and shapes that every resource uses."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any, Generic, Literal, TypeVar

from annotated_types import GroupedMetadata
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints
from pydantic_core import core_schema

from app.queue.states import SHOWN, ResourceState

Item = TypeVar("Item", bound=BaseModel)


def _storable(text: str) -> str:
    # Postgres refuses NUL in text, UTF-8 refuses half a surrogate pair, terminals obey the other controls
    if any(ord(c) < 32 or 0x7F <= ord(c) < 0xA0 or 0xD800 <= ord(c) < 0xE000 for c in text):
        raise ValueError("control characters and unpaired surrogates are not allowed")
    return text


@dataclass(frozen=True)
class Line(GroupedMetadata):
    """Of a `str`: a line of text that every database and terminal can hold."""

    max_length: int
    min_length: int = 1

    def __iter__(self) -> Iterator[object]:
        yield from StringConstraints(
            min_length=self.min_length, max_length=self.max_length, strip_whitespace=True
        )
        yield AfterValidator(_storable)


@dataclass(frozen=True)
class OneOf:
    """Of a `str`: one of these words, which OpenAPI tells."""

    words: Sequence[StrEnum]

    def __get_pydantic_core_schema__(self, _source: Any, _handler: Any) -> core_schema.CoreSchema:
        return core_schema.literal_schema([word.value for word in self.words])


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


Name = Annotated[str, Line(200)]
JsonObject = Annotated[dict[str, Any], AfterValidator(_storable_json)]
Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
DatasetId = Annotated[str, StringConstraints(pattern=r"^ds_[0-9a-f]{32}$")]
CheckpointId = Annotated[str, StringConstraints(pattern=r"^ckpt_[0-9a-f]{32}$")]
UploadId = Annotated[str, StringConstraints(pattern=r"^up_[0-9a-f]{32}$")]
Seed = Annotated[int, Field(ge=0, le=2**32 - 1)]
JobStateName = Annotated[str, OneOf(SHOWN)]
ResourceStateName = Annotated[str, OneOf(tuple(ResourceState))]


class Body(BaseModel):
    """What a caller sends: a field nobody knows is a mistake worth saying."""

    model_config = ConfigDict(extra="forbid")


Priority = Annotated[
    int,
    Field(
        ge=-10,
        le=10,
        description="among the jobs of the workspace that wait, those of a larger number go first",
    ),
]


class Prioritised(Body):
    """What makes jobs."""

    priority: Priority = 0


class NewPriority(Body):
    priority: Priority


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

    type: str = Field(description="where the service explains this kind of problem; relative to its address")
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
                    "type": "/problems/invalid_request",
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
