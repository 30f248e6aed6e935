"""What is kept of a checkpoint."""

from typing import Any, NotRequired

from typing_extensions import TypedDict


class LayerOfCheckpoint(TypedDict):
    name: str
    kind: NotRequired[str]  # map or vector
    trained: NotRequired[bool]


class InputOfCheckpoint(TypedDict, total=False):
    min_size: int
    fixed_size: list[int] | None


class Manifest(TypedDict, total=False):
    """Of a checkpoint's manifest (models_store/manifest.py has all of it) what is read without loading the checkpoint."""

    kind: str
    class_names: list[str] | None
    architecture: str
    backbone: str | None
    layers: list[LayerOfCheckpoint]
    input: InputOfCheckpoint
    options: dict[str, Any]
    published: dict[str, float]
    warnings: list[str]


class PlainForm(TypedDict, total=False):
    """A fine-tuned checkpoint for its own library: the files beside the weights, or why there is no such form."""

    unavailable: str
    library: str
    weights: str
    texts: dict[str, str]
