"""Methods that are made of steps, and do what their owner's driver does: block, or be awaited."""

import functools
import types
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any, Concatenate, Generic, ParamSpec, TypeVar, overload

from detrank.drivers import Awaiting, Blocking
from detrank.steps import Steps, Stream

P = ParamSpec("P")
T = TypeVar("T")
IO = TypeVar("IO", Blocking, Awaiting)


class Has(Generic[IO]):
    """Whatever has methods made of steps."""

    io: IO


class call(Generic[P, T]):
    """A method made of steps: it returns what they come to, or an awaitable of it, as its owner's driver does."""

    def __init__(self, steps: Callable[Concatenate[Any, P], Steps[T]]) -> None:
        self.steps = steps
        self.__doc__, self.__name__ = steps.__doc__, steps.__name__

    @overload
    def __get__(self, owner: Has[Blocking], kind: Any = None) -> Callable[P, T]: ...
    @overload
    def __get__(self, owner: Has[Awaiting], kind: Any = None) -> Callable[P, Awaitable[T]]: ...
    def __get__(self, owner: Any, kind: Any = None) -> Any:
        return self if owner is None else _bound(self.steps, owner, owner.io.call)


class stream(Generic[P, T]):
    """The same for what is iterated, with `for` or with `async for`."""

    def __init__(self, steps: Callable[Concatenate[Any, P], Stream[T]]) -> None:
        self.steps = steps
        self.__doc__, self.__name__ = steps.__doc__, steps.__name__

    @overload
    def __get__(self, owner: Has[Blocking], kind: Any = None) -> Callable[P, Iterator[T]]: ...
    @overload
    def __get__(self, owner: Has[Awaiting], kind: Any = None) -> Callable[P, AsyncIterator[T]]: ...
    def __get__(self, owner: Any, kind: Any = None) -> Any:
        return self if owner is None else _bound(self.steps, owner, owner.io.stream)


def _bound(steps: Callable[..., Any], owner: Any, run: Callable[..., Any]) -> types.MethodType:
    # a method, so that help() and signature() tell the parameters of the steps
    @functools.wraps(steps)
    def called(owner: Any, *args: Any, **options: Any) -> Any:
        return run(steps(owner, *args, **options))

    return types.MethodType(called, owner)
