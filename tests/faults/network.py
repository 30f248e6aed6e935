"""A wire between a program and a server that a test can cut, mend, or let go silent."""

import contextlib
import socket
import threading
from collections.abc import Iterator
from urllib.parse import urlsplit, urlunsplit


class Wire:
    """Forwards a local port to `host:port`. `mode`: forward; cut (connections end and are refused); silent (nothing passes)."""

    def __init__(self, host: str, port: int) -> None:
        self._target = (host, port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.mode = "forward"
        self._open: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def set(self, mode: str) -> None:
        self.mode = mode
        if mode == "cut":
            for one in self._open:
                with contextlib.suppress(OSError):
                    one.shutdown(socket.SHUT_RDWR)
            self._open.clear()

    def close(self) -> None:
        self.set("cut")
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                if self.mode == "cut":
                    near.close()
                    continue
                self._open.append(near)
                if self.mode == "forward":
                    far = socket.create_connection(self._target)
                    self._open.append(far)
                    for source, sink in ((near, far), (far, near)):
                        threading.Thread(target=self._pump, args=(source, sink), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                if self.mode == "forward":
                    sink.sendall(data)
        for one in (source, sink):
            with contextlib.suppress(OSError):
                one.close()


@contextlib.contextmanager
def wired(url: str, default_port: int) -> Iterator[tuple[Wire, str]]:
    """A wire to the server of `url`, and the URL that goes through it."""
    parts = urlsplit(url)
    wire = Wire(parts.hostname or "127.0.0.1", parts.port or default_port)
    user = parts.netloc.rpartition("@")[0]
    try:
        yield (
            wire,
            urlunsplit(
                parts._replace(netloc=f"{user}@127.0.0.1:{wire.port}" if user else f"127.0.0.1:{wire.port}")
            ),
        )
    finally:
        wire.close()
