"""Sources of datasets: whether a caller may name one, checked before anything is read."""

import ipaddress
import re
from pathlib import Path
from urllib.parse import unquote, urlsplit

from app.errors import InvalidRequest
from app.settings import Settings

FORMS = "file:///folder, s3://bucket/prefix or hf://datasets/org/name@revision"
_SETTING = "DETRANK_ALLOWED_SOURCES"
# https://docs.aws.amazon.com/AmazonS3/latest/userguide/bucketnamingrules.html
_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_REPOSITORY = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*(@[\w-][\w./-]*)?", re.ASCII)


def allowed(settings: Settings, source: str) -> str:
    """The source as it is kept: a local one without links. Raises InvalidRequest for one that is not written right or not allowed.

    Hosts cannot be named: S3 and the hub are where the service's own environment says, so no caller can lead it elsewhere.
    """
    url = _normal(source)
    roots = [root for text in settings.allowed_sources.split(",") if (root := text.strip())]
    local = url.startswith("file://")
    if not (local and settings.allow_local_paths) and not any(_is_under(url, _root(root)) for root in roots):
        raise _refused(
            f"{source} is not among the places where datasets may stay here ({_SETTING}"
            f"{' is empty' if not roots else ''}); ask whoever runs the service to add it, or send the data itself"
        )
    if local and not Path(unquote(urlsplit(url).path)).is_dir():
        raise _refused(f"there is no folder at {source} on the server")
    return url


def _normal(source: str) -> str:
    scheme, _, rest = source.partition("://")
    path = unquote(rest)
    if "?" in rest or "#" in rest or not path.isprintable():
        raise _refused(
            f"{source!r}: queries, fragments and control characters mean nothing here; write {FORMS}"
        )
    if ".." in re.split(r"[/\\]", path):
        raise _refused(f"{source!r}: '..' is refused; name the folder itself")
    match scheme:
        case "file":
            return _folder(source)
        case "s3":
            return _bucket(source, path)
        case "hf":
            return _repository(source, rest)
    raise _refused(f"{source!r} is no place where a dataset can stay; write {FORMS}")


def _folder(source: str) -> str:
    parts = urlsplit(source)
    if parts.netloc not in ("", "localhost"):
        raise _refused(
            f"{source!r} names the host {parts.netloc!r}; with three slashes it is a folder: file:///folder"
        )
    path = Path(unquote(parts.path))
    try:
        real = path.resolve(strict=True)
    except (OSError, RuntimeError):
        real = None
    # a missing path and a forbidden one are refused alike, so that nobody learns which paths exist
    if real is None or not path.is_absolute():
        return f"file://{unquote(parts.path).rstrip('/')}"
    return real.as_uri()


def _bucket(source: str, path: str) -> str:
    bucket, _, prefix = path.partition("/")
    if not _BUCKET.fullmatch(bucket) or ".." in bucket or _is_address(bucket):
        raise _refused(
            f"{source!r}: {bucket!r} is no name of a bucket (3 to 63 of a-z, 0-9, '.' and '-', and no address)"
        )
    parts = [part for part in prefix.split("/") if part]
    return "/".join([f"s3://{bucket}", *parts])


def _repository(source: str, rest: str) -> str:
    kind, *parts = [unquote(part) for part in rest.split("/") if part]
    name = "/".join(parts[:2])
    if kind != "datasets" or not _REPOSITORY.fullmatch(name):
        raise _refused(f"{source!r}: write hf://datasets/org/name@revision")
    # a branch may have slashes in its name
    return "/".join(["hf://datasets", parts[0], parts[1].replace("/", "%2F"), *parts[2:]])


def _root(root: str) -> str:
    """An allowed place in the form of a source; an absolute path is a folder."""
    if root.startswith("/"):
        root = f"file://{root}"
    if root.startswith("file://"):
        return _folder(root)
    return (unquote(root) if root.startswith("s3://") else root).rstrip("/")


def _is_under(url: str, root: str) -> bool:
    if root.startswith("hf://") and "@" not in root:
        # whatever revision
        url = re.sub(r"@[^/]*", "", url)
    return url == root or url.startswith(f"{root}/")


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _refused(message: str) -> InvalidRequest:
    return InvalidRequest(message, errors=[{"pointer": "/source", "message": message}])
