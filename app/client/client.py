"""The Python client of the service; also the only HTTP code of the command line.

    from app.client import Client
    with Client("http://127.0.0.1:8000") as service:
        dataset = service.datasets.wait(service.datasets.add("set.zip")["id"])
        ranking = service.rankings.create(dataset["id"], ["ckpt_..."])
        print(service.rankings.wait(ranking["id"])["candidates"])

Answers are the service's own documents, as dictionaries.
"""

import contextlib
import json
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Self

import httpx

from app.client.resources import (
    Checkpoints,
    Datasets,
    Jobs,
    Rankings,
    Searches,
    Studies,
    Verifications,
    given,
)
from app.client.uploads import SMALL_BYTES, send_resumable, streamed

Record = dict[str, Any]
Sent = Callable[[int, int], None]

TRIES = 4
TRY_AGAIN = frozenset({502, 503, 504})


class ProblemError(Exception):
    """The service refused; `problem` is its RFC 9457 document."""

    def __init__(self, problem: Record) -> None:
        super().__init__(problem.get("detail") or problem.get("title") or "the service refused")
        self.problem = problem

    @property
    def status(self) -> int:
        return int(self.problem.get("status") or 0)


class Unreachable(Exception):
    """No answer, or none that this client understands."""


class Client:
    """One service. `key` is an API key, where the service asks for one. Not for sharing between threads."""

    def __init__(
        self, url: str, key: str | None = None, *, timeout_s: float = 60.0, transport: httpx.BaseTransport | None = None
    ) -> None:
        headers = {"Accept": "application/json"} | ({"Authorization": f"Bearer {key}"} if key else {})
        self.url = url.rstrip("/")
        self._http = httpx.Client(
            base_url=self.url, headers=headers, timeout=timeout_s, transport=transport, follow_redirects=False
        )
        self.datasets = Datasets(self, "datasets")
        self.checkpoints = Checkpoints(self, "checkpoints")
        self.rankings = Rankings(self, "rankings")
        self.verifications = Verifications(self, "verifications")
        self.searches = Searches(self, "searches")
        self.studies = Studies(self, "studies")
        self.jobs = Jobs(self, "jobs")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._http.close()

    def request(self, method: str, path: str, **options: Any) -> httpx.Response:
        """One request, tried again where that is harmless; raises ProblemError or Unreachable."""
        headers = dict(options.pop("headers", None) or {})
        once = options.pop("once", False)
        if method == "POST":
            headers.setdefault("Idempotency-Key", uuid.uuid4().hex)
        for attempt in range(1, TRIES + 1):
            last = once or attempt == TRIES
            try:
                answer = self._http.request(method, path, headers=headers, **options)
            except httpx.HTTPError as failure:
                if last:
                    raise Unreachable(f"{self.url} does not answer ({failure or type(failure).__name__})") from failure
            else:
                if answer.status_code not in TRY_AGAIN or last:
                    return _checked(answer)
            time.sleep(0.2 * 2**attempt)
        raise AssertionError("the last attempt returns or raises")

    def get(self, path: str, **parameters: Any) -> Record:
        return self.request("GET", path, params=given(parameters)).json()

    def post(self, path: str, body: Record | None = None) -> Record:
        return self.request("POST", path, json=body).json()

    def catalogue(self, name: str) -> list[Record]:
        """`metrics`, `layers`, `architectures` or `recipes`, as this service offers them."""
        answer = self.get(f"/v1/{name}")
        return answer["items"]

    def workers(self) -> list[Record]:
        """Worker processes that were heard of, the latest first."""
        return self.get("/v1/workers")["items"]

    def events(self, path: str, *, after: int | None = None) -> Iterator[Record]:
        """Server-sent events of a job, ranking or verification: `{"id", "event", "data"}`; takes up where it stopped when cut off."""
        last, failures = after, 0
        while True:
            headers = {"Accept": "text/event-stream"} | ({"Last-Event-ID": str(last)} if last is not None else {})
            try:
                with self._http.stream("GET", path, headers=headers, timeout=httpx.Timeout(30.0)) as answer:
                    if answer.is_error:
                        answer.read()
                    _checked(answer)
                    for event in _parsed(answer.iter_lines()):
                        failures = 0
                        last = event["id"] if event["id"] is not None else last
                        yield event
                        if event["event"] == "end":
                            return
            except httpx.HTTPError as failure:
                failures += 1
                if failures >= TRIES:
                    raise Unreachable(f"{self.url} stopped sending events ({failure})") from failure
            time.sleep(0.5)

    def fetch(self, path: str, file: Path, parameters: Record) -> None:
        """What is at `path`, into a file that appears when it is whole. Raises ProblemError or Unreachable."""
        part = file.with_name(f"{file.name}.part")
        try:
            with self._http.stream("GET", path, params=parameters) as answer, part.open("wb") as target:
                if answer.is_error:
                    answer.read()
                _checked(answer)
                for piece in answer.iter_bytes(1 << 20):
                    target.write(piece)
            part.replace(file)
        except httpx.HTTPError as failure:
            raise Unreachable(f"{self.url} stopped sending ({failure or type(failure).__name__})") from failure
        finally:
            part.unlink(missing_ok=True)

    def send(self, path: str, file: Path, fields: Record, *, on_sent: Sent | None = None) -> Record:
        """A file as the raw body, or by a resumable upload where it is large."""
        size = file.stat().st_size
        if size <= SMALL_BYTES:
            content = streamed(file, on_sent) if size else b""
            headers = {"Content-Type": "application/octet-stream", "Content-Length": str(size)}
            return self.request(
                "POST", path, params=given(fields), content=content, headers=headers, once=True
            ).json()
        upload_id = send_resumable(self.request, file, on_sent, unreachable=Unreachable)
        return self.post(path, given(fields) | {"upload_id": upload_id})


def _checked(answer: httpx.Response) -> httpx.Response:
    if answer.is_success or answer.status_code == httpx.codes.NOT_MODIFIED:
        return answer
    problem: Any = None
    with contextlib.suppress(ValueError):
        problem = answer.json()
    if not isinstance(problem, dict) or not ("detail" in problem or "title" in problem):
        raise Unreachable(
            f"{answer.url} answered {answer.status_code} without a problem document; is a detrank service there?"
        )
    raise ProblemError({"status": answer.status_code} | problem)


def _parsed(lines: Iterator[str]) -> Iterator[Record]:
    event: Record = {"id": None, "event": "message", "data": []}
    for line in lines:
        if line:
            field, _, value = line.partition(":")
            value = value.removeprefix(" ")
            if field == "data":
                event["data"].append(value)
            elif field == "id":
                event["id"] = int(value) if value.isdigit() else None
            elif field == "event":
                event["event"] = value
            continue
        if event["data"]:
            yield event | {"data": json.loads("\n".join(event["data"]))}
        event = {"id": None, "event": "message", "data": []}
