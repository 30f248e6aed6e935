"""`hf://datasets/org/name@revision[/folder]`: files of a dataset on the Hugging Face hub, at one commit."""

import contextlib
import hashlib
import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

from huggingface_hub import HfApi, hf_hub_url
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
)
from huggingface_hub.hf_api import RepoFile
from huggingface_hub.utils import build_hf_headers, get_session, hf_raise_for_status

from models_store.reach import why_unreachable
from outbound import guard
from outbound.addresses import refusal_in
from worker.data.sources.base import Bounds, Check, Pin, SourceError, Tell, changed, private_address, too_many
from worker.data.sources.mirror import is_usable, mirror
from worker.data.tree import Tree

_URL = re.compile(r"hf://datasets/([\w.-]+/[\w.-]+)(?:@([^/]+))?(?:/(.+))?")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_TIMEOUT_S = 30.0


class HubSource:
    """A commit cannot change, and every file is held against its digest, so nothing needs to be looked at again.

    private: the hub may send a request on into a private network; the hub itself may be anywhere.
    """

    threads = 8
    content_marks = True

    def __init__(self, url: str, *, private: bool = False) -> None:
        match = _URL.fullmatch(url)
        if not match:
            raise SourceError("bad_source", f"{url}: write hf://datasets/org/name@revision")
        self._repository, revision, folder = match.groups()
        revision = revision and unquote(revision)
        self._folder = f"{folder.strip('/')}/" if folder else ""
        self._pins: dict[str, Pin] = {}
        self._hub = HfApi()
        self._private = private
        if reason := why_unreachable(self._hub.endpoint):
            raise SourceError("offline", f"{url} was not read: {reason}")
        self._commit = (
            revision if revision and _COMMIT.fullmatch(revision) else self._commit_of(url, revision)
        )
        self.url = f"hf://datasets/{self._repository}@{self._commit}" + (
            f"/{folder.strip('/')}" if folder else ""
        )

    def _commit_of(self, url: str, revision: str | None) -> str:
        with self._said(url):
            found = self._hub.dataset_info(self._repository, revision=revision, timeout=_TIMEOUT_S).sha
        if not found:
            raise SourceError("not_found", f"{url}: the hub names no commit")
        return found

    def tree(self, mirror_at: Path, bounds: Bounds, tell: Tell, check: Check) -> Tree:
        for entry in self._entries():
            check()
            path = entry.path[len(self._folder) :]
            if not is_usable(path):
                continue
            mark = f"sha256:{entry.lfs.sha256}" if entry.lfs else f"git:{entry.blob_id}"
            self._pins[path] = Pin(entry.size, mark)
            if len(self._pins) > bounds.files:
                raise too_many(bounds, self.url)
            if len(self._pins) % 1000 == 0:
                tell(len(self._pins), len(self._pins), "listing files")
        if not self._pins:
            raise SourceError("not_found", f"there is nothing at {self.url}")
        return mirror(
            self._pins, self.read, mirror_at, threads=self.threads, bounds=bounds, tell=tell, check=check
        )

    def _entries(self) -> Iterator[RepoFile]:
        with self._said(self.url):
            for entry in self._hub.list_repo_tree(
                self._repository,
                self._folder.rstrip("/") or None,
                recursive=True,
                revision=self._commit,
                repo_type="dataset",
            ):
                if isinstance(entry, RepoFile):
                    yield entry

    def pin(self, path: str) -> Pin:
        return self._pins[path]

    def look(self, path: str, pin: Pin) -> Pin | None:
        return pin

    def read(self, path: str, pin: Pin) -> bytes:
        url = hf_hub_url(
            self._repository,
            self._folder + path,
            repo_type="dataset",
            revision=self._commit,
            endpoint=self._hub.endpoint,
        )
        data = bytearray()
        with (
            self._said(path),
            get_session().stream(
                "GET", url, headers=build_hf_headers(), follow_redirects=True, timeout=_TIMEOUT_S
            ) as answer,
        ):
            hf_raise_for_status(answer)
            for piece in answer.iter_bytes():
                data += piece
                if len(data) > pin.size:
                    break
        if len(data) != pin.size or _mark(bytes(data), pin.mark) != pin.mark:
            raise changed(self.url, path, "what the hub sends has another digest")
        return bytes(data)

    @contextlib.contextmanager
    def _said(self, what: str) -> Iterator[None]:
        """Connections to the internet and the hub alone; what the libraries raise, as a SourceError."""
        try:
            with (
                contextlib.nullcontext() if self._private else guard.public_only(lambda: [self._hub.endpoint])
            ):
                yield
        except SourceError:
            raise
        except GatedRepoError as error:
            raise SourceError(
                "denied", f"{what}: the dataset is gated; give the service a token that was let in"
            ) from error
        except RepositoryNotFoundError as error:
            raise SourceError(
                "not_found", f"{what}: the hub has no such dataset for this service, or it is private"
            ) from error
        except OfflineModeIsEnabled as error:
            raise SourceError("offline", f"{what} was not read: {error}") from error
        except HfHubHTTPError as error:
            status = error.response.status_code if error.response is not None else 0
            code = {401: "denied", 403: "denied", 404: "not_found"}.get(status, "unreachable")
            raise SourceError(code, f"{what}: the hub answers {status}: {_first_line(error)}") from error
        except Exception as error:  # of the library's own client, which is another with each version
            if refusal := refusal_in(error):
                raise private_address(what, refusal) from error
            raise SourceError("unreachable", f"{what} could not be read: {_first_line(error)}") from error


def _mark(data: bytes, like: str) -> str:
    if like.startswith("sha256:"):
        return f"sha256:{hashlib.sha256(data).hexdigest()}"
    # how git names a blob; no defence, the hub itself names files so
    blob = b"blob %d\0" % len(data) + data
    return f"git:{hashlib.sha1(blob, usedforsecurity=False).hexdigest()}"


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
