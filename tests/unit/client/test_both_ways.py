"""One code base, two clients: what holds for the one that blocks holds for the one that is awaited."""

import asyncio
import inspect
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import httpx
import pytest

import detrank
from detrank import AsyncClient, Client, ProblemError, Unreachable
from detrank.resource import Resource

STREAM = "id: 4\nevent: progress\ndata: 1\n\nid: 5\nevent: end\ndata: {}\n\n"
Handler = Callable[[httpx.Request], httpx.Response]


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Seconds that would have been waited here; a service of other tests in a thread of its own waits as ever."""
    waited: list[float] = []
    here, sleep, async_sleep = threading.get_ident(), time.sleep, asyncio.sleep

    def asleep(seconds: float) -> None:
        waited.append(seconds) if threading.get_ident() == here else sleep(seconds)

    async def awaited(seconds: float) -> None:
        waited.append(seconds) if threading.get_ident() == here else await async_sleep(seconds)

    monkeypatch.setattr("time.sleep", asleep)
    monkeypatch.setattr("asyncio.sleep", awaited)
    return waited


def both(handler: Handler) -> tuple[Client, AsyncClient]:
    told = {"url": "http://detrank.test", "key": "detrank_key"}
    return (
        Client(**told, transport=httpx.MockTransport(handler)),
        AsyncClient(**told, transport=httpx.MockTransport(handler)),
    )


def answers(request: httpx.Request) -> httpx.Response:
    """A small service."""
    assert request.headers["Authorization"] == "Bearer detrank_key"
    path = request.url.path
    if path.endswith("/events"):
        return httpx.Response(200, text=STREAM, headers={"Content-Type": "text/event-stream"})
    if path.endswith("/weights"):
        return httpx.Response(200, content=b"weights" * 300_000)
    if request.method == "POST":
        return httpx.Response(202, json={"id": "ds_1", "sent": len(request.content)})
    if path == "/v1/jobs":
        return httpx.Response(200, json={"items": [{"id": "job_1"}, {"id": "job_2"}], "next_cursor": None})
    if path == "/v1/jobs/job_0":
        return httpx.Response(404, json={"detail": "there is no job job_0", "code": "not_found"})
    return httpx.Response(200, json={"id": path.rpartition("/")[2], "state": "succeeded"})


def test_what_is_returned_by_one_is_awaited_of_the_other(tmp_path: Path) -> None:
    blocking, awaited = both(answers)
    archive = tmp_path / "a.zip"
    archive.write_bytes(b"x" * 3_000_000)

    async def asked() -> list[object]:
        async with awaited as service:
            file = await service.checkpoints.download("ckpt_1", tmp_path / "b.safetensors")
            return [
                await service.rankings.wait("rk_1"),
                [job.id async for job in service.jobs.list()],
                [event["event"] async for event in service.jobs.events("job_1")],
                (await service.datasets.add(archive))["sent"],
                file.stat().st_size,
            ]

    with blocking as service:
        file = service.checkpoints.download("ckpt_1", tmp_path / "a.safetensors")
        found = [
            service.rankings.wait("rk_1"),
            [job.id for job in service.jobs.list()],
            [event["event"] for event in service.jobs.events("job_1")],
            service.datasets.add(archive)["sent"],
            file.stat().st_size,
        ]
    assert found == asyncio.run(asked())
    assert found[1:] == [["job_1", "job_2"], ["progress", "end"], 3_000_000, 2_100_000]
    assert type(found[0]) is detrank.Ranking


def test_both_fail_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    def away(_: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused")

    async def asked(handler: Handler) -> None:
        async with both(handler)[1] as service:
            await service.jobs.get("job_0")

    with pytest.raises(ProblemError, match="no job job_0") as caught:
        asyncio.run(asked(answers))
    assert caught.value.code == "not_found"
    assert caught.value.status == 404
    monkeypatch.setattr("detrank.http.TRIES", 1)
    with pytest.raises(Unreachable, match=r"http://detrank\.test does not answer"):
        asyncio.run(asked(away))


@pytest.mark.parametrize("way", ["blocking", "awaited"])
def test_a_busy_service_is_left_alone_for_as_long_as_it_asks(way: str, pauses: list[float]) -> None:
    seen: list[str] = []

    def busy(request: httpx.Request) -> httpx.Response:
        seen.append(request.headers["Idempotency-Key"])
        if len(seen) < 3:
            return httpx.Response(503, json={"title": "busy"}, headers={"Retry-After": "7"})
        return httpx.Response(202, json={"id": "job_1"})

    blocking, awaited = both(busy)
    if way == "blocking":
        blocking.jobs.cancel("job_1")
    else:
        asyncio.run(awaited.jobs.cancel("job_1"))  # type: ignore[arg-type]  # a coroutine
    assert len(set(seen)) == 1
    assert len(pauses) == 2
    assert all(7 <= pause <= 10.5 for pause in pauses)
    assert pauses[0] != pauses[1], "they are spread"


def test_streams_of_one_client_do_not_take_from_each_other() -> None:
    async def both_at_once() -> list[list[str]]:
        async with both(answers)[1] as service:

            async def read(id: str) -> list[str]:
                return [event["event"] async for event in service.jobs.events(id)]

            return await asyncio.gather(read("job_1"), read("job_2"))

    assert asyncio.run(both_at_once()) == [["progress", "end"], ["progress", "end"]]
    service, _ = both(answers)
    first, second = service.jobs.events("job_1"), service.jobs.events("job_2")
    assert [next(first)["event"], next(second)["event"], next(first)["event"]] == [
        "progress",
        "progress",
        "end",
    ]


class Cut(httpx.AsyncByteStream, httpx.SyncByteStream):
    """Half an event, and then nothing more."""

    def __iter__(self):
        yield b"id: 4\nevent: progress\ndata: 1\n\nid: 5\neve"
        raise httpx.ReadError("cut off")

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for piece in self:
            yield piece


@pytest.mark.usefixtures("pauses")
def test_a_stream_that_broke_goes_on_after_the_last_event() -> None:
    asked: list[str | None] = []

    def handler(request: httpx.Request) -> httpx.Response:
        asked.append(request.headers.get("Last-Event-ID"))
        headers = {"Content-Type": "text/event-stream"}
        if len(asked) == 1:
            return httpx.Response(200, stream=Cut(), headers=headers)
        return httpx.Response(200, text=STREAM.partition("\n\n")[2], headers=headers)

    service, _ = both(handler)
    assert [event["id"] for event in service.jobs.events("job_1")] == [4, 5]
    assert asked == [None, "4"]


def test_methods_tell_their_parameters_and_what_they_do() -> None:
    service, _ = both(answers)
    assert list(inspect.signature(service.rankings.create).parameters) == [
        "dataset_id",
        "checkpoint_ids",
        "fields",
    ]
    for resource in [one for one in vars(service).values() if isinstance(one, Resource)]:
        assert type(resource).__doc__
        for name in dir(resource):
            if not name.startswith("_") and callable(method := getattr(resource, name)) and name != "kind":
                assert inspect.signature(method) is not None
    assert "same at every call" in (detrank.connect.__doc__ or "")


HIDDEN = """
import sys
class Hidden:
    def find_spec(self, name, *_):
        if name.partition(".")[0] in {hidden}:
            raise ImportError(name)
sys.meta_path.insert(0, Hidden())
import detrank
detrank.Client("http://nowhere.test").close()
assert type(detrank.progress.bars(True)) is detrank.Bars
"""


def test_it_needs_httpx_and_nothing_of_ours() -> None:
    ours = {"app", "worker", "models_store"}
    others = {"torch", "numpy", "pydantic", "fastapi", "rich", "tqdm", "pandas", "httpx_sse", "fcntl"}
    code = HIDDEN.format(hidden=ours | others)
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
