"""How commands print and refuse."""

from pathlib import Path
from typing import Any

import typer
from rich.console import Console
from rich.text import Text

out = Console()
err = Console(stderr=True)


def refuse(refusal: Any) -> None:
    """Prints why, with the single findings, and ends the command with 1."""
    err.print(Text.assemble(("Error: ", "bold red"), refusal.detail), soft_wrap=True)
    for error in (refusal.errors or [])[:20]:
        err.print(Text(f"  {error.get('pointer', '')} {error.get('message', error)}"), soft_wrap=True)
    raise typer.Exit(1)


def words_of(text: str | None) -> list[str]:
    """The words of a comma separated option."""
    return [word.strip() for word in (text or "").split(",") if word.strip()]


def new_target(target: Path) -> None:
    """Raises typer.BadParameter for a file, or a folder with something in it."""
    if target.exists() and (target.is_file() or any(target.iterdir())):
        raise typer.BadParameter(f"{target}: is there already; name a new one")
