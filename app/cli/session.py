"""What every command shares: which service it talks to, how it speaks, and how it fails without a traceback."""

import contextlib
import json
import os
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer
from rich.console import Console
from rich.markup import escape
from typer.core import TyperGroup

from app.client import Client, ProblemError, Unreachable
from app.embedded.discovery import AlreadyRunning, StartFailed, find, started
from app.errors import DetrankError
from app.settings import get_settings

# A table narrower than this cuts ids and figures; a smaller terminal wraps its lines instead.
NARROWEST = 120


def _width() -> int:
    """Of the terminal or of COLUMNS, but never too narrow for a table; a pipe has no width."""
    if not sys.stdout.isatty() and "COLUMNS" not in os.environ:
        return 200
    return max(NARROWEST, shutil.get_terminal_size().columns)


out = Console(width=_width())
err = Console(stderr=True)


@dataclass(frozen=True)
class Where:
    """A service by its URL; without one, the embedded service of the data folder."""

    url: str | None
    key: str | None


class Failed(Exception):
    """The command did what it could and the outcome is a failure: exit code 1."""


class Unusable(Exception):
    """What was asked cannot be done as written: exit code 2."""


def fail_unless_succeeded(what: str, record: dict[str, Any], otherwise: str = "") -> None:
    """Raises Failed with the reason of a record that was waited for; `otherwise`: where it has no error of its own."""
    if record["state"] != "succeeded":
        reason = (record["error"] or {}).get("detail") or otherwise or "see `detrank jobs list`"
        raise Failed(f"the {what} {record['state']}: {reason}")


class Commands(TyperGroup):
    """Expected failures become a message and an exit code."""

    def invoke(self, ctx: typer.Context) -> Any:
        try:
            return super().invoke(ctx)
        except ProblemError as failure:
            problem = failure.problem
            complain(str(failure), problem.get("errors") or [])
            if failure.status == 401:
                err.print("Give an API key: --key or DETRANK_API_KEY; `detrank keys create NAME` makes one.")
            raise typer.Exit(1) from failure
        except DetrankError as failure:
            complain(failure.detail, failure.errors)
            raise typer.Exit(1) from failure
        except (Failed, Unreachable, StartFailed, TimeoutError) as failure:
            complain(str(failure))
            raise typer.Exit(1) from failure
        except (Unusable, AlreadyRunning, FileNotFoundError, IsADirectoryError, PermissionError) as failure:
            complain(str(failure))
            raise typer.Exit(2) from failure


def complain(message: str, errors: list[dict[str, Any]] | None = None) -> None:
    err.print(f"[bold red]Error:[/] {escape(message)}", soft_wrap=True)
    for error in errors or []:
        place = error.get("pointer") or error.get("field") or ""
        err.print(f"  {escape(str(place))} {escape(str(error.get('message', '')))}", soft_wrap=True)


def note(message: str) -> None:
    err.print(message, style="dim", markup=False, highlight=False, soft_wrap=True)


def say(message: str) -> None:
    out.print(message, markup=False, highlight=False, soft_wrap=True)


def as_json(document: Any) -> None:
    """The service's own document on standard output, and nothing else there."""
    typer.echo(json.dumps(document, indent=2, ensure_ascii=False))


def use_data_dir(data_dir: Path | None) -> None:
    """Chosen once, for this process and for those that it starts."""
    if data_dir is not None:
        os.environ["DETRANK_DATA_DIR"] = str(data_dir.expanduser().absolute())
        get_settings.cache_clear()


@contextlib.contextmanager
def connected(ctx: typer.Context) -> Iterator[Client]:
    """A client of the named service, of the embedded one that runs, or of one started for as long as this lasts."""
    where: Where = ctx.find_object(Where) or Where(None, None)
    with contextlib.ExitStack() as stack:
        url = where.url
        if url is None:
            settings = get_settings()
            if not settings.embedded:
                raise Unusable("a database or a broker server is configured; set DETRANK_URL to the service that uses it")
            url = find(settings.home)
            if url is None:
                note(f"No service runs on {settings.home}: one is started for this command.")
                url = stack.enter_context(started(settings.home))
        yield stack.enter_context(Client(url, where.key))
