"""The Celery application of workers: `celery -A worker.celery_app worker -Q cpu,gpu`. Loads no science.

The pool's child does the work; this parent holds no job, stays free to stop and to sweep, and must never load torch: a
process forked or spawned from one that used it can hang.
"""

import contextlib
import logging
import os
from typing import Any

import billiard
from billiard.exceptions import WorkerLostError
from celery import Celery, signals

from app.db.engine import Database
from app.logs import configure as configure_logs
from app.queue.broker import Broker, celery_config
from app.queue.relay import Relay
from app.settings import get_settings
from app.storage.blobs import open_store
from worker import process, redis_transport
from worker.declaration import Declaration
from worker.sweeper import Sweeper

redis_transport.use_it()

app = Celery("detrank", include=["worker.tasks"])
app.conf.update(
    celery_config(get_settings()),
    task_acks_late=True,
    # A message whose process died has done its duty: `_child_died` queues the job again, with a new bell.
    task_reject_on_worker_lost=False,
    worker_lost_wait=2.0,
    worker_prefetch_multiplier=1,
    worker_concurrency=1,
    worker_pool_start_method="spawn",
    worker_max_tasks_per_child=200,
    worker_cancel_long_running_tasks_on_connection_loss=False,  # the lease decides, not the socket
    worker_send_task_events=False,
    worker_enable_remote_control=False,
    worker_proc_alive_timeout=60.0,  # a spawned child imports everything anew
    broker_connection_retry_on_startup=True,
    broker_connection_max_retries=None,
    worker_soft_shutdown_timeout=process.LEAVE_AFTER_S,
)

_relay: Relay | None = None
_sweeper: Sweeper | None = None


@signals.setup_logging.connect
def _log_as_the_api_does(**_: Any) -> None:
    level = get_settings().log_level
    configure_logs(level)
    logging.getLogger("worker").setLevel(level.upper())


@signals.worker_init.connect
def _start_companions(sender: Any = None, **_: Any) -> None:
    """In the parent, before the broker is reached: a worker without a broker still sweeps."""
    global _relay, _sweeper
    settings = get_settings()
    database = Database(settings.resolved_database_url)
    name = process.worker_name(os.getpid())
    queues = sorted(str(queue).removeprefix(settings.queue_prefix) for queue in app.amqp.queues.consume_from)
    _relay = Relay(database, Broker(settings), relay_s=settings.relay_s, bell_s=settings.bell_s)
    declaration = Declaration(
        name, queues, device=settings.device, concurrency=getattr(sender, "concurrency", None)
    )
    _sweeper = Sweeper(database, settings, open_store(settings), declaration, _relay.wake)
    _relay.start()
    _sweeper.start()


@signals.worker_shutting_down.connect
def _tell_children(**_: Any) -> None:
    """SIGTERM: what is being worked on goes back to the queue now; waiting for it could take hours."""
    for child in billiard.active_children():
        with contextlib.suppress(ProcessLookupError):
            os.kill(child.pid, process.HAND_BACK)


@signals.worker_shutdown.connect
def _stop_companions(**_: Any) -> None:
    for companion in (_relay, _sweeper):
        if companion is not None:
            companion.stop()


@signals.task_failure.connect
def _child_died(sender: Any = None, args: Any = None, exception: Any = None, **_: Any) -> None:
    """In the parent, when the pool's child died: its job need not wait for the lease to lapse."""
    if _sweeper is not None and args and isinstance(exception, WorkerLostError):
        _sweeper.child_died(args[0])


@signals.task_received.connect
def _bell_heard(**_: Any) -> None:
    if _sweeper is not None:
        _sweeper.bell_heard()
