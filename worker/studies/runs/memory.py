"""How much memory a part of a study took, where the system says so (Linux)."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

PROCESS = Path("/proc/self")


@contextlib.contextmanager
def memory_taken() -> Iterator[dict[str, float]]:
    """Afterwards {"before", "peak"}: MB (10^6 bytes) resident when it began and at most within; empty where unknown."""
    found: dict[str, float] = {}
    before = _status("VmRSS")
    with contextlib.suppress(OSError):
        (PROCESS / "clear_refs").write_text("5")  # the highest so far begins anew
    yield found
    peak = _status("VmHWM")
    if before is not None and peak is not None:
        found |= {"before": before, "peak": peak}


def _status(name: str) -> float | None:
    with contextlib.suppress(OSError):
        for line in (PROCESS / "status").read_text(encoding="ascii", errors="replace").splitlines():
            key, _, value = line.partition(":")
            if key == name:
                return round(int(value.split()[0]) * 1.024e-3, 1)
    return None
