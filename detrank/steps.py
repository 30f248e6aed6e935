"""What the client does, as steps: written once, for a client that blocks and for one that is awaited.

A method is a generator. It yields what is to be done next and is given what came of it, or the failure is raised where it yielded.
`drivers.py` does the steps, in one of two ways; nothing else knows which.
"""

from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

T = TypeVar("T")
Item = TypeVar("Item")
Record = dict[str, Any]
Sent = Callable[[int, int], None]  # bytes that were sent, and of how many

PIECE_BYTES = 1 << 20


@dataclass(frozen=True)
class File:
    """A body that is read in pieces while it is sent, from the start at every attempt."""

    path: Path
    on_sent: Sent | None = None

    def pieces(self) -> Iterator[bytes]:
        total, done = self.path.stat().st_size, 0
        with self.path.open("rb") as stream:
            while piece := stream.read(PIECE_BYTES):
                yield piece
                done += len(piece)
                if self.on_sent is not None:
                    self.on_sent(done, total)


@dataclass(frozen=True)
class Ask:
    """One request; what comes of it is the whole httpx.Response. Raises httpx.HTTPError at the yield."""

    method: str
    path: str
    headers: Mapping[str, str] = field(default_factory=dict)
    params: Record | None = None
    json: Any = None
    content: bytes | File | None = None

    def request(self) -> Record:
        """For httpx, but for the content, which is read as the driver reads."""
        return {
            "method": self.method,
            "url": self.path,
            "headers": dict(self.headers),
            "params": self.params or None,
            "json": self.json,
        }


@dataclass(frozen=True)
class Open:
    """A request whose answer is read piece by piece; what comes of it is the httpx.Response, read where it is an error."""

    path: str
    headers: Mapping[str, str] = field(default_factory=dict)
    params: Record | None = None
    timeout_s: float = 60.0

    def request(self) -> Record:
        """For httpx."""
        return {
            "method": "GET",
            "url": self.path,
            "headers": dict(self.headers),
            "params": self.params or None,
            "timeout": self.timeout_s,
        }


@dataclass(frozen=True)
class Read:
    """The next piece of what was opened last; None at its end."""


@dataclass(frozen=True)
class Pause:
    """Nothing, for so long."""

    seconds: float


@dataclass(frozen=True)
class Show(Generic[Item]):
    """Hands an item to whoever iterates."""

    item: Item


Step = Ask | Open | Read | Pause
Steps = Generator[Step, Any, T]
Stream = Generator[Step | Show[T], Any, None]
