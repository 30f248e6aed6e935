"""Does the steps of `steps.py`, blocking or awaited."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Generator, Iterator
from contextlib import AsyncExitStack, ExitStack
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import httpx

from detrank.embedded import Address
from detrank.steps import Ask, File, Pause, Read, Show, Step, Steps, Stream

T = TypeVar("T")


@dataclass(frozen=True)
class Options:
    """How to talk to a service. key: an API key, where it asks for one."""

    key: str | None = None
    timeout_s: float = 60.0
    transport: Any = None  # an httpx transport, such as one that answers without a network

    def of(self, url: str) -> dict[str, Any]:
        headers = {"Accept": "application/json"}
        if self.key:
            headers["Authorization"] = f"Bearer {self.key}"
        return {
            "base_url": url,
            "headers": headers,
            "timeout": self.timeout_s,
            "transport": self.transport,
            "follow_redirects": False,
        }


@dataclass(frozen=True)
class _Ended(Generic[T]):
    value: T


def _next(course: Generator[Any, Any, T], outcome: Any) -> Step | Show[Any] | _Ended[T]:
    """What is wanted next, after this came of what was wanted before; a failure goes to where it was wanted."""
    try:
        return course.throw(outcome) if isinstance(outcome, httpx.HTTPError) else course.send(outcome)
    except StopIteration as end:
        return _Ended(end.value)


class _Opened:
    """The answer that is being read, of one call or stream."""

    def __init__(self) -> None:
        self.stack = ExitStack()
        self.pieces: Iterator[bytes] = iter(())


class _OpenedAwaiting:
    """The same where it is awaited."""

    def __init__(self) -> None:
        self.stack = AsyncExitStack()
        self.pieces: AsyncIterator[bytes]


class Blocking:
    """Does every step before it returns. Not for sharing between threads."""

    def __init__(self, address: Address, options: Options) -> None:
        self.address, self._options = address, options
        self._http: httpx.Client | None = None

    def call(self, steps: Steps[T]) -> T:
        opened = _Opened()
        with contextlib.closing(steps), opened.stack:
            while not isinstance(step := self._until_shown(steps, opened), _Ended):
                pass
            return step.value

    def stream(self, steps: Stream[T]) -> Iterator[T]:
        opened = _Opened()
        with contextlib.closing(steps), opened.stack:
            while isinstance(step := self._until_shown(steps, opened), Show):
                yield step.item

    def close(self) -> None:
        if self._http is not None:
            self._http.close()
        self.address.release()

    def _until_shown(self, steps: Generator[Any, Any, T], opened: _Opened) -> Show[Any] | _Ended[T]:
        outcome: Any = None
        while not isinstance(step := _next(steps, outcome), Show | _Ended):
            try:
                outcome = self._do(step, opened)
            except httpx.HTTPError as failure:
                outcome = failure
        return step

    def _do(self, step: Step, opened: _Opened) -> Any:
        if isinstance(step, Pause):
            time.sleep(step.seconds)
            return None
        if isinstance(step, Read):
            return next(opened.pieces, None)
        if self._http is None:
            self._http = httpx.Client(**self._options.of(self.address.url))
        if isinstance(step, Ask):
            content = step.content.pieces() if isinstance(step.content, File) else step.content
            return self._http.request(content=content, **step.request())
        opened.stack.close()
        answer = opened.stack.enter_context(self._http.stream(**step.request()))
        if answer.is_error:
            answer.read()
        opened.pieces = answer.iter_bytes()
        return answer


class Awaiting:
    """Every call is awaited, every stream is iterated with `async for`; for one event loop."""

    def __init__(self, address: Address, options: Options) -> None:
        self.address, self._options = address, options
        self._http: httpx.AsyncClient | None = None

    async def call(self, steps: Steps[T]) -> T:
        opened = _OpenedAwaiting()
        async with opened.stack:
            while not isinstance(step := await self._until_shown(steps, opened), _Ended):
                pass
            return step.value

    async def stream(self, steps: Stream[T]) -> AsyncIterator[T]:
        opened = _OpenedAwaiting()
        async with opened.stack:
            while isinstance(step := await self._until_shown(steps, opened), Show):
                yield step.item

    async def close(self) -> None:
        if self._http is not None:
            await self._http.aclose()
        await asyncio.to_thread(self.address.release)

    async def _until_shown(
        self, steps: Generator[Any, Any, T], opened: _OpenedAwaiting
    ) -> Show[Any] | _Ended[T]:
        outcome: Any = None
        while not isinstance(step := _next(steps, outcome), Show | _Ended):
            try:
                outcome = await self._do(step, opened)
            except httpx.HTTPError as failure:
                outcome = failure
        return step

    async def _do(self, step: Step, opened: _OpenedAwaiting) -> Any:
        if isinstance(step, Pause):
            await asyncio.sleep(step.seconds)
            return None
        if isinstance(step, Read):
            return await anext(opened.pieces, None)
        # the address may be that of a service which has to be started first
        url = await asyncio.to_thread(lambda: self.address.url)
        if self._http is None:
            self._http = httpx.AsyncClient(**self._options.of(url))
        if isinstance(step, Ask):
            content = _awaited(step.content) if isinstance(step.content, File) else step.content
            return await self._http.request(content=content, **step.request())
        await opened.stack.aclose()
        answer = await opened.stack.enter_async_context(self._http.stream(**step.request()))
        if answer.is_error:
            await answer.aread()
        opened.pieces = answer.aiter_bytes()
        return answer


async def _awaited(file: File) -> AsyncIterator[bytes]:
    for piece in file.pieces():
        yield piece
