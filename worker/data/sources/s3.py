"""`s3://bucket/prefix`: objects of an S3-compatible store, with the credentials and the endpoint that storage has too."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fsspec.asyn import sync
from fsspec.core import url_to_fs

from models_store.reach import why_unreachable
from outbound import guard
from outbound.addresses import refusal_in
from worker.data.sources.base import Bounds, Check, Pin, SourceError, Tell, changed, private_address, too_many
from worker.data.sources.mirror import is_usable, mirror
from worker.data.tree import Tree

PAGE = 1000
_CONNECT_S = 5
_READ_S = 60


class S3Source:
    """One request for each thousand names, and one for each file that is fetched or looked at again.

    private: the store may send a request on into a private network, for its client follows redirects; the store itself may be
    anywhere.
    """

    threads = 16
    content_marks = True

    def __init__(self, url: str, *, private: bool = False) -> None:
        self.url = url
        self._bucket, _, prefix = url.removeprefix("s3://").partition("/")
        self._prefix = f"{prefix.strip('/')}/" if prefix.strip("/") else ""
        self._pins: dict[str, Pin] = {}
        with self._said(self._bucket):
            how: dict[str, Any] = {
                "connect_timeout": _CONNECT_S,
                "read_timeout": _READ_S,
                "max_pool_connections": 2 * self.threads,
            }
            if not private:
                how["connector_args"] = {"socket_factory": guard.socket_for(self._endpoint)}
            try:
                # the same library as for storage, so the same variables and files say who we are and where
                self._files, _ = url_to_fs(
                    "s3://", config_kwargs=how, use_listings_cache=False, skip_instance_cache=True
                )
            except ImportError as missing:
                raise SourceError("bad_source", 's3:// needs s3fs: pip install "detrank[s3]"') from missing
            self._files.connect()
            endpoint = self._files.s3.meta.endpoint_url
        if reason := why_unreachable(endpoint):
            raise SourceError("offline", f"{url} was not read: {reason}")

    def _endpoint(self) -> list[str]:
        return [self._files.s3.meta.endpoint_url]

    def tree(self, mirror_at: Path, bounds: Bounds, tell: Tell, check: Check) -> Tree:
        for path, pin in self._listing(check):
            if not is_usable(path):
                continue
            self._pins[path] = pin
            if len(self._pins) > bounds.files:
                raise too_many(bounds, self.url)
            if len(self._pins) % 1000 == 0:
                tell(len(self._pins), len(self._pins), "listing files")
        if not self._pins:
            raise SourceError(
                "not_found", f"there is nothing at {self.url}: name the bucket and the folder of the dataset"
            )
        return mirror(
            self._pins, self.read, mirror_at, threads=self.threads, bounds=bounds, tell=tell, check=check
        )

    def pin(self, path: str) -> Pin:
        return self._pins[path]

    def look(self, path: str, pin: Pin) -> Pin | None:
        with self._said(path):
            try:
                found = self._call("head_object", path)
            except FileNotFoundError:
                return None
        return _pin(found)

    def read(self, path: str, pin: Pin) -> bytes:
        with self._said(path):
            try:
                found = self._call("get_object", path)
            except FileNotFoundError:
                raise changed(self.url, path, "it is gone") from None
            if (now := _pin(found)) != pin:
                sync(self._files.loop, _closed, found["Body"])
                raise changed(
                    self.url,
                    path,
                    f"it has {now.size:,} bytes (then {pin.size:,}) and ETag {now.mark} (then {pin.mark})",
                )
            data = sync(self._files.loop, found["Body"].read)
        if len(data) != pin.size:
            raise SourceError("unreachable", f"{len(data):,} of {pin.size:,} bytes of {path} arrived")
        return data

    def _call(self, operation: str, path: str) -> dict[str, Any]:
        return self._files.call_s3(operation, Bucket=self._bucket, Key=self._prefix + path)

    def _listing(self, check: Check) -> Iterator[tuple[str, Pin]]:
        more: dict[str, str] = {}
        while True:
            check()
            with self._said(self._bucket):
                page = self._files.call_s3(
                    "list_objects_v2", Bucket=self._bucket, Prefix=self._prefix, MaxKeys=PAGE, **more
                )
            for each in page.get("Contents", ()):
                yield each["Key"][len(self._prefix) :], Pin(each["Size"], each["ETag"].strip('"'))
            if not page.get("NextContinuationToken"):
                return
            more = {"ContinuationToken": page["NextContinuationToken"]}

    @contextlib.contextmanager
    def _said(self, what: str) -> Iterator[None]:
        """What the libraries raise, as a SourceError."""
        try:
            yield
        except (SourceError, FileNotFoundError) as known:
            if isinstance(known, SourceError):
                raise
            raise SourceError("not_found", f"{self.url}: there is no {what}") from known
        except PermissionError as error:
            raise SourceError(
                "denied", f"{self.url}: the store does not let this service read {what} ({error})"
            ) from error
        except Exception as error:
            if refusal := refusal_in(error):
                raise private_address(what, refusal) from error
            if type(error).__name__ in ("NoCredentialsError", "PartialCredentialsError"):
                raise SourceError(
                    "denied", f"{self.url}: this service has no credentials for S3 ({error})"
                ) from error
            raise SourceError(
                "unreachable", f"{self.url}: {what} could not be read: {type(error).__name__}: {error}"
            ) from error


def _pin(found: dict[str, Any]) -> Pin:
    return Pin(int(found["ContentLength"]), found["ETag"].strip('"'))


async def _closed(body: Any) -> None:
    body.close()
