"""Traces by OpenTelemetry. Imported only where they are configured (`app/tracing.py`); needs the extra `otel`."""

import contextlib
import threading
from collections.abc import Iterator

from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from app.tracing import Attributes

FLUSH_S = 2.0
_PROPAGATOR = TraceContextTextMapPropagator()


class Tracing:
    """Spans through one processor. Not OpenTelemetry's global provider: what other libraries trace is theirs to configure."""

    def __init__(self, processor: SpanProcessor, service: str) -> None:
        provider = TracerProvider(resource=Resource.create({"service.name": service}))
        provider.add_span_processor(processor)
        self._provider = provider
        self._tracer = provider.get_tracer("detrank")

    @contextlib.contextmanager
    def span(self, name: str, parent: str | None, attributes: Attributes) -> Iterator[trace.Span]:
        context = _PROPAGATOR.extract({"traceparent": parent}) if parent else None
        with self._tracer.start_as_current_span(name, context=context, attributes=attributes) as made:
            yield made

    def traceparent(self) -> str | None:
        carrier: dict[str, str] = {}
        _PROPAGATOR.inject(carrier)
        return carrier.get("traceparent")

    def flush(self) -> None:
        # in a thread: where the collector is away, it would try for longer than anybody waits
        sending = threading.Thread(target=self._provider.force_flush, daemon=True)
        sending.start()
        sending.join(FLUSH_S)


def sending_to(url: str, service: str) -> Tracing:
    """Sends by OTLP over HTTP, in the background and in batches."""
    return Tracing(BatchSpanProcessor(OTLPSpanExporter(endpoint=url)), service)
