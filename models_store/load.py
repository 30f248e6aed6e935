"""Turn a foreign file into ``weights.safetensors`` and ``manifest.json``, in a limited child process. No torch here."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from models_store.archives import pack
from models_store.errors import Unusable
from models_store.inspect import inspect
from models_store.limits import Limits
from models_store.manifest import MANIFEST_FILE, WEIGHTS_FILE, Manifest

PACKAGE_ROOT = Path(__file__).resolve().parent.parent
# Enough to start Python; no token, proxy or credential of the caller reaches the child.
KEPT_ENVIRONMENT = ("PATH", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "SYSTEMROOT", "VIRTUAL_ENV")
OVERRIDES = {"mean", "std", "min_size", "max_size", "class_names", "licence", "provenance", "options"}
POLL_S = 0.2
PUBLIC_MODE = 0o644
TAIL_CHARACTERS = 400


def convert(
    source: Path,
    out: Path,
    *,
    architecture: str | None = None,
    kind: str | None = None,
    uri: str | None = None,
    sha256: str | None = None,
    overrides: Mapping[str, Any] | None = None,
    limits: Limits | None = None,
    check: Callable[[], None] = lambda: None,
) -> Manifest:
    """Recognise and convert ``source``; writes ``weights.safetensors`` and ``manifest.json`` into ``out``.

    ``source``: a file, or a transformers folder, which is packed first and whose digest is then the archive's.

    ``architecture``: an architecture's name, or ``torchvision/<name>`` or ``timm/<name>`` of a classifier, where
    keys alone do not tell. ``kind``: what the caller expects. ``sha256``: the digest the file must have.
    ``overrides``: ``mean``, ``std``, ``min_size``, ``max_size``, ``class_names`` (without background),
    ``licence``, ``provenance``, ``options``. ``check`` is called a few times a second while the child works and
    may raise to stop it. Nothing is left behind on failure.

    Raises Unusable.
    """
    source, out, limits = Path(source).resolve(), Path(out).resolve(), limits or Limits()
    unknown = set(overrides or {}) - OVERRIDES
    if unknown:
        raise Unusable("bad_override", f"unknown overrides {sorted(unknown)}: {', '.join(sorted(OVERRIDES))}")
    out.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        with tempfile.TemporaryDirectory(prefix=".packing-", dir=out.parent) as beside:
            return convert(
                pack(source, Path(beside)), out, architecture=architecture, kind=kind, uri=uri or source.name,
                sha256=sha256, overrides=overrides, limits=limits, check=check,
            )  # fmt: skip
    inspect(source, limits)
    digest = digest_of(source)
    if sha256 is not None and digest != sha256.lower():
        raise Unusable(
            "sha256_mismatch", f"the file's sha256 is {digest}, not {sha256}: it is not the file you pinned"
        )
    beside = Path(tempfile.mkdtemp(prefix=".converting-", dir=out.parent))
    try:
        request = {
            "source": str(source),
            "sha256": digest,
            "uri": uri or source.name,
            "out": str(beside),
            "architecture": architecture,
            "kind": kind,
            "overrides": dict(overrides or {}),
            "limits": asdict(limits),
        }
        run_child(request, limits, check)
        manifest = Manifest.read(beside)
        out.mkdir(exist_ok=True)
        for name in (WEIGHTS_FILE, MANIFEST_FILE):
            os.chmod(beside / name, PUBLIC_MODE)
            os.replace(beside / name, out / name)
        return manifest
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def digest_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def run_child(request: Mapping[str, Any], limits: Limits, check: Callable[[], None]) -> None:
    """Run ``models_store.child`` on ``request``. Raises Unusable with what it answers or how it died."""
    environment = {k: os.environ[k] for k in KEPT_ENVIRONMENT if k in os.environ}
    environment |= {
        "PYTHONPATH": str(PACKAGE_ROOT),
        "HOME": str(request["out"]),
        "TMPDIR": str(request["out"]),
        "HF_HUB_OFFLINE": "1",
        "CUDA_VISIBLE_DEVICES": "",
        "OMP_NUM_THREADS": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    with tempfile.TemporaryFile() as answers, tempfile.TemporaryFile() as errors:
        child = subprocess.Popen(
            [sys.executable, "-P", "-m", "models_store.child"],
            stdin=subprocess.PIPE,
            stdout=answers,
            stderr=errors,
            env=environment,
            cwd=request["out"],
            start_new_session=True,
        )
        try:
            _feed(child, json.dumps(request).encode())
            _wait(child, limits, check)
        finally:
            if child.poll() is None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(child.pid, signal.SIGKILL)
                child.wait()
        answers.seek(0)
        errors.seek(0)
        _judge(child.returncode, answers.read(16 << 20), errors.read(), limits)


def _feed(child: subprocess.Popen[bytes], request: bytes) -> None:
    if child.stdin is None:
        raise RuntimeError("the child was started without standard input")
    with contextlib.suppress(BrokenPipeError), child.stdin as pipe:
        pipe.write(request)


def _wait(child: subprocess.Popen[bytes], limits: Limits, check: Callable[[], None]) -> None:
    waited = 0.0
    while True:
        try:
            child.wait(POLL_S)
            return
        except subprocess.TimeoutExpired:
            waited += POLL_S
            check()
            if waited > limits.wall_s:
                raise Unusable(
                    "too_slow", f"the file could not be converted within {limits.wall_s} s and was stopped"
                ) from None


def _judge(code: int, answer: bytes, errors: bytes, limits: Limits) -> None:
    with contextlib.suppress(ValueError):
        reply = json.loads(answer)
        if reply.get("ok"):
            return
        error = reply["error"]
        raise Unusable(error["code"], error["detail"], error.get("errors"))
    if code == -signal.SIGXCPU or code == -signal.SIGKILL:
        raise Unusable(
            "too_slow", f"the loader used more than {limits.cpu_s} s of CPU, or was killed, and was stopped"
        )
    tail = errors.decode("utf-8", "replace").strip()[-TAIL_CHARACTERS:]
    if "MemoryError" in tail or "bad_alloc" in tail or "allocate memory" in tail:
        raise Unusable(
            "too_large", f"the file needs more than the {limits.memory_bytes} bytes the loader may use"
        )
    raise Unusable("loader_failed", f"the loader ended with {code} on this file: {tail}")
