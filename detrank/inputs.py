"""What work is to be done on: datasets and checkpoints that are there, or are sent first. All are steps."""

import hashlib
import time
import warnings
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from detrank import http
from detrank.documents import Addressed, Checkpoint, Dataset, Record
from detrank.errors import ProblemError
from detrank.files import open_for_upload
from detrank.progress import Bars
from detrank.resource import ENDED, Resource
from detrank.steps import Sent, Steps

D = TypeVar("D", bound=Addressed)
MOST_PAGES = 5  # of a hundred, newest first, that are looked through for what was sent before


class Deadline:
    """What is left of a time limit. seconds: None for none."""

    def __init__(self, seconds: float | None) -> None:
        self._until = None if seconds is None else time.monotonic() + seconds

    def left(self) -> float | None:
        return None if self._until is None else self._until - time.monotonic()


def dataset_of(service: Any, given: str | Path | Dataset, bars: Bars, deadline: Deadline) -> Steps[Dataset]:
    """The ready dataset that is meant. Raises ProblemError where it cannot be used."""
    found = yield from _found_or_sent(service.datasets, given, "ds_", bars)
    found = yield from _processed(service.datasets, found, bars, deadline)
    _raise_unless_ready(found)
    return found


def checkpoints_of(
    service: Any, given: Sequence[str | Path | Checkpoint], bars: Bars, deadline: Deadline
) -> Steps[list[Checkpoint]]:
    """The ready checkpoints that are meant, each once. One that cannot be used is left out with a warning.

    Raises ProblemError where none is left.
    """
    if isinstance(given, str | Path):
        raise TypeError(f"checkpoints are a list: [{str(given)!r}]")
    sent = []
    for one in given:
        sent.append((yield from _found_or_sent(service.checkpoints, one, "ckpt_", bars)))
    ready: dict[str, Checkpoint] = {}
    unusable = []
    for one in sent:
        one = yield from _processed(service.checkpoints, one, bars, deadline)
        if one["state"] == "ready":
            ready.setdefault(one["id"], one)
        else:
            unusable.append(one)
    if unusable and not ready:
        _raise_unless_ready(unusable[0])
    for one in unusable:
        warnings.warn(f"left out: {one['name']}: {_reason(one)}", stacklevel=2)
    return [*ready.values()]


def _found_or_sent(resource: Resource[Any, D], given: str | Path | D, prefix: str, bars: Bars) -> Steps[D]:
    if isinstance(given, Addressed):
        return given
    word = str(given)
    if "://" in word:
        return (yield from _from_source(resource, word))
    path = Path(given).expanduser()
    if path.exists():
        return (yield from _from_file(resource, path, bars))
    if word.startswith(prefix):
        return (yield from resource.got(word))
    return (yield from _named(resource, word))


def _from_source(resource: Any, source: str) -> Steps[Any]:
    """A checkpoint of a source that was named before is the same; a dataset that stays elsewhere may have changed."""
    if resource.kind is Checkpoint:
        same = yield from _first(
            resource, {"state": "ready"}, lambda one: one["request"].get("source") == source
        )
        if same is not None:
            return same
    return (yield from resource.added(source, None, {}))


def _from_file(resource: Any, path: Path, bars: Bars) -> Steps[Any]:
    """What was sent before, by its content, or what is sent now."""
    name = path.absolute().name.split(".")[0] if resource.kind is Dataset else path.stem
    with open_for_upload(path) as file:
        with file.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
        same = yield from _first(
            resource, {"state": "ready", "name": name}, lambda one: one["source_sha256"] == digest
        )
        if same is not None:
            return same
        return (yield from resource.added(file, _told(bars, path.name), {"name": name}))


def _told(bars: Bars, name: str) -> Sent:
    def sent(done: int, total: int) -> None:
        bars.show(name, f"sending {name}", done, total, f"{done >> 20}/{total >> 20} MiB")

    return sent


def _named(resource: Any, name: str) -> Steps[Any]:
    found = yield from _first(resource, {"name": name}, lambda one: one["name"] == name)
    if found is None:
        raise FileNotFoundError(
            f"{name}: there is no such file or folder, and nothing of this name at the service"
        )
    return found


def _first(resource: Any, filters: Record, wanted: Any) -> Generator[Any, Any, Any]:
    """The newest that is wanted, or None."""
    cursor = None
    for _ in range(MOST_PAGES):
        page = yield from resource.pages(filters | {"limit": 100, "cursor": cursor})
        for one in page["items"]:
            if wanted(one):
                return one
        cursor = page["next_cursor"]
        if cursor is None:
            break
    return None


def _processed(resource: Any, found: Any, bars: Bars, deadline: Deadline) -> Generator[Any, Any, Any]:
    """It once it has been looked at by a worker."""
    if found["state"] in ENDED:
        return found

    def seen(now: Any) -> Generator[Any, Any, None]:
        at: Record = {}
        if now["state"] not in ENDED and now["job_id"]:
            job = yield from http.get(f"/v1/jobs/{now['job_id']}")
            at = job["progress"]
        bars.show(
            now["id"], now["name"], at.get("done", 0), at.get("total"), at.get("message") or now["state"]
        )

    return (yield from resource.ended(found["id"], deadline.left(), seen))


def _reason(record: Record) -> str:
    return str((record["error"] or {}).get("detail") or f"it is {record['state']}")


def _raise_unless_ready(record: Record) -> None:
    if record["state"] != "ready":
        raise ProblemError((record["error"] or {}) | {"detail": f"{record['name']}: {_reason(record)}"})
