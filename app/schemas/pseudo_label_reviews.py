"""Requests and answers about the review of pseudo boxes."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from app.schemas.common import Body, Line, Name

Decision = Literal["accept", "reject", "correct"]
Finite = Annotated[float, Field(allow_inf_nan=False)]
Bbox = Annotated[list[Finite], Field(min_length=4, max_length=4)]


class Corrected(Body):
    """Where the object is, and of which category."""

    bbox: Bbox = Field(description="x, y, width, height in pixels")
    category: Annotated[str, Line(200)]

    @model_validator(mode="after")
    def _has_sides(self) -> "Corrected":
        if min(self.bbox[2:]) <= 0:
            raise ValueError("width and height must be above 0")
        return self


class ItemDecision(Body):
    """What is decided on one box; a `decision` of null takes back what was."""

    number: int = Field(ge=1, le=100_000)
    decision: Decision | None
    corrected: Corrected | None = Field(default=None, description="with `correct` alone")

    @model_validator(mode="after")
    def _corrected_with_correct(self) -> "ItemDecision":
        if (self.decision == "correct") != (self.corrected is not None):
            raise ValueError("give `corrected` with the decision `correct`, and only with it")
        return self


class PictureCount(Body):
    """How many objects of one picture no pseudo box of their category lies on by half; null takes it back."""

    image_id: int = Field(ge=1)
    missed: int | None = Field(ge=0, le=100_000)


class ReviewDecisions(Body):
    """Those named are decided; the others stay as they are."""

    items: list[ItemDecision] = Field(default=[], max_length=10_000)
    pictures: list[PictureCount] = Field(default=[], max_length=10_000)


class ReviewedDataset(Body):
    """The dataset that is made of what was decided."""

    name: Name | None = Field(default=None, description="null: that of the dataset that was reviewed")


class CocoDocument(BaseModel):
    """A COCO document as it came from a labelling tool: `annotations` and `categories` are read."""

    annotations: list[dict[str, Any]] = Field(max_length=100_000)
    categories: list[dict[str, Any]] = Field(max_length=100_000)
    model_config = ConfigDict(extra="allow")


class ReviewItem(BaseModel):
    """A pseudo box to look at."""

    number: int
    image_id: int
    annotation_id: int
    category: str
    bbox: list[float]
    score: float
    image_url: str | None
    decision: Decision | None
    corrected: Corrected | None
    right: bool | None = Field(description="of its category, and IoU of at least 0.5 with the object")


class ReviewPicture(BaseModel):
    """A picture, drawn at random, in which objects without a pseudo box are to be counted."""

    image_id: int
    image_url: str | None
    boxes: list[dict[str, Any]] = Field(description="all pseudo boxes in it")
    missed: int | None


class ReviewEstimate(BaseModel):
    """A value with its 95 % limits, of `n` answers; in `undefined` why there is none."""

    n: int
    value: float | None
    low: float | None
    high: float | None
    undefined: str | None


class ReviewView(BaseModel):
    """Boxes to accept, reject or correct, the most doubtful first, and what the answers say of all pseudo boxes."""

    items: list[ReviewItem]
    pictures: list[ReviewPicture]
    categories: list[str]
    decided: int = Field(description="of the items")
    estimates: dict[str, ReviewEstimate] = Field(
        description="precision and recall at IoU 0.5; right: how many of all boxes; missed: how many objects have none"
    )
    summary: list[str]
    method: str
