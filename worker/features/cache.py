"""Extracted features on disk: one safetensors file per candidate and request, found by content digests.

Readable without our code: arrays `annotation_ids`, `image_ids`, `labels`, `boxes`, `features/<layer>/<level>`
and, where asked for, `source_probabilities` stand row by row in one file, the rest as JSON in its header under `detrank`.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

DEFAULT_MAX_BYTES = 4 * 2**30
_SUFFIX = ".features.safetensors"
_BESIDE = ".writing-"
_ABANDONED_S = 3600.0

logger = logging.getLogger(__name__)


def key_of(facts: Mapping[str, Any]) -> str:
    """Digest (64 hex digits) of everything the features depend on; `facts` must be plain JSON values."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def path_of(folder: Path, key: str) -> Path:
    """Where the file kept under `key` is, or would be."""
    return folder / f"{key}{_SUFFIX}"


def load(folder: Path, key: str) -> tuple[dict[str, np.ndarray], dict[str, Any]] | None:
    """Arrays and header kept under `key`, or None. A file that cannot be read is removed and counts as absent."""
    path = path_of(folder, key)
    try:
        with safe_open(path, framework="numpy") as file:
            header = json.loads(file.metadata()["detrank"])
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
        if header["key"] != key or header["digest"] != _digest(arrays):
            raise ValueError("contents do not match the header")
        os.utime(path)
    except FileNotFoundError:
        return None
    except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
        logger.warning("cached features %s cannot be read and are extracted again: %s", key[:12], error)
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)
        return None
    return arrays, header["facts"]


def save(
    folder: Path, key: str, arrays: Mapping[str, np.ndarray], facts: Mapping[str, Any], max_bytes: int
) -> Path:
    """The file, written beside and renamed, so that a reader sees a whole one or none; removes what was used longest ago."""
    folder.mkdir(parents=True, exist_ok=True)
    kept = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    header = {
        "detrank": json.dumps({"key": key, "digest": _digest(kept), "facts": dict(facts)}, sort_keys=True)
    }
    descriptor, name = tempfile.mkstemp(prefix=_BESIDE, dir=folder)
    os.close(descriptor)
    beside = Path(name)
    try:
        save_file(kept, beside, metadata=header)
        beside.replace(path_of(folder, key))
    finally:
        beside.unlink(missing_ok=True)
    _evict(folder, max_bytes)
    return path_of(folder, key)


def _evict(folder: Path, max_bytes: int) -> None:
    files: list[tuple[float, int, Path]] = []
    for path in folder.iterdir():
        with contextlib.suppress(FileNotFoundError):
            state = path.stat()
            if path.name.startswith(_BESIDE):
                if time.time() - state.st_mtime > _ABANDONED_S:
                    path.unlink(missing_ok=True)
            elif path.name.endswith(_SUFFIX):
                files.append((state.st_mtime_ns, state.st_size, path))
    total = sum(size for _, size, _ in files)
    for _, size, path in sorted(files):
        if total <= max_bytes:
            return
        path.unlink(missing_ok=True)
        total -= size


def _digest(arrays: Mapping[str, np.ndarray]) -> str:
    digest = hashlib.sha256()
    for name in sorted(arrays):
        array = arrays[name]
        digest.update(f"{name}:{array.dtype.str}:{array.shape};".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()
