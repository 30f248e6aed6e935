"""Traces as a collector gets them: by OTLP over HTTP from real processes, one trace from the request to the work of its jobs."""

from pathlib import Path
from types import SimpleNamespace

import httpx
import pytest

from tests.deployments import deployment
from tests.faults.works import RANKING, archive, weights
from tests.receiver import Receiver, receiving

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

pytest.importorskip("opentelemetry.exporter.otlp.proto.http", reason="the extra otel is not installed")
CALLER = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
PATIENCE_S = 60


def spans(receiver: Receiver) -> list[SimpleNamespace]:
    """All that arrived, with the name of the service that sent it."""
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

    found = []
    for path, headers, body in list(receiver.got):
        assert (path, headers["content-type"]) == ("/hook", "application/x-protobuf")
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            about = {one.key: one.value.string_value for one in resource.resource.attributes}
            for scope in resource.scope_spans:
                for span in scope.spans:
                    values = {
                        one.key: one.value.string_value or one.value.int_value for one in span.attributes
                    }
                    found.append(
                        SimpleNamespace(
                            service=about["service.name"],
                            name=span.name,
                            trace=span.trace_id.hex(),
                            id=span.span_id.hex(),
                            parent=span.parent_span_id.hex(),
                            seconds=(span.end_time_unix_nano - span.start_time_unix_nano) / 1e9,
                            about=values,
                        )
                    )
    return found


def test_a_ranking_is_one_trace_from_the_request_to_the_worker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # by itself nothing is sent within the test: what arrives, a process sent when it was told to end
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "3600000")
    with receiving() as collector:
        collector.answer = lambda _: (200, {})
        with deployment(tmp_path / "home", TRACES_URL=collector.url) as running:
            client = running.client
            url = client.url
            body = {"architecture": "torchvision/squeezenet1_1"}
            dataset = httpx.post(f"{url}/v1/datasets", content=archive(1)).json()
            checkpoint = httpx.post(f"{url}/v1/checkpoints", params=body, content=weights(1)).json()
            assert client.datasets.wait(dataset["id"], timeout_s=PATIENCE_S)["state"] == "ready"
            assert client.checkpoints.wait(checkpoint["id"], timeout_s=PATIENCE_S)["state"] == "ready"
            asked = RANKING | {"dataset_id": dataset["id"], "checkpoint_ids": [checkpoint["id"]]}
            answer = httpx.post(f"{url}/v1/rankings", json=asked, headers={"traceparent": CALLER})
            ranking = answer.json()
            assert client.rankings.wait(ranking["id"], timeout_s=PATIENCE_S)["state"] == "succeeded"
            running.worker.terminate()
            running.worker.wait(30)
    trace = CALLER.split("-")[1]
    mine = [one for one in spans(collector) if one.trace == trace]
    (request,) = [one for one in mine if one.service == "detrank-api"]
    jobs = [one for one in mine if one.service == "detrank-worker"]
    assert (request.name, request.parent) == ("POST /v1/rankings", CALLER.split("-")[2])
    assert request.about["http.response.status_code"] == 202
    assert sorted(one.name for one in jobs) == ["job rank", "job score"]
    assert {one.parent for one in jobs} == {request.id}
    ids = {ranking["job_id"], ranking["candidates"][0]["job_id"]}
    assert {one.about["detrank.job_id"] for one in jobs} == ids
    assert all(one.seconds > 0 for one in mine)
    # what others asked for meanwhile are traces of their own
    ingest = next(one for one in spans(collector) if one.name == "job ingest")
    assert ingest.trace != trace
