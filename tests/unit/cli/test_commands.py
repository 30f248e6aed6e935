"""The table of commands, which is read before any of them is imported."""

import importlib
import inspect
from dataclasses import dataclass
from typing import Annotated

import pytest
import typer
from typer.testing import CliRunner

import worker.cli
from app.cli.main import COMMANDS, build
from app.cli.options import spread


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_is_where_the_table_says_and_is_for_what_it_says(name: str) -> None:
    later = typer.main.get_command(build()).commands[name]
    found = later.loaded()
    assert found.name == name
    assert later.help == COMMANDS[name][1]
    assert found.help.split() == later.help.split()


@pytest.mark.parametrize(
    ("kind", "place"), [pair for words in worker.cli.COMMANDS.values() for pair in words.values()]
)
def test_what_is_computed_on_the_spot_is_where_the_table_says(kind: type, place: str) -> None:
    module, _, name = place.partition(":")
    (asked,) = inspect.signature(getattr(importlib.import_module(module), name)).parameters.values()
    assert asked.annotation is kind


@dataclass(frozen=True, kw_only=True)
class Size:
    wide: Annotated[int, typer.Option("--width", min=1, help="in pixels")]
    high: Annotated[int | None, typer.Option(help="as wide")] = None


def test_an_object_of_options_is_spread_over_the_command_line() -> None:
    root, seen = typer.Typer(), []

    @root.command()
    @spread
    def draw(
        name: str, *, size: Size, wait: Annotated[bool, typer.Option(help="until it is drawn")] = True
    ) -> None:
        seen.append((name, size, wait))

    run = CliRunner()
    assert run.invoke(root, ["it", "--width", "3", "--no-wait"]).exit_code == 0
    assert run.invoke(root, ["it", "--width", "3", "--high", "2"]).exit_code == 0
    assert seen == [("it", Size(wide=3), False), ("it", Size(wide=3, high=2), True)]
    assert run.invoke(root, ["it"]).exit_code == 2, "--width is needed"
    assert run.invoke(root, ["it", "--width", "0"]).exit_code == 2
    shown = run.invoke(root, ["--help"]).output
    assert shown.index("--width") < shown.index("--high") < shown.index("--no-wait")
    assert "as wide" in shown
