"""Turn a foreign file into ``weights.safetensors`` and ``manifest.json``, in a limited child process. No torch here."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from models_store.archives import pack
from models_store.errors import Unusable
from models_store.inspect import inspect
from models_store.isolated import run_child
from models_store.limits import Limits
from models_store.manifest import MANIFEST_FILE, WEIGHTS_FILE, Manifest

OVERRIDES = {
    "mean",
    "std",
    "channel_order",
    "min_size",
    "max_size",
    "num_classes",
    "class_names",
    "licence",
    "provenance",
    "options",
}
PUBLIC_MODE = 0o644


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
    ``overrides``: ``mean``, ``std`` (in 0 to 1 or 0 to 255, in the network's ``channel_order``, rgb or bgr), ``min_size``,
    ``max_size``, ``num_classes`` or ``class_names`` (without background), ``licence``, ``provenance``, ``options`` (of the
    architecture, and: ``weights`` ema or model, ``take`` body, ``backbone``, ``nheads``, ``dilation``, ``anchors``,
    ``stride_in_1x1``, ``frozen_bn_eps``). ``check`` is called a few times a second while the child works and
    may raise to stop it. Nothing is left behind on failure.

    Raises Unusable.
    """
    source, out, limits = Path(source).resolve(), Path(out).resolve(), limits or Limits()
    unknown = set(overrides or {}) - OVERRIDES
    if unknown:
        raise Unusable("bad_override", f"unknown overrides {sorted(unknown)}: {', '.join(sorted(OVERRIDES))}")
    out.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        with tempfile.TemporaryDirectory(prefix=".packing-", dir=out.parent) as packing:
            return convert(
                pack(source, Path(packing)),
                out,
                architecture=architecture,
                kind=kind,
                uri=uri or source.name,
                sha256=sha256,
                overrides=overrides,
                limits=limits,
                check=check,
            )
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
