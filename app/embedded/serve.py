"""`detrank serve`: the API, and on the embedded deployment a migrated database and workers beside it."""

import contextlib
import ipaddress
import signal
import socket
import sys
import threading
from collections.abc import Callable

import uvicorn

from app.db.migrate import is_current, upgrade
from app.embedded.announcing import announce, announced
from app.embedded.lanes import workers
from app.embedded.supervisor import stop_when_stdin_closes
from app.main import create_app
from app.settings import Settings


class Refused(Exception):
    """Not started, and what to do about it."""


def serve(settings: Settings, host: str, port: int, *, worker: bool, while_stdin: bool = False) -> None:
    """Serves until SIGINT or SIGTERM. Raises Refused or embedded.AlreadyRunning before anything is started."""
    refuse_open_door(host, settings)
    listener = _listener(host, port)
    url = address(host, listener.getsockname()[1])
    with contextlib.ExitStack() as stack:
        stack.enter_context(contextlib.closing(listener))
        if settings.embedded:
            stack.enter_context(announced(settings.home))
        # before the worker starts, which would meet a database without tables
        _prepare_database(settings)
        server = _Server(
            uvicorn.Config(
                create_app(settings),
                log_config=None,
                log_level="warning",
                timeout_graceful_shutdown=5,
                proxy_headers=False,
            ),
            on_started=lambda: _say(settings, url),
        )
        # uvicorn raises the signal again once it has ended: these keep that from ending us before the worker has
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: setattr(server, "should_exit", True))
        if while_stdin:
            threading.Thread(target=stop_when_stdin_closes, daemon=True).start()
        if worker:
            stack.enter_context(workers(settings))
        server.run(sockets=[listener])
        if not server.started:
            raise Refused("the service did not start; the reason stands above")


def is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def refuse_open_door(host: str, settings: Settings) -> None:
    """Raises Refused where anyone on the network could use the service without a key."""
    if settings.auth != "keys" and not is_loopback(host):
        raise Refused(
            f"{host} can be reached from other machines and no API keys are asked for. Set DETRANK_AUTH=keys and make a "
            "key with `detrank keys create NAME`, or serve on 127.0.0.1."
        )


def address(host: str, port: int) -> str:
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _prepare_database(settings: Settings) -> None:
    """Servers are migrated once, by whoever runs them, not by each process that starts."""
    if settings.embedded:
        upgrade(settings.resolved_database_url)
    elif not is_current(settings.resolved_database_url):
        raise Refused("the database does not have the schema of this version; run `detrank migrate` first")


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, on_started: Callable[[], None]) -> None:
        super().__init__(config)
        self._on_started = on_started

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self._on_started()


def _say(settings: Settings, url: str) -> None:
    if settings.embedded:
        announce(settings.home, url)
    sys.stderr.write(f"detrank listens on {url}\n")


def _listener(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as failure:
        listener.close()
        raise Refused(
            f"cannot listen on {address(host, port)}: {failure.strerror}; choose another --host or --port"
        ) from failure
    return listener
