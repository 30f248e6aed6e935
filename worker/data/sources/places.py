"""The source that a URL names."""

from collections.abc import Callable

from worker.data.sources.base import Source, SourceError
from worker.data.sources.hub import HubSource
from worker.data.sources.local import LocalSource
from worker.data.sources.s3 import S3Source

FAR: dict[str, Callable[..., Source]] = {"s3": S3Source, "hf": HubSource}
SOURCES = ("file", *FAR)


def source_at(url: str, *, private: bool = False) -> Source:
    """private: a store or a hub may lead into a private network.

    Raises SourceError: `bad_source`, `not_found`, `denied`, `offline` (said within seconds), `unreachable`, `private_address`.
    """
    scheme, separator, _ = url.partition("://")
    if not separator or scheme not in SOURCES:
        raise SourceError(
            "bad_source", f"{url!r} is no source: {', '.join(f'{name}://...' for name in SOURCES)}"
        )
    return LocalSource(url) if scheme == "file" else FAR[scheme](url, private=private)
