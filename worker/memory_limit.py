"""A bound on the memory that reading foreign files may take, so that one archive cannot have the whole machine's."""

import contextlib
import resource
from collections.abc import Iterator
from pathlib import Path

from worker import heap
from worker.machine import memory

_STATUS = Path("/proc/self/status")


@contextlib.contextmanager
def memory_limit(more_bytes: int) -> Iterator[None]:
    """Within it this process may take `more_bytes` beyond what it has; 0: half of the machine's. Then MemoryError is raised.

    By RLIMIT_DATA, whose soft value goes back afterwards; where the kernel does not say what a process has, nothing is bound.
    """
    heap.give_back()  # what is kept counts as held, and would come on top of what is allowed
    held = _data_bytes()
    allowed = more_bytes or (memory()["memory_total_bytes"] or 0) // 2
    if held is None or not allowed:
        yield
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    wanted = held + allowed
    for present in (soft, hard):
        wanted = wanted if present == resource.RLIM_INFINITY else min(wanted, present)
    resource.setrlimit(resource.RLIMIT_DATA, (wanted, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


def _data_bytes() -> int | None:
    """Writable private memory of this process, which is what RLIMIT_DATA counts (Linux 4.7)."""
    try:
        lines = _STATUS.read_text().splitlines()
    except OSError:
        return None
    found = [int(line.split()[1]) * 1024 for line in lines if line.startswith("VmData:")]
    return found[0] if found else None
