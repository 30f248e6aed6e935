"""What is kept of a dataset."""

from typing import Any

from typing_extensions import TypedDict


class DatasetLineage(TypedDict):
    """Where the boxes of a dataset come from that nobody drew. checkpoint, dataset: id, name, digest."""

    pseudo_labelling_id: str
    teacher: str
    dataset: dict[str, Any]
    checkpoint: dict[str, Any] | None
    settings: dict[str, Any]


class SplitCount(TypedDict):
    images: int
    annotations: int


class DatasetSummary(TypedDict, total=False):
    """Of a dataset's counts those that are computed with; people see all of them."""

    images: int
    annotations: int
    categories: list[dict[str, Any]]
    splits: dict[str, SplitCount]
