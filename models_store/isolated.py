"""Run a conversion in a limited child: the client of the nursery. No torch here."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from models_store.errors import Unusable
from models_store.limits import Limits

PACKAGE_ROOT = Path(__file__).resolve().parent.parent
COMMAND = (sys.executable, "-P", "-m", "models_store.nursery")
# Enough to start Python; no token, proxy or credential of the caller reaches the children.
KEPT_ENVIRONMENT = ("PATH", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "SYSTEMROOT", "VIRTUAL_ENV")
POLL_S = 0.2
TAIL_CHARACTERS = 400


class Nursery:
    """The prepared process of this process; started when it is first wanted, and again when it has ended."""

    def __init__(self) -> None:
        self.process: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None
        self._owner = 0
        self._lock = threading.Lock()

    def prepare(self) -> None:
        """Start it if it does not run; it gets ready by itself. Not shared with a process that forked from its owner."""
        with self._lock:
            alive = self.process is not None and self._owner == os.getpid() and self.process.poll() is None
            if alive:
                return
            if self._control is not None:
                self._control.close()
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            with theirs:
                self.process = subprocess.Popen(
                    COMMAND,
                    stdin=theirs.fileno(),
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    env=clean_environment(),
                    cwd=tempfile.gettempdir(),
                    start_new_session=True,
                )
            self._control, self._owner = ours, os.getpid()

    def ask(
        self, request: Mapping[str, Any], channel: int, answers: int, errors: int
    ) -> subprocess.Popen[bytes]:
        """Hand one request over; who took it. Raises OSError where the process has just ended."""
        self.prepare()
        if self._control is None or self.process is None:
            raise RuntimeError("the nursery was started without a control socket")
        asked = self.process
        try:
            socket.send_fds(self._control, [json.dumps(request).encode()], [channel, answers, errors])
        except OSError:
            self.leave(asked)
            raise
        return asked

    def leave(self, process: subprocess.Popen[bytes]) -> None:
        """Ask ``process`` for nothing more: who is dying still takes requests while its descriptors close one by one."""
        with self._lock:
            if self.process is process:
                process.kill()
                process.wait()


NURSERY = Nursery()


def clean_environment() -> dict[str, str]:
    environment = {k: os.environ[k] for k in KEPT_ENVIRONMENT if k in os.environ}
    return environment | {
        "PYTHONPATH": str(PACKAGE_ROOT),
        "HOME": tempfile.gettempdir(),
        "HF_HUB_OFFLINE": "1",
        "CUDA_VISIBLE_DEVICES": "",
        "OMP_NUM_THREADS": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
    }


def run_child(request: Mapping[str, Any], limits: Limits, check: Callable[[], None]) -> None:
    """Convert as ``request`` says in a forked child. Raises Unusable with what it answers or how it died."""
    with tempfile.TemporaryFile() as answers, tempfile.TemporaryFile() as errors:
        code = _status(request, answers.fileno(), errors.fileno(), limits, check)
        answers.seek(0)
        errors.seek(0)
        _judge(code, answers.read(16 << 20), errors.read(), limits)


def _status(
    request: Mapping[str, Any], answers: int, errors: int, limits: Limits, check: Callable[[], None]
) -> int | None:
    """The child's exit code, negative for a signal; None where its nursery died. Closing the channel stops the child."""
    for attempt in (1, 2):
        ours, theirs = socket.socketpair()
        with ours:
            with theirs:
                try:
                    nursery = NURSERY.ask(request, theirs.fileno(), answers, errors)
                except OSError:
                    # It ended of idleness between the look and the packet.
                    if attempt == 2:
                        raise
                    continue
            code = _waited(ours, limits, check)
            if code is None:
                NURSERY.leave(nursery)
            return code
    return None


def _waited(channel: socket.socket, limits: Limits, check: Callable[[], None]) -> int | None:
    until = time.monotonic() + limits.wall_s
    while not select.select([channel], [], [], POLL_S)[0]:
        check()
        if time.monotonic() > until:
            raise Unusable(
                "too_slow", f"the file could not be converted within {limits.wall_s} s and was stopped"
            )
    with contextlib.suppress(ConnectionError):
        if message := channel.recv(64):
            return int(json.loads(message))
    return None


def _judge(code: int | None, answer: bytes, errors: bytes, limits: Limits) -> None:
    with contextlib.suppress(ValueError):
        reply = json.loads(answer)
        if reply.get("ok"):
            return
        error = reply["error"]
        raise Unusable(error["code"], error["detail"], error.get("errors"))
    if code == -signal.SIGXCPU:
        raise Unusable("too_slow", f"the loader used more than {limits.cpu_s} s of CPU and was stopped")
    if code in (None, -signal.SIGKILL):
        # nothing of ours sends it: an operator, or a kernel without memory, which says nothing about the file
        who = "the loader" if code else "the process that starts loaders"
        raise Unusable("killed", f"{who} was killed from outside (did this machine run out of memory?)")
    tail = errors.decode("utf-8", "replace").strip()[-TAIL_CHARACTERS:]
    if "MemoryError" in tail or "bad_alloc" in tail or "allocate memory" in tail:
        raise Unusable(
            "too_large", f"the file needs more than the {limits.memory_bytes} bytes the loader may use"
        )
    raise Unusable("loader_failed", f"the loader ended with {code} on this file: {tail}")
