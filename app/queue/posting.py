"""One POST to an address that a user named: never to a private network, never for longer than allowed, never elsewhere.

Every address of the name must be public, and the connection goes to one of them (`outbound`). Redirects are not followed.
"""

import contextlib
import http.client
import socket
import ssl
import threading
from collections.abc import Iterator, Mapping
from urllib.parse import SplitResult, urlsplit

from app.queue.deliveries import ANSWER_CHARACTERS, Outcome
from outbound.addresses import NotPublic, connected

TIMEOUT_S = 10.0
PORTS = {"http": 80, "https": 443}


def post(url: str, body: bytes, headers: Mapping[str, str], *, allow_private: bool) -> Outcome:
    """Sends `body`. Whatever goes wrong is an outcome with the reason; a redirect is an answer like any other."""
    try:
        return _post(urlsplit(url), body, headers, allow_private)
    except (NotPublic, OSError, http.client.HTTPException, ValueError) as failure:
        return Outcome(None, f"{type(failure).__name__}: {failure}")


def _post(url: SplitResult, body: bytes, headers: Mapping[str, str], allow_private: bool) -> Outcome:
    host, port = url.hostname or "", url.port or PORTS[url.scheme]
    kind = http.client.HTTPSConnection if url.scheme == "https" else http.client.HTTPConnection
    connection = kind(host, port, timeout=TIMEOUT_S)
    with contextlib.closing(connection):
        connection.sock = connected(host, port, TIMEOUT_S, allow_private=allow_private)
        with _for_at_most(TIMEOUT_S, connection.sock):
            if url.scheme == "https":
                secure = ssl.create_default_context()
                connection.sock = secure.wrap_socket(connection.sock, server_hostname=host)
            target = (url.path or "/") + (f"?{url.query}" if url.query else "")
            connection.request("POST", target, body, dict(headers))
            answer = connection.getresponse()
            text = answer.read(ANSWER_CHARACTERS).decode("utf-8", "replace")
        return Outcome(answer.status, text)


@contextlib.contextmanager
def _for_at_most(seconds: float, sock: socket.socket) -> Iterator[None]:
    """Ends the connection after so long: a timeout of a socket is for each byte alone."""
    # the descriptor of its own survives that TLS takes the socket over
    handle = sock.dup()

    def end() -> None:
        with contextlib.suppress(OSError):
            handle.shutdown(socket.SHUT_RDWR)

    timer = threading.Timer(seconds, end)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        handle.close()
