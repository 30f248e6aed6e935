"""One conversion in a process of its own, bound by limits before any byte of the file is read."""

from __future__ import annotations

import importlib
import json
import os
import tempfile
from pathlib import Path
from typing import Any

from models_store.errors import Unusable, out_of_memory
from models_store.limits import Limits, hold, leave_network

MAX_ERRORS = 1000


def convert_bound(raw: dict[str, Any], answers: int) -> None:
    """Bind this process, convert what ``raw`` asks for and write one JSON line to the descriptor ``answers``.

    The line is ``{"ok": true}`` or ``{"error": {...}}``. What is no refusal is raised.
    """
    limits = Limits(**raw["limits"])
    os.chdir(raw["out"])
    os.environ |= {"HOME": raw["out"], "TMPDIR": raw["out"]}
    tempfile.tempdir = None
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
    with os.fdopen(answers, "wb", closefd=False) as file:
        file.write(json.dumps(reply).encode() + b"\n")
