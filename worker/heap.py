"""What the C library does with freed memory in a process that computes: it is kept for the next tensor, and given back at rest.

By default glibc maps each large block anew and unmaps it when it is freed, so every feature map's pages are made and zeroed by
the kernel once more: an eighth to a fifth of the time of a training or an extraction on a CPU (benchmarks/heap.py).
Elsewhere than with glibc nothing happens.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import threading
from collections.abc import Iterator
from functools import cache
from typing import Any

# of mallopt(3): blocks below the first come from the heap, whose free end goes back to the system from the second on
_M_MMAP_THRESHOLD, _M_TRIM_THRESHOLD = -3, -1
KEPT_BYTES = 1 << 30
# A worker between two jobs of one ranking has no reason to give back what the next will take again.
REST_S = 30.0

_resting: threading.Timer | None = None


@cache
def keep_freed() -> bool:
    """Up to KEPT_BYTES of what this process frees are kept for what it needs next; whether the C library can."""
    found = _of_libc("mallopt")
    if found is None:
        return False
    return all(found(what, KEPT_BYTES) == 1 for what in (_M_MMAP_THRESHOLD, _M_TRIM_THRESHOLD))


def give_back() -> None:
    """Hand all that is free back to the system.

    A training frees gigabytes in blocks of every size. glibc keeps them, and what the next one of other sizes needs comes
    on top: between trainings nothing is alive that was not alive before, yet the process grows.
    """
    if trim := _of_libc("malloc_trim"):
        trim(0)


@contextlib.contextmanager
def at_work() -> Iterator[None]:
    """What is freed within it is kept; given back once nothing has been within it for REST_S."""
    global _resting
    keep_freed()
    if _resting is not None:
        _resting.cancel()
    try:
        yield
    finally:
        _resting = threading.Timer(REST_S, give_back)
        _resting.daemon = True
        _resting.start()


def _of_libc(name: str) -> Any:
    return getattr(ctypes.CDLL(None), name, None) if os.name == "posix" else None
