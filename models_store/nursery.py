"""``python -m models_store.nursery``: a process that has torch in memory, does nothing, and forks a child a conversion.

Importing the libraries takes longer than most conversions. This process imports them once, holds no secret, reads no
foreign byte, and forks for each request a child that binds itself (child.py) and ends with its answer. Control comes on
standard input, a socket of packets: each is a JSON request with three descriptors (the request's own channel, the file
for the answer, the file for errors). A channel that its other end closes stops the child; when a child has ended its wait
status goes into its channel. The end of control, or long idleness, ends this process.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import selectors
import signal
import socket
import sys
import traceback
from dataclasses import dataclass

from models_store.child import convert_bound

IDLE_S = 600
LARGEST_REQUEST = 1 << 20
CONTROL = 0
DESCRIPTORS = 3


@dataclass
class Running:
    """A child with the descriptor that says when it ended, and its request's channel."""

    pid: int
    ended: int
    channel: int


def main() -> int:
    control = socket.socket(fileno=CONTROL)
    _prepare()
    running: list[Running] = []
    with selectors.DefaultSelector() as selector:
        selector.register(control, selectors.EVENT_READ)
        while True:
            events = selector.select(None if running else IDLE_S)
            if not events:
                return 0
            for key, _ in events:
                if key.fileobj is control:
                    child = _started(control, running)
                    if child is None:
                        _stop(running)
                        return 0
                    running.append(child)
                    selector.register(child.ended, selectors.EVENT_READ, child)
                    selector.register(child.channel, selectors.EVENT_READ, child)
                elif key.data in running:
                    _step(key.data, key.fd, running, selector)


def _prepare() -> None:
    """Import all that a conversion needs and fill what it looks up, so that children find it in memory."""
    importlib.import_module("models_store.conversion")
    importlib.import_module("models_store.known").torchvision_weights()
    importlib.import_module("models_store.formats.signatures").index()
    gc.collect()
    gc.freeze()


def _started(control: socket.socket, running: list[Running]) -> Running | None:
    """A child for the next request, None where there are no more."""
    message, descriptors, _, _ = socket.recv_fds(control, LARGEST_REQUEST, DESCRIPTORS)
    if not message:
        return None
    channel, answers, errors = descriptors
    pid = os.fork()
    if pid == 0:
        _become_child(message, answers, errors)
    for descriptor in (answers, errors):
        os.close(descriptor)
    return Running(pid, os.pidfd_open(pid), channel)


def _become_child(message: bytes, answers: int, errors: int) -> None:
    code = 1
    try:
        os.setsid()
        # Whatever a library prints goes to the errors; the answer has its own descriptor, all others are closed.
        nothing = os.open(os.devnull, os.O_RDONLY)
        kept = os.dup(answers)
        for source, target in ((nothing, 0), (errors, 1), (errors, 2)):
            os.dup2(source, target)
        os.dup2(kept, 3)
        os.closerange(4, os.sysconf("SC_OPEN_MAX"))
        convert_bound(json.loads(message), 3)
        code = 0
    except BaseException:  # it is told in the errors, and the status says the rest
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def _step(child: Running, ready: int, running: list[Running], selector: selectors.BaseSelector) -> None:
    """The child has ended, or nobody waits for it any longer."""
    if ready == child.channel:
        _kill(child)
    _, status = os.waitpid(child.pid, 0)
    for descriptor in (child.ended, child.channel):
        selector.unregister(descriptor)
    # Where the other end is closed, nobody wants to know.
    with contextlib.suppress(OSError):
        os.write(child.channel, json.dumps(os.waitstatus_to_exitcode(status)).encode())
    for descriptor in (child.ended, child.channel):
        os.close(descriptor)
    running.remove(child)


def _kill(child: Running) -> None:
    for kill, target in ((os.killpg, child.pid), (os.kill, child.pid)):
        try:
            kill(target, signal.SIGKILL)
        except ProcessLookupError:
            continue


def _stop(running: list[Running]) -> None:
    for child in running:
        _kill(child)


if __name__ == "__main__":
    sys.exit(main())
