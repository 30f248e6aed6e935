"""What can be asked for: metrics, layers, architectures, recipes and formats."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from app.schemas.common import Line


class Entry(BaseModel):
    """A thing by its name, with what is known of it."""

    model_config = ConfigDict(extra="allow")
    name: str


class Entries(BaseModel):
    items: list[Entry]


class ShelfEntry(Entry):
    """A public checkpoint; `name` is its source. Figures that nobody published are null."""

    family: str
    kind: Literal["detector", "backbone"]
    licence: str
    parameters: int
    bytes: int
    coco_ap: float | None
    rf100_vl_ap: float | None
    source: str


class Shelf(BaseModel):
    items: list[ShelfEntry]


class ShelfQuery(BaseModel):
    """What may be taken from the shelf."""

    model_config = ConfigDict(extra="forbid")
    licence: Annotated[str, Line(200)] | None = Field(
        default=None, description="an SPDX name, or `permissive`"
    )
    max_parameters: int | None = Field(default=None, ge=1, le=2**63 - 1)
    families: Annotated[list[Annotated[str, Line(60)]], Field(max_length=100)] | None = None
    kind: Literal["detector", "backbone"] | None = None
    count: int | None = Field(default=None, ge=1, le=1000)
    gigabytes: float | None = Field(
        default=None, gt=0, le=1e6, description="of weights, all together", allow_inf_nan=False
    )


class Recipes(Entries):
    """Recipes, and the choices for `freeze` and `precision`."""

    freeze: list[str]
    precisions: list[str]
    default_recipes: list[str]


class Formats(BaseModel):
    datasets: list[Entry]
    checkpoints: list[Entry]
