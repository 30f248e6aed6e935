"""A stretch of code that cannot connect to private networks, whatever client of HTTP it uses and wherever that is redirected.

Every such client looks a name up by `socket.getaddrinfo` and connects to one of the addresses that it was given. Under the guard
that look-up refuses names that lead to a private network, so what was checked is what is connected to, for each redirect anew.
Servers that whoever runs this machine named himself, and his proxies, may be anywhere; behind a proxy the proxy looks names up
and decides.
"""

import contextlib
import functools
import socket
import urllib.request
from collections.abc import Callable, Iterable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from outbound.addresses import NotPublic, refuse_private

PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True)
class Watch:
    """named: gives the URLs of servers that may be anywhere; asked for only when it matters. refused: what was, in order."""

    named: Callable[[], Iterable[str]]
    refused: list[NotPublic] = field(default_factory=list)


_watch: ContextVar[Watch | None] = ContextVar("watch", default=None)


@contextlib.contextmanager
def public_only(named: Callable[[], Iterable[str]] = tuple) -> Iterator[Watch]:
    """Within it, in this thread, connecting to a private network raises NotPublic; what was refused is on the Watch.

    What it leads to in a client is the client's: look at `refused` where something else was raised.
    """
    _install()
    before, watch = _watch.get(), Watch(named)
    _watch.set(watch)
    try:
        yield watch
    finally:
        # not by a token: a generator may be closed in another context
        _watch.set(before)


def socket_for(named: Callable[[], Iterable[str]]) -> Callable[[tuple[Any, ...]], socket.socket]:
    """Makes sockets for clients that connect in threads and loops of their own, such as aiohttp (`socket_factory`).

    It is given each address before it is connected to, and raises NotPublic for one in a private network that none of the
    servers of `named`, and no proxy, has.
    """

    def made(address: tuple[Any, ...]) -> socket.socket:
        family, kind, protocol, _, place = address
        try:
            refuse_private(str(place[0]), [address])
        except NotPublic:
            if (place[0], place[1]) not in _places_of(named):
                raise
        return socket.socket(family, kind, protocol)

    return made


def _places_of(named: Callable[[], Iterable[str]]) -> set[tuple[str, int]]:
    """(address, port) of each server that may be anywhere."""
    found: set[tuple[str, int]] = set()
    for url in (*urllib.request.getproxies().values(), *named()):
        host, port = place_of(url)
        with contextlib.suppress(OSError):
            found |= {(str(answer[-1][0]), port) for answer in socket.getaddrinfo(host, port)}
    return found


def is_on() -> bool:
    """Whether this code runs under the guard."""
    return _watch.get() is not None


def place_of(url: str) -> tuple[str, int]:
    """(host, port) of a URL; a proxy may be written without its scheme."""
    parts = urlsplit(url if "://" in url else f"http://{url}")
    return (parts.hostname or "").lower(), parts.port or PORTS.get(parts.scheme, 443)


def _install() -> None:
    """Puts the check around the look-up; again where somebody else has put another one in its place."""
    if not getattr(socket.getaddrinfo, "keeps_outside", False):
        socket.getaddrinfo = _checking(socket.getaddrinfo)


def _checking(look_up: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(look_up)
    def checked(host: Any, port: Any, *more: Any, **options: Any) -> Any:
        found = look_up(host, port, *more, **options)
        watch = _watch.get()
        if watch is None:
            return found
        name = host.decode() if isinstance(host, bytes) else str(host)
        try:
            refuse_private(name, found)
        except NotPublic as refusal:
            urls = [*urllib.request.getproxies().values(), *watch.named()]
            if (name.lower(), port) not in {place_of(url) for url in urls}:
                watch.refused.append(refusal)
                raise
        return found

    vars(checked)["keeps_outside"] = True
    return checked
