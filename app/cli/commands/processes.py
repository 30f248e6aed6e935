"""`detrank serve` and `detrank migrate`; `worker.py` has the other process of the service."""

import time
from pathlib import Path
from typing import Annotated

import typer
from sqlalchemy.exc import OperationalError

from app.cli.options import WhileStdin
from app.cli.session import BadOptions, say, use_data_dir
from app.db.migrate import upgrade
from app.embedded.serve import Refused, refuse_open_door
from app.embedded.serve import serve as run
from app.settings import get_settings


def serve(
    host: Annotated[
        str, typer.Option(help="anything but this machine itself needs DETRANK_AUTH=keys")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one")] = 8000,
    data_dir: Annotated[Path | None, typer.Option(help="as before the command; default ~/.detrank")] = None,
    with_worker: Annotated[
        bool | None,
        typer.Option("--with-worker/--no-worker", help="default: with workers on the embedded deployment"),
    ] = None,
    while_stdin: WhileStdin = False,
) -> None:
    """Run the service. Without any server configured: SQLite, a local folder and workers, all of it
    here."""
    use_data_dir(data_dir)
    settings = get_settings()
    try:
        refuse_open_door(host, settings)
        run(
            settings,
            host,
            port,
            worker=settings.embedded if with_worker is None else with_worker,
            while_stdin=while_stdin,
        )
    except Refused as refusal:
        raise BadOptions(str(refusal)) from refusal


def migrate(
    wait: Annotated[
        float, typer.Option(min=0, help="seconds to wait for a database that does not answer yet")
    ] = 0.0,
) -> None:
    """Bring the configured database to this version."""
    settings = get_settings()
    give_up = time.monotonic() + wait
    while True:
        try:
            upgrade(settings.resolved_database_url)
            break
        except OperationalError:
            if time.monotonic() > give_up:
                raise
            time.sleep(1.0)
    say("the database is at the version of this program")
