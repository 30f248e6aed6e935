"""The doorbell: tells workers of a job's id through Redis, RabbitMQ or files. Only the relay speaks to it."""

import os
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from celery import Celery
from kombu import Queue

from app.errors import Unavailable
from app.queue.kinds import QUEUES
from app.queue.transport import SCHEME, waiting
from app.settings import Settings

CONNECT_S = 2.0
ANSWER_S = 3.0
CLOSE_S = 0.5
AMQP = ("amqp", "amqps", "pyamqp")


def look_at_broker(settings: Settings) -> None:
    """Connect, and nothing else. Raises Unavailable within seconds where there is no broker."""
    url = settings.resolved_broker_url
    if url.startswith(f"{SCHEME}://"):
        folder = Path(url.removeprefix(f"{SCHEME}://"))
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK):
            raise Unavailable("the folder of messages cannot be written to")
        return
    app = Celery("detrank-look", set_as_current=False)
    app.conf.update(celery_config(settings))
    connection = app.connection_for_read()
    try:
        connection.ensure_connection(max_retries=1, interval_start=0, interval_step=0, timeout=CONNECT_S)
        connection.default_channel  # noqa: B018  # asking for it is the look: Redis is spoken to only now
    except Exception as failure:  # each client library has errors of its own
        raise Unavailable(f"does not answer: {type(failure).__name__}: {failure}"[:300]) from failure
    finally:
        connection.collect(socket_timeout=CLOSE_S)


class Broker:
    """A producer of bells for one thread. A broker that does not answer costs that thread a few seconds, never a request."""

    def __init__(self, settings: Settings) -> None:
        self._app = Celery("detrank", set_as_current=False)
        self._app.conf.update(celery_config(settings))
        if urlsplit(settings.resolved_broker_url).scheme in AMQP:
            # a producer's alone: a consumer's socket is rightly silent for hours
            self._app.conf.broker_transport_options |= {
                "confirm_publish": True,
                "read_timeout": ANSWER_S,
                "write_timeout": ANSWER_S,
            }
        self._prefix = settings.queue_prefix
        self._connection: Any = None
        self._producer: Any = None

    def ring(self, job_id: str, kind: str, queue: str) -> None:
        """Send the id of a job to a queue. Raises Unavailable within seconds when the broker does not take it."""
        try:
            if self._producer is None:
                self._connection = self._app.connection_for_write()
                self._producer = self._app.amqp.Producer(self._connection, auto_declare=False)
            self._app.send_task(
                f"detrank.{kind}",
                args=[job_id],
                queue=self._prefix + queue,
                producer=self._producer,
                retry=False,
                ignore_result=True,
                confirm_timeout=ANSWER_S,
            )
        except Exception as failure:  # each client library has errors of its own
            self.close()
            raise Unavailable(
                f"the broker did not take a message: {type(failure).__name__}: {failure}"
            ) from failure

    def close(self) -> None:
        """Forget the connection; the next ring makes a new one."""
        connection, self._connection, self._producer = self._connection, None, None
        if connection is not None:
            # not `close`: that says goodbye to a server which may never answer
            connection.collect(socket_timeout=CLOSE_S)


def celery_config(settings: Settings) -> dict[str, Any]:
    """What producers and workers must agree on. There is no result backend: state lives in our tables."""
    url = settings.resolved_broker_url
    return {
        # the folder is among the options, as it is: kombu would decode it, and warn of a URL without a host
        "broker_url": f"{SCHEME}://localhost" if url.startswith(f"{SCHEME}://") else url,
        "broker_transport_options": _transport_options(url, settings.queue_prefix),
        "broker_connection_timeout": CONNECT_S,
        "result_backend": None,
        "task_ignore_result": True,
        "task_publish_retry": False,
        "task_serializer": "json",
        "accept_content": ["json"],
        "task_queues": [_queue(name) for name in queue_names(settings)],
        "task_create_missing_queues": False,
        "task_default_queue": settings.queue_prefix + "cpu",
    }


def queue_names(settings: Settings, queues: tuple[str, ...] | None = None) -> list[str]:
    """Names of these queues on the broker; without `queues`, of all."""
    return [settings.queue_prefix + name for name in queues or QUEUES]


def has_messages(settings: Settings, queue: str) -> bool:
    """Whether a message waits in the queue of an embedded broker; of any other it is not known, which counts as yes."""
    url = settings.resolved_broker_url
    if not url.startswith(f"{SCHEME}://"):
        return True
    (name,) = queue_names(settings, (queue,))
    return bool(waiting(Path(url.removeprefix(f"{SCHEME}://")) / name))


def _transport_options(url: str, prefix: str) -> dict[str, Any]:
    # Without a limit kombu tries a hundred times before it says that there is no broker.
    options: dict[str, Any] = {
        "max_retries": 1,
        "interval_start": 0,
        "interval_step": 0.1,
        "interval_max": 0.1,
    }
    match urlsplit(url).scheme:
        case scheme if scheme == SCHEME:
            options |= {"folder": url.removeprefix(f"{SCHEME}://"), "polling_interval": 0.05}
        case "redis" | "rediss":
            options |= {
                "socket_connect_timeout": CONNECT_S,
                "socket_timeout": ANSWER_S,
                "health_check_interval": 25,
                # Long on purpose: our leases bring a job back, not the broker.
                "visibility_timeout": 6 * 3600,
                "unacked_restore_interval": 10,
                "unacked_restore_throttle": 1,
                "queue_order_strategy": "priority",
                "global_keyprefix": prefix,
            }
    return options


def _queue(name: str) -> Queue:
    return Queue(name, routing_key=name)  # type: ignore[no-untyped-call]
