"""What rows of several kinds have."""

from typing import Any

from typing_extensions import TypedDict


class Preview(TypedDict):
    """A picture in storage that a dataset names."""

    sha256: str
    file_name: str


class StoredFile(Preview):
    """A file in storage that a row names, with what is said of it."""

    media_type: str
    title: str
    about: dict[str, Any]


# the file among a verification's pictures that has the boxes of every image that was looked at
PREDICTIONS = "predictions.json"


class Progress(TypedDict):
    """How far a job is; `fraction` is None while the total is not known."""

    done: int
    total: int | None
    unit: str | None
    fraction: float | None
    eta_s: float | None
    message: str | None
