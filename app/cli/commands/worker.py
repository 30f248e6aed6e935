"""`detrank worker`: imports nothing of the API, so that it starts sooner and stays smaller."""

import os
import socket
import sys
import threading
from typing import Annotated

import typer
from celery.__main__ import main as celery
from sqlalchemy import func, select
from sqlalchemy.exc import OperationalError

from app.cli.options import WhileStdin
from app.cli.session import BadOptions, Failed, say
from app.db.engine import Database, database_now
from app.db.tables import WorkerRecord
from app.embedded.supervisor import stop_when_stdin_closes
from app.queue.broker import queue_names
from app.queue.kinds import QUEUES, QUEUES_VARIABLE
from app.settings import Settings, get_settings

OF_QUEUES = "; ".join(f"{name}: {words}" for name, words in QUEUES.items())


def worker(
    queues: Annotated[str, typer.Option(help=OF_QUEUES)] = ",".join(QUEUES),
    concurrency: Annotated[int, typer.Option(min=1, help="processes; a GPU wants one")] = 1,
    name: Annotated[str, typer.Option(help="tells workers of one machine apart")] = "detrank",
    check: Annotated[
        bool,
        typer.Option("--check", help="run none; exit code 1 where none of this host was heard of lately"),
    ] = False,
    while_stdin: WhileStdin = False,
) -> None:
    """Run a worker on the configured deployment."""
    settings = get_settings()
    if check:
        _check(settings)
        return
    asked = tuple(word.strip() for word in queues.split(","))
    if unknown := [word for word in asked if word not in QUEUES]:
        raise BadOptions(f"no queue is called {', '.join(unknown)!r}; known: {', '.join(QUEUES)}")
    # threads that spin while they wait for one another starve each other wherever anything else runs:
    # 2 to 5 times slower on two shared cores, nothing gained on free ones
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ[QUEUES_VARIABLE] = ",".join(asked)
    if while_stdin:
        threading.Thread(target=stop_when_stdin_closes, daemon=True).start()
    sys.argv = [
        "celery",
        "--quiet",
        "--app",
        "worker.celery_app",
        "worker",
        "--queues",
        ",".join(queue_names(settings, asked)),
        "--hostname",
        f"{name}-{os.getpid()}@%h",
        "--pool",
        "prefork",
        "--pool-start-method",
        "spawn",
        "--concurrency",
        str(concurrency),
        "--without-gossip",
        "--without-mingle",
        "--without-heartbeat",
        "--loglevel",
        settings.log_level,
    ]
    celery()


def _check(settings: Settings) -> None:
    """Raises Failed where no worker of this host was heard of within three leases."""
    database = Database(settings.resolved_database_url)
    try:
        with database.reading() as session:
            here = WorkerRecord.name.startswith(f"{socket.gethostname()}:", autoescape=True)
            seen = session.scalar(select(func.max(WorkerRecord.seen_at)).where(here))
            now = database_now(session)
    except OperationalError as away:
        raise Failed(f"the database does not answer: {str(away.orig).strip().splitlines()[0]}") from away
    finally:
        database.dispose()
    if seen is None or (now - seen).total_seconds() > 3 * settings.lease_s:
        raise Failed(f"no worker of this host was heard of {f'since {seen:%H:%M:%S} UTC' if seen else 'yet'}")
    say(f"heard of at {seen:%H:%M:%S} UTC")
