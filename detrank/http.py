"""How the client talks to the service, as steps: requests that are tried again, events, files, failures."""

import contextlib
import json
import random
import uuid
from pathlib import Path
from typing import Any

import httpx

from detrank import sse
from detrank.errors import ProblemError, Unreachable
from detrank.steps import Ask, File, Open, Pause, Read, Record, Sent, Show, Steps, Stream
from detrank.uploads import SMALL_BYTES, send_resumable

TRIES = 4
TRY_AGAIN = frozenset({429, 502, 503, 504})
LONGEST_PAUSE_S = 60.0


def request(
    method: str,
    path: str,
    *,
    headers: dict[str, str] | None = None,
    params: Record | None = None,
    json: Any = None,
    content: bytes | File | None = None,
    once: bool = False,
) -> Steps[httpx.Response]:
    """One request, tried again where that is harmless. Raises ProblemError or Unreachable.

    A POST carries a key by which the service knows a repetition, and answers as it did the first time.
    once: the caller knows better when to try again.
    """
    headers = dict(headers or {})
    if method == "POST":
        headers.setdefault("Idempotency-Key", uuid.uuid4().hex)
    ask = Ask(method, path, headers, given(params or {}), json, content)
    for attempt in range(1, TRIES + 1):
        last = once or attempt == TRIES
        answer: httpx.Response | None = None
        try:
            answer = yield ask
        except httpx.HTTPError as failure:
            if last:
                raise _away(failure) from failure
        else:
            if answer.status_code not in TRY_AGAIN or last:
                return checked(answer)
        yield Pause(pause_before_next(attempt, answer))
    raise RuntimeError("the last attempt returns or raises")


def pause_before_next(attempt: int, answer: httpx.Response | None) -> float:
    """Seconds: twice as long each time, spread so that many clients do not come at once, and never less than was asked for."""
    wanted = answer.headers.get("Retry-After", "") if answer is not None else ""
    asked = float(wanted) if wanted.isdecimal() else 0.0
    return min(LONGEST_PAUSE_S, max(asked, 0.2 * 2**attempt) * random.uniform(1.0, 1.5))  # noqa: S311  # no secret


def get(path: str, **parameters: Any) -> Steps[Record]:
    record: Record = (yield from request("GET", path, params=parameters)).json()
    return record


def post(path: str, body: Record | None = None) -> Steps[Record]:
    record: Record = (yield from request("POST", path, json=body)).json()
    return record


def text(path: str, media_type: str) -> Steps[str]:
    return (yield from request("GET", path, headers={"Accept": media_type})).text


def content(path: str) -> Steps[bytes]:
    return (yield from request("GET", path, headers={"Accept": "*/*"})).content


def events(path: str, *, after: int | None = None) -> Stream[Record]:
    """Server-sent events as `{"id", "event", "data"}`; goes on where it was cut off. Raises ProblemError or Unreachable.

    id: None of an event that has no number of its own, as the last one has none.
    """
    last, failures = after, 0
    while True:
        headers = {"Accept": "text/event-stream"}
        if last is not None:
            headers["Last-Event-ID"] = str(last)
        try:
            answer: httpx.Response = yield Open(path, headers, timeout_s=30.0)
            checked(answer)
            if answer.status_code == httpx.codes.NO_CONTENT:  # it has ended, and all of it was seen
                return
            if not answer.headers.get("Content-Type", "").startswith("text/event-stream"):
                raise Unreachable(f"{answer.url} sends no events; is a detrank service there?")
            decoder = sse.Decoder()
            while (piece := (yield Read())) is not None:
                for event in decoder.feed(piece):
                    failures = 0
                    number = int(event.id) if event.id.isdecimal() else last
                    own = None if number == last else number
                    last = number
                    yield Show({"id": own, "event": event.event, "data": json.loads(event.data)})
                    if event.event == "end":
                        return
        except httpx.HTTPError as failure:
            failures += 1
            if failures >= TRIES:
                raise _away(failure) from failure
        yield Pause(0.5)


def fetch(path: str, file: Path, parameters: Record | None = None) -> Steps[Path]:
    """Puts what is at `path` into a file that appears when it is whole. Raises ProblemError or Unreachable."""
    part = file.with_name(f"{file.name}.part")
    try:
        checked((yield Open(path, {"Accept": "*/*"}, parameters)))
        with part.open("wb") as target:
            while (piece := (yield Read())) is not None:
                target.write(piece)
        part.replace(file)
        return file
    except httpx.HTTPError as failure:
        raise _away(failure) from failure
    finally:
        part.unlink(missing_ok=True)


def send(path: str, file: Path, fields: Record, on_sent: Sent | None = None) -> Steps[Record]:
    """A file as the raw body, or by a resumable upload where it is large."""
    size = file.stat().st_size
    if size > SMALL_BYTES:
        upload_id = yield from send_resumable(request, file, on_sent)
        return (yield from post(path, given(fields) | {"upload_id": upload_id}))
    body = File(file, on_sent) if size else b""
    headers = {"Content-Type": "application/octet-stream", "Content-Length": str(size)}
    answer = yield from request("POST", path, params=fields, content=body, headers=headers)
    record: Record = answer.json()
    return record


def checked(answer: httpx.Response) -> httpx.Response:
    """The answer where it is no failure. Raises ProblemError, and Unreachable for what no detrank service says."""
    if answer.is_success or answer.status_code == httpx.codes.NOT_MODIFIED:
        return answer
    problem: Any = None
    with contextlib.suppress(ValueError):
        problem = answer.json()
    if not isinstance(problem, dict) or not ("detail" in problem or "title" in problem):
        raise Unreachable(
            f"{answer.url} answered {answer.status_code} without a problem document; is a "
            "detrank service there?"
        )
    if isinstance(problem.get("type"), str):
        problem["type"] = str(answer.url.join(problem["type"]))
    raise ProblemError({"status": answer.status_code} | problem)


def given(fields: Record) -> Record:
    """The fields that are not None."""
    return {name: value for name, value in fields.items() if value is not None}


def _away(failure: httpx.HTTPError) -> Unreachable:
    try:
        url = failure.request.url
        where = f"{url.scheme}://{url.netloc.decode('ascii')}"
    except RuntimeError:  # the request was never made
        where = "the service"
    return Unreachable(f"{where} does not answer ({failure or type(failure).__name__})")
