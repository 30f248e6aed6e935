"""Traces from a request to the work that it made, where they are configured; otherwise nothing of OpenTelemetry is imported.

The context of a trace is a `traceparent` (W3C Trace Context): it comes with a request, is kept with every job that the request
adds, and goes on in the worker that takes the job.
"""

import contextlib
from collections.abc import Iterator
from importlib import import_module
from importlib.util import find_spec
from typing import Protocol

from app.settings import Settings, WrongSettings

Attributes = dict[str, str | int]


class Span(Protocol):
    """A piece of a trace."""

    def update_name(self, name: str) -> None: ...

    def set_attribute(self, key: str, value: str | int) -> None: ...


class Tracer(Protocol):
    """What app/otel.py offers."""

    def span(
        self, name: str, parent: str | None, attributes: Attributes
    ) -> contextlib.AbstractContextManager[Span]: ...

    def traceparent(self) -> str | None: ...

    def flush(self) -> None: ...


class _NoSpan:
    def update_name(self, name: str) -> None: ...

    def set_attribute(self, key: str, value: str | int) -> None: ...


_tracer: Tracer | None = None


def use(tracer: Tracer | None) -> None:
    """Traces of this process go there from now on; None: nowhere."""
    global _tracer  # one of a process, as the logs are
    _tracer = tracer


def configure(settings: Settings, service: str) -> None:
    """Sends traces of this process where the settings say, if they do. Raises WrongSettings where the packages are missing."""
    if not settings.traces_url or _tracer is not None:
        return
    if find_spec("opentelemetry.sdk") is None or find_spec("opentelemetry.exporter") is None:
        raise WrongSettings("DETRANK_TRACES_URL needs more packages: pip install 'detrank[otel]'")
    use(import_module("app.otel").sending_to(settings.traces_url, service))


@contextlib.contextmanager
def span(name: str, parent: str | None = None, **attributes: str | int) -> Iterator[Span]:
    """A piece of the trace of `parent`, else of the one that this code runs in, else of a new one."""
    if _tracer is None:
        yield _NoSpan()
        return
    with _tracer.span(name, parent, attributes) as made:
        yield made


def traceparent() -> str | None:
    """Of the piece that this code runs in; None where there is none."""
    return _tracer.traceparent() if _tracer is not None else None


def flush() -> None:
    """Sends what has ended and waits, not long, until it arrived: for a process that is about to end without a goodbye."""
    if _tracer is not None:
        _tracer.flush()
