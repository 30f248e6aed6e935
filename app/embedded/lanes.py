"""The workers beside an embedded API: one for each queue, so that short work waits neither for a training nor for a fetch."""

import contextlib
import math
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from sqlalchemy import select
from sqlalchemy.exc import DBAPIError

from app.db.engine import Database, database_now
from app.db.tables import Checkpoint
from app.embedded.supervisor import Supervisor
from app.queue.broker import has_messages
from app.queue.kinds import GPU
from app.settings import Settings

# Processes of each worker. Of two fetches one may hang, and of two trainings each would take twice as long.
PROCESSES = {"cpu": 1, "gpu": 1, "long": 2}
# A worker takes memory and seconds of both cores to start: the others come with the first message in their queue, that of
# extraction a little sooner.
AT_ONCE = "cpu"
ASKED_EVERY_S = 1.0


@contextlib.contextmanager
def workers(settings: Settings) -> Iterator[None]:
    """Runs them inside the context and stops them after it, all at the same time."""
    database = Database(settings.resolved_database_url)
    registered = Registered(database)

    def wanted(queue: str) -> bool:
        return queue == AT_ONCE or has_messages(settings, queue) or (queue == GPU and registered.any())

    lanes = [
        Supervisor(worker_command(queue, processes), partial(wanted, queue))
        for queue, processes in PROCESSES.items()
    ]
    for lane in lanes:
        lane.start()
    try:
        yield
    finally:
        with ThreadPoolExecutor(len(lanes)) as pool:
            list(pool.map(Supervisor.stop, lanes))
        database.dispose()


class Registered:
    """Whether a checkpoint was registered since this was made: whoever does that ranks it soon, and the libraries that read
    it take longer to import than the file takes to look at."""

    def __init__(self, database: Database) -> None:
        self._database = database
        with database.reading() as session:
            self._since = database_now(session)
        self._asked_at = -math.inf
        self._found = False

    def any(self) -> bool:
        """Asks the database once in ASKED_EVERY_S; while it cannot be had, none is known of."""
        if not self._found and time.monotonic() - self._asked_at >= ASKED_EVERY_S:
            self._asked_at = time.monotonic()
            with contextlib.suppress(DBAPIError), self._database.reading() as session:
                newer = select(Checkpoint.id).where(Checkpoint.created_at > self._since).limit(1)
                self._found = session.scalar(newer) is not None
        return self._found


def worker_command(queue: str, processes: int) -> list[str]:
    """The command line of `detrank worker` for this Python; it ends with whoever holds its standard input."""
    return [
        sys.executable,
        "-P",  # not the folder that we were started in, whose own app/ would hide ours
        "-m",
        "app.cli",
        "worker",
        "--queues",
        queue,
        "--concurrency",
        str(processes),
        "--name",
        queue,
        "--while-stdin",
    ]
