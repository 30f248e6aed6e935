"""The embedded broker: one file per message in a folder, published by rename. For one host.

kombu's own filesystem transport writes a message where a reader may already take it, keeps its bindings in files that
several processes rewrite, and dies of a file it cannot parse (kombu#1551). Here a message appears whole or not at all, queues
need no bindings, and what cannot be parsed is dropped: jobs live in the database, which rings again.
"""

import json
import logging
import os
import time
import uuid
from contextlib import suppress
from pathlib import Path
from queue import Empty
from typing import Any

from kombu.asynchronous import Hub
from kombu.transport import TRANSPORT_ALIASES, filesystem, virtual

SCHEME = "detrank-files"
SUFFIX = ".msg"

log = logging.getLogger(__name__)


def waiting(folder: Path) -> list[Path]:
    """The messages in the folder of a queue, oldest first."""
    try:
        with os.scandir(folder) as entries:
            return sorted(Path(entry.path) for entry in entries if entry.name.endswith(SUFFIX))
    except FileNotFoundError:  # nobody ever sent one
        return []


class Channel(filesystem.Channel):
    """Queues are folders; `queue` is a name of ours, never a caller's."""

    supports_fanout = False

    def _folder(self, queue: str) -> Path:
        folder = Path(self.transport_options["folder"]) / queue
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def get_table(self, exchange: str) -> list[Any]:
        return []

    def _queue_bind(self, exchange: str, routing_key: str, pattern: str, queue: str) -> None:
        """Messages go to queues by name."""

    def _put(self, queue: str, payload: dict[str, Any], **_: Any) -> None:  # type: ignore[override]  # kombu's two bases differ
        folder = self._folder(queue)
        name = f"{time.time_ns():020d}-{uuid.uuid4().hex}"
        hidden = folder / f"{name}.tmp"
        hidden.write_text(json.dumps(payload))
        os.replace(hidden, folder / (name + SUFFIX))

    def _get(self, queue: str, timeout: float | None = None) -> dict[str, Any]:
        for path in waiting(self._folder(queue)):
            taken = path.with_suffix(".taken")
            try:
                os.rename(path, taken)  # whoever renames it first has it
                content = taken.read_bytes()
                taken.unlink()
            except FileNotFoundError:
                continue
            try:
                payload = json.loads(content)
                if isinstance(payload, dict) and "properties" in payload and "body" in payload:
                    return payload
            except ValueError:
                pass
            log.warning("dropped an unreadable message of %d bytes from queue %s", len(content), queue)
        raise Empty

    def _size(self, queue: str) -> int:
        return len(waiting(self._folder(queue)))

    def _purge(self, queue: str) -> int:
        found = waiting(self._folder(queue))
        for path in found:
            path.unlink(missing_ok=True)
        return len(found)

    def _delete(self, queue: str, *args: Any, **kwargs: Any) -> None:
        self._purge(queue)


class Transport(filesystem.Transport):
    """`detrank-files:///folder`; the folder is read from the transport options, see broker.celery_config.

    Workers read it from their event loop, as they do Redis and RabbitMQ. Celery's other loop comes with a pool whose
    processes share locks: one killed while it waits for work takes the lock along, and no other ever works again.
    """

    Channel = Channel
    polling_interval = 0.05
    driver_type = SCHEME
    driver_name = SCHEME
    implements = virtual.Transport.implements.extend(asynchronous=True, exchange_type=frozenset(["direct"]))

    def register_with_event_loop(self, connection: Any, loop: Hub) -> None:
        loop.call_repeatedly(self.polling_interval, self._take_all)  # type: ignore[no-untyped-call]

    def _take_all(self) -> None:
        """Hand over what waits, as far as the worker has room."""
        with suppress(Empty):
            while True:
                self.cycle.get(self._deliver)  # type: ignore[attr-defined]  # kombu says nothing of its type

    def driver_version(self) -> str:
        return "1"


TRANSPORT_ALIASES[SCHEME] = f"{__name__}:Transport"
