"""One trace from the request to the worker, and nothing of it where none is configured."""

import subprocess
import sys

import httpx
import pytest
from running import running, small_zip

from app import tracing
from app.db.tables import Job
from app.queue import leases
from app.settings import Settings

CALLER = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.fixture
def spans():
    pytest.importorskip("opentelemetry.sdk", reason="the extra otel is not installed")
    pytest.importorskip("opentelemetry.exporter.otlp", reason="the extra otel is not installed")
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    from app.otel import Tracing

    exporter = InMemorySpanExporter()
    tracing.use(Tracing(SimpleSpanProcessor(exporter), "test"))
    yield exporter
    tracing.use(None)


def test_a_request_and_the_work_that_it_made_are_one_trace(spans, tmp_path):
    from worker.tasks import traced

    with running(Settings(data_dir=tmp_path, min_free_disk_bytes=0)) as service:
        answer = httpx.post(
            f"{service.url}/v1/datasets", content=small_zip(), headers={"traceparent": CALLER}
        )
        with service.database.unit_of_work() as session:
            claim = leases.claim(session, answer.json()["job_id"], "w", lease_s=60)
        with traced(claim), service.database.unit_of_work() as session:
            of_worker = tracing.traceparent()
            assert session.get(Job, claim.job.id).traceparent != of_worker
    request, job = spans.get_finished_spans()
    assert (request.name, job.name) == ("POST /v1/datasets", "job ingest")
    assert request.attributes["http.response.status_code"] == 202
    assert request.attributes["detrank.request_id"] == answer.headers["x-request-id"]
    assert job.attributes["detrank.job_id"] == claim.job.id
    assert f"{request.context.trace_id:032x}" == CALLER.split("-")[1]
    assert f"{request.parent.span_id:016x}" == CALLER.split("-")[2]
    assert job.context.trace_id == request.context.trace_id
    assert job.parent.span_id == request.context.span_id
    assert of_worker == f"00-{job.context.trace_id:032x}-{job.context.span_id:016x}-01"


def test_nonsense_for_a_context_begins_a_trace_of_its_own(spans):
    with tracing.span("x", "nonsense"):
        assert tracing.traceparent() is not None


def test_nothing_is_imported_where_none_are_configured():
    code = (
        "import sys, app.main, worker.tasks; from app.settings import Settings; app.main.create_app(Settings()); "
        "sys.exit(','.join(name for name in sys.modules if name.startswith('opentelemetry.sdk') or name == 'app.otel') or None)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
