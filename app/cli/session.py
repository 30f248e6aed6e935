"""What commands share: which service they talk to, how they speak, how they fail without a traceback."""

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

from app.embedded.announcing import AlreadyRunning
from app.errors import DetrankError
from app.settings import Settings, WrongSettings, get_settings
from detrank import Client, ProblemError, StartFailed, Unreachable
from detrank.embedded import find, started
from detrank.files import NothingToSend

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


class BadOptions(Exception):
    """What was asked cannot be done as written: exit code 2."""


def fail_unless_succeeded(what: str, record: dict[str, Any], otherwise: str = "") -> None:
    """Raises Failed with the reason in a record that was waited for; `otherwise`: where it has none."""
    if record["state"] != "succeeded":
        reason = (record["error"] or {}).get("detail") or otherwise or "see `detrank jobs list`"
        raise Failed(f"the {what} {record['state']}: {reason}")


class Commands(TyperGroup):
    """Expected failures become a message and an exit code."""

    def invoke(self, ctx: Any) -> Any:
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
        except (
            BadOptions,
            WrongSettings,
            AlreadyRunning,
            NothingToSend,
            FileNotFoundError,
            FileExistsError,
            IsADirectoryError,
            NotADirectoryError,
            PermissionError,
        ) as failure:
            complain(str(failure))
            raise typer.Exit(2) from failure
        except Exception as failure:
            if (said := without_database(failure)) is None:
                raise
            complain(said)
            raise typer.Exit(2) from failure


def without_database(failure: Exception) -> str | None:
    """A line on a database that is away or of another version; None where it is another failure.

    By its names: this module is imported where no database is used.
    """
    cause = getattr(failure, "orig", None)
    if cause is None or type(failure).__name__ not in (
        "OperationalError",
        "ProgrammingError",
        "DatabaseError",
    ):
        return None
    first = (str(cause).strip().splitlines() or [type(cause).__name__])[0]
    if "no such table" in first or type(cause).__name__ == "UndefinedTable":
        return "the database that DETRANK_DATABASE_URL names is of another version: run `detrank migrate`"
    return f"the database that DETRANK_DATABASE_URL names does not answer: {first}"


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


def _may_read(settings: Settings, source: str) -> dict[str, str]:
    if "://" not in source:
        return {}
    places = [settings.allowed_sources, source.replace(",", "%2C")]
    return {"DETRANK_ALLOWED_SOURCES": ",".join(place for place in places if place)}


@contextlib.contextmanager
def connected(ctx: typer.Context, reads: str = "") -> Iterator[Client]:
    """A client of the named service, of the embedded one that runs, or of one started for this command.

    reads: a source that the command names. A service started for it alone may read that, and nothing else that is not allowed:
    whoever types the command could read it anyway, with the same rights and credentials.
    """
    where: Where = ctx.find_object(Where) or Where(None, None)
    with contextlib.ExitStack() as stack:
        url = where.url
        if url is None:
            settings = get_settings()
            if not settings.embedded:
                raise BadOptions(
                    "a database or a broker server is configured; set DETRANK_URL to the service that uses it"
                )
            url = find(settings.home)
            if url is None:
                note(f"No service runs on {settings.home}: one is started for this command.")
                url = stack.enter_context(started(settings.home, _may_read(settings, reads)))
        yield stack.enter_context(Client(url, where.key))
