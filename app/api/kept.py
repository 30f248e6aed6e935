"""Answers kept as bytes: what has the same version is neither read nor written out again.

A record's `version` grows with everything that is shown of it; it is the record's ETag for the same reason. A whole
ranking costs some hundred rows and twenty milliseconds of a core, and pollers ask for it all the time.
"""

import threading
from collections import OrderedDict
from collections.abc import Iterable
from typing import NamedTuple


class Shown(NamedTuple):
    """What of which record: `form` tells a summary from a whole view, and views with other parameters from one another."""

    table: str
    id: str
    form: str


class KeptAnswers:
    """The last version of what was asked for lately, `most_bytes` of it; threads may share it."""

    def __init__(self, most_bytes: int) -> None:
        self._most = most_bytes
        self._size = 0
        self._lock = threading.Lock()
        self._kept: OrderedDict[Shown, tuple[int, bytes]] = OrderedDict()

    def get(self, shown: Shown, version: int) -> bytes | None:
        """The bytes, where those of this very version are kept."""
        with self._lock:
            return self._get(shown, version)

    def get_all(self, wanted: Iterable[tuple[Shown, int]]) -> list[bytes | None]:
        """`get` of each, in one go."""
        with self._lock:
            return [self._get(shown, version) for shown, version in wanted]

    def keep(self, shown: Shown, version: int, body: bytes) -> bytes:
        """Keeps and returns `body`, unless a later version is there; whoever was asked for longest ago goes."""
        with self._lock:
            before = self._kept.get(shown)
            if before is not None and before[0] > version:
                return body
            self._forget(shown)
            if len(body) <= self._most:
                self._kept[shown] = version, body
                self._size += len(body)
            while self._size > self._most:
                self._forget(next(iter(self._kept)))
        return body

    def _get(self, shown: Shown, version: int) -> bytes | None:
        found = self._kept.get(shown)
        if found is None or found[0] != version:
            return None
        self._kept.move_to_end(shown)
        return found[1]

    def _forget(self, shown: Shown) -> None:
        gone = self._kept.pop(shown, None)
        if gone is not None:
            self._size -= len(gone[1])
