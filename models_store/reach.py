"""Whether a server can be reached at all, found out in a few seconds: clients of hubs try for minutes. No torch here."""

from __future__ import annotations

import contextvars
import socket
import threading
import time
import urllib.request
from urllib.parse import urlsplit

from outbound.addresses import NotPublic

CONNECT_S = 3.0
KEPT_S = 30.0
PORTS = {"http": 80, "https": 443}
_known: dict[tuple[str, int], tuple[float, str | None]] = {}


def why_unreachable(url: str) -> str | None:
    """Why no connection to the server of ``url`` (or to the proxy that leads there) can be made; None where it can.

    Takes at most ``CONNECT_S`` seconds, the look-up of the name included, and remembers the answer for ``KEPT_S``. Raises
    NotPublic under the guard of ``outbound``.
    """
    parts = urlsplit(url)
    host, port = parts.hostname or "", parts.port or PORTS.get(parts.scheme, 443)
    proxy = urllib.request.getproxies().get(parts.scheme)
    if proxy and not urllib.request.proxy_bypass(host):
        through = urlsplit(proxy if "://" in proxy else f"http://{proxy}")
        host, port = through.hostname or "", through.port or PORTS.get(through.scheme, 80)
    when, reason = _known.get((host, port), (-KEPT_S, None))
    if time.monotonic() - when > KEPT_S:
        reason = _tried(host, port)
        _known[host, port] = time.monotonic(), reason
    return reason


def _tried(host: str, port: int) -> str | None:
    # A name server that does not answer holds the look-up for longer than any timeout of a socket.
    found: list[str | NotPublic | None] = []

    def attempt() -> None:
        try:
            socket.create_connection((host, port), timeout=CONNECT_S).close()
            found.append(None)
        except OSError as error:
            found.append(f"{host}:{port} cannot be reached ({error})")
        except NotPublic as refusal:
            found.append(refusal)

    # in the context of the caller, so under his guard
    thread = threading.Thread(target=contextvars.copy_context().run, args=(attempt,), daemon=True)
    thread.start()
    thread.join(CONNECT_S)
    said = found[0] if found else f"{host}:{port} does not answer within {CONNECT_S:g} s"
    if isinstance(said, NotPublic):
        raise said
    return said
