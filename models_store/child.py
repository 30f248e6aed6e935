"""``python -m models_store.child``: one conversion in a process bound by limits.

Reads a JSON request from standard input, answers one JSON line: ``{"ok": true}`` or ``{"error": {...}}``.
The limits hold before torch, and before any byte of the file, is read.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
from pathlib import Path

from models_store.errors import Unusable, out_of_memory
from models_store.limits import Limits, hold, leave_network

MAX_ERRORS = 1000


def main() -> int:
    # Whatever a library prints goes to standard error; the answer has its own descriptor.
    answer = os.dup(1)
    os.dup2(2, 1)
    raw = json.loads(sys.stdin.read())
    limits = Limits(**raw["limits"])
    hold(limits)
    leave_network()
    try:
        conversion = importlib.import_module("models_store.conversion")
        conversion.convert_here(
            conversion.Request(
                source=Path(raw["source"]),
                sha256=raw["sha256"],
                uri=raw["uri"],
                out=Path(raw["out"]),
                architecture=raw["architecture"],
                kind=raw["kind"],
                overrides=raw["overrides"],
                limits=limits,
            )
        )
        reply: dict[str, object] = {"ok": True}
    except Unusable as error:
        reply = {"error": error.to_json() | {"errors": error.errors[:MAX_ERRORS]}}
    except (MemoryError, RecursionError, RuntimeError) as error:
        if not (out_of_memory(error) or isinstance(error, RecursionError)):
            raise
        detail = f"{type(error).__name__} within {limits.memory_bytes} bytes: {str(error)[:200]}"
        reply = {
            "error": {
                "code": "too_large",
                "detail": f"the file needs more than the loader may use ({detail})",
            }
        }
    os.write(answer, json.dumps(reply).encode() + b"\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
