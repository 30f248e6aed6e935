"""Answers about types of problems."""

from pydantic import BaseModel, ConfigDict, Field

from app.schemas.common import View


class ExplanationView(View):
    """What a problem document of one `type` means; its own `detail` says what it was in the case at hand."""

    code: str
    title: str
    status: int
    retryable: bool = Field(description="whether the same may succeed later")
    happened: str
    why: str = Field(description="the usual reasons")
    what_to_do: str
    model_config = ConfigDict(from_attributes=True)


class Explanations(BaseModel):
    items: list[ExplanationView]
