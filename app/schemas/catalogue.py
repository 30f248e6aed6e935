"""What can be asked for: metrics, layers, architectures, recipes and formats."""

from pydantic import BaseModel, ConfigDict


class Entry(BaseModel):
    """A thing by its name, with what is known of it."""

    model_config = ConfigDict(extra="allow")
    name: str


class Entries(BaseModel):
    items: list[Entry]


class Recipes(Entries):
    """Recipes, and the choices for `freeze` and `precision`."""

    freeze: list[str]
    precisions: list[str]
    default_recipes: list[str]


class Formats(BaseModel):
    datasets: list[Entry]
    checkpoints: list[Entry]
