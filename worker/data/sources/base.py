"""What every kind of source can do, and what it refuses."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from worker.data.tree import Tree

Check = Callable[[], None]
Tell = Callable[[int, int, str], None]


class SourceError(Exception):
    """`code` for programs, `detail` for people: what was found and what to change.

    Codes: `bad_source`, `not_found`, `denied`, `offline` (it cannot be reached from here), `unreachable` (a transfer broke
    off, which may pass), `private_address` (it leads into a private network), `too_large`, `changed`.
    """

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail


@dataclass(frozen=True, slots=True)
class Pin:
    """By what a picture is known again: its size in bytes and its mark, which differs where the content does.

    The mark is the time of the last change in ns (a local file), the ETag (S3), or the digest (a hub).
    """

    size: int
    mark: str


@dataclass(frozen=True)
class Bounds:
    """The most that is listed, and the most bytes of annotation files, together and each."""

    files: int = 5_000_000
    annotation_bytes: int = 64 << 30
    annotation_file_bytes: int = 8 << 30


class Source(Protocol):
    """A place with pictures and annotation files. Threads may share it.

    `url` says the place exactly (a hub's with its commit); `threads`: how many transfers at once; `content_marks`: equal marks
    mean equal pictures. Everything raises SourceError.
    """

    url: str
    threads: int
    content_marks: bool

    def tree(self, mirror: Path, bounds: Bounds, tell: Tell, check: Check) -> Tree:
        """All files there. Those that are no pictures can be opened afterwards, where needed as copies in `mirror`."""
        ...

    def pin(self, path: str) -> Pin:
        """The pin of a picture of the tree."""
        ...

    def look(self, path: str, pin: Pin) -> Pin | None:
        """The pin as it is now; None where the picture is gone."""
        ...

    def read(self, path: str, pin: Pin) -> bytes:
        """The picture. Raises SourceError `changed` where it is not what was pinned."""
        ...


def changed(url: str, path: str, found: str) -> SourceError:
    """The refusal of a picture that is not what was pinned; `found` says what it is now."""
    return SourceError(
        "changed",
        f"{path} at {url} is no longer the picture that the dataset was made of: {found}. Put the old file back, or make the "
        "dataset anew from the same source",
    )


def private_address(what: str, refusal: Exception) -> SourceError:
    """The refusal of a place that leads into a private network."""
    return SourceError(
        "private_address",
        f"{what} was not read: {refusal}; whoever runs the service may let fetching lead there (DETRANK_FETCH_FROM_PRIVATE)",
    )


def too_many(bounds: Bounds, url: str) -> SourceError:
    return SourceError(
        "too_large",
        f"{url} holds more than {bounds.files:,} files (DETRANK_MAX_SOURCE_FILES): name a folder in it",
    )
