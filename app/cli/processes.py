"""`detrank serve`, `detrank worker`, `detrank migrate`: the processes of the service."""

import os
import sys
import threading
from pathlib import Path
from typing import Annotated

import typer

from app.cli.session import Unusable, say, use_data_dir
from app.settings import get_settings

QUEUES = ("cpu", "gpu")
WhileStdin = Annotated[bool, typer.Option("--while-stdin", hidden=True, help="stop when standard input closes")]


def serve(
    host: Annotated[str, typer.Option(help="anything but this machine itself needs DETRANK_AUTH=keys")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one")] = 8000,
    data_dir: Annotated[Path | None, typer.Option(help="as before the command; default ~/.detrank")] = None,
    with_worker: Annotated[
        bool | None, typer.Option("--with-worker/--no-worker", help="default: with one on the embedded deployment")
    ] = None,
    while_stdin: WhileStdin = False,
) -> None:
    """Run the service. Without any server configured: SQLite, a local folder and one worker, all of it here."""
    # the web server and the database layer load only where they serve
    from app.embedded.serve import Refused, refuse_open_door  # noqa: PLC0415
    from app.embedded.serve import serve as run  # noqa: PLC0415

    use_data_dir(data_dir)
    settings = get_settings()
    try:
        refuse_open_door(host, settings)
        run(
            settings, host, port,
            worker=settings.embedded if with_worker is None else with_worker,
            while_stdin=while_stdin,
        )  # fmt: skip
    except Refused as refusal:
        raise Unusable(str(refusal)) from refusal


def worker(
    queues: Annotated[str, typer.Option(help="cpu, gpu or both")] = "cpu,gpu",
    concurrency: Annotated[int, typer.Option(min=1, help="processes; a GPU wants one")] = 1,
    name: Annotated[str, typer.Option(help="tells workers of one machine apart")] = "detrank",
    while_stdin: WhileStdin = False,
) -> None:
    """Run a worker on the configured deployment."""
    from celery.__main__ import main as celery  # noqa: PLC0415

    from app.embedded.supervisor import stop_when_stdin_closes  # noqa: PLC0415
    from app.queue.broker import queue_names  # noqa: PLC0415

    settings = get_settings()
    asked = tuple(word.strip() for word in queues.split(","))
    if unknown := [word for word in asked if word not in QUEUES]:
        raise Unusable(f"no queue is called {', '.join(unknown)!r}; known: {', '.join(QUEUES)}")
    # threads that spin while they wait for one another starve each other wherever anything else runs: 2 to 5 times
    # slower on two shared cores, nothing gained on free ones
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    if while_stdin:
        threading.Thread(target=stop_when_stdin_closes, daemon=True).start()
    sys.argv = [
        "celery", "--quiet", "--app", "worker.celery_app", "worker",
        "--queues", ",".join(queue_names(settings, asked)), "--hostname", f"{name}-{os.getpid()}@%h",
        "--pool", "prefork", "--pool-start-method", "spawn", "--concurrency", str(concurrency),
        "--without-gossip", "--without-mingle", "--without-heartbeat", "--loglevel", settings.log_level,
    ]  # fmt: skip
    celery()


def migrate() -> None:
    """Bring the configured database to this version."""
    from app.db.migrate import upgrade  # noqa: PLC0415

    settings = get_settings()
    upgrade(settings.resolved_database_url)
    say("the database is at the version of this program")
