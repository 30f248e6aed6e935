"""Options of commands: many of them as one object, and lists that are written as one word."""

import functools
import inspect
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from typing import Annotated, Any, get_type_hints

import typer

from app.cli.session import BadOptions

Json = Annotated[bool, typer.Option("--json", help="print the service's own document")]
WhileStdin = Annotated[
    bool, typer.Option("--while-stdin", hidden=True, help="stop when standard input closes")
]
Wait = Annotated[bool, typer.Option(help="until it is done")]
DataDependentInit = Annotated[
    bool | None,
    typer.Option(
        help="of a training: fresh layers begin at the scale of its images; the recipe's own where not given"
    ),
]
Priority = Annotated[
    int,
    typer.Option(min=-10, max=10, help="its jobs go before those of the workspace with a smaller one"),
]
Limit = Annotated[int, typer.Option(min=1, max=100)]


def spread(command: Callable[..., None]) -> Callable[..., None]:
    """The command, with every parameter that is a dataclass spread over its fields.

    typer reads an option from each parameter of a function. Here it finds an option for each field, annotated
    as a parameter would be, and the command is given the dataclass.
    """
    hints = get_type_hints(command, include_extras=True)
    objects = {name: kind for name, kind in hints.items() if isinstance(kind, type) and is_dataclass(kind)}
    parameters: list[inspect.Parameter] = []
    for parameter in inspect.signature(command).parameters.values():
        if parameter.name in objects:
            parameters += _parameters(objects[parameter.name])
        else:
            parameters.append(
                parameter.replace(
                    kind=inspect.Parameter.KEYWORD_ONLY, annotation=hints.get(parameter.name, Any)
                )
            )

    @functools.wraps(command)
    def called(**given: Any) -> None:
        for name, kind in objects.items():
            given[name] = kind(**{field.name: given.pop(field.name) for field in fields(kind)})
        command(**given)

    called.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    called.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return called


def _parameters(kind: type[Any]) -> list[inspect.Parameter]:
    hints = get_type_hints(kind, include_extras=True)
    # what has no default of its own is None to a dataclass and empty to a signature
    return [
        inspect.Parameter(
            field.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=getattr(kind, field.name, inspect.Parameter.empty),
            annotation=hints[field.name],
        )
        for field in fields(kind)
    ]


def split(words: str | None) -> list[str] | None:
    """The comma separated words; None where nothing was given."""
    return None if words is None else [word.strip() for word in words.split(",") if word.strip()]


def numbers(words: str) -> list[int]:
    """Raises BadOptions for what is no whole number."""
    try:
        return [int(word) for word in split(words) or []]
    except ValueError as wrong:
        raise BadOptions(f"{words!r}: write whole numbers with commas between them, such as 0,1,2") from wrong


def given(values: dict[str, Any]) -> dict[str, Any] | None:
    """Those that are not None; None where there are none."""
    return {name: value for name, value in values.items() if value is not None} or None
