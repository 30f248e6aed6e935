"""What can be asked for: metrics, layers, architectures and formats."""

from pydantic import BaseModel, ConfigDict


class Entry(BaseModel):
    """A thing by its name, with what is known of it."""

    model_config = ConfigDict(extra="allow")
    name: str


class Entries(BaseModel):
    items: list[Entry]


class Formats(BaseModel):
    datasets: list[Entry]
    checkpoints: list[Entry]
