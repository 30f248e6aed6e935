"""Commands that are imported when they are called: `detrank --help` and every other command stay fast."""

from collections.abc import Callable
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any

import typer
from typer.core import TyperCommand
from typer.main import get_command, get_group

from app.cli.options import spread

# Packages that compute on the spot add commands to our groups: each entry is called with groups by name.
JOINING = "detrank.commands"


def computed(options: type[Any], place: str) -> Callable[..., None]:
    """A command with the fields of a dataclass for its options, and its documentation for its help.

    place: `package.module:name` of the function that gets them, imported when the command is called: `--help` and
    what is wrong on the command line are said without it.
    """

    def command(asked: Any) -> None:
        _at(place)(asked)

    command.__annotations__["asked"], command.__doc__ = options, options.__doc__
    return spread(command)


def _at(place: str) -> Any:
    module, _, name = place.partition(":")
    return getattr(import_module(module), name)


class Later(TyperCommand):
    """A command, or a group of commands, by where it is and what it is for.

    place: `package.module:name` of a function, or of a `typer.Typer`.
    """

    def __init__(self, name: str, place: str, help: str) -> None:
        super().__init__(name, help=help)
        self.place = place

    def make_context(self, info_name: str | None, args: list[str], parent: Any = None, **extra: Any) -> Any:
        return self.loaded().make_context(info_name, args, parent, **extra)

    def loaded(self) -> Any:
        """What it stands for, with the commands that other packages add to it."""
        found = _at(self.place)
        if isinstance(found, typer.Typer):
            for entry in entry_points(group=JOINING):
                entry.load()({self.name: found})
            found.info.name, found.info.help = self.name, self.help
            return get_group(found)
        single = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
        single.command(self.name)(found)
        return get_command(single)
