"""list, show, cancel, retry and delete, made once for every group of commands that has them."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from app.cli.options import Limit, Wait, spread
from app.cli.session import as_json, connected, out, say
from app.queue.states import SHOWN
from detrank import Client

Record = dict[str, Any]

STATES = ", ".join(SHOWN[:-1]) + f" or {SHOWN[-1]}"


@dataclass(frozen=True, kw_only=True)
class Selection:
    """What every list of work can be narrowed to."""

    state: Annotated[str | None, typer.Option(help=STATES)] = None


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How a record is answered."""

    json: Annotated[bool, typer.Option("--json", help="print the service's own document")] = False


@dataclass(frozen=True, kw_only=True)
class OutcomeWithCsv(Outcome):
    csv: Annotated[
        Path | None, typer.Option("--csv", help="also write it as a table to this file", dir_okay=False)
    ] = None


@dataclass(frozen=True, kw_only=True)
class WideOutcome(OutcomeWithCsv):
    wide: Annotated[bool, typer.Option("--wide", help="every column there is")] = False


@dataclass(frozen=True)
class HelpTexts:
    """The help of each command."""

    list: str
    show: str
    cancel: str
    retry: str
    delete: str | None = None


@dataclass(frozen=True)
class WorkGroup:
    """What tells the commands of one kind of work from those of another.

    path: its name in the client.
    show_whole: prints all there is to it, where `show` leaves something to `--wide`.
    wait: shows progress until the record has ended; returns it as it is then.
    """

    name: str
    path: str
    table: Callable[[list[Record]], Table]
    show: Callable[[Record], None]
    wait: Callable[[Client, Record], Record]
    help: HelpTexts
    selection: type[Selection] = Selection
    outcome: type[Outcome] = Outcome
    show_whole: Callable[[Record], None] | None = None

    def of(self, client: Client) -> Any:
        return getattr(client, self.path)

    def answer(self, client: Client, record: Record, outcome: Outcome) -> None:
        if isinstance(outcome, OutcomeWithCsv) and outcome.csv is not None:
            outcome.csv.write_text(self.of(client).csv(record["id"]), encoding="utf-8")
        if outcome.json:
            as_json(record)
        elif self.show_whole is not None and isinstance(outcome, WideOutcome) and outcome.wide:
            self.show_whole(record)
        else:
            self.show(record)


def add_commands(group: typer.Typer, work: WorkGroup) -> None:
    """All that this kind of work has in common with the others."""
    _add_list(group, work)
    _add_show(group, work)
    _add_acting(group, work, "cancel", work.help.cancel)
    _add_acting(group, work, "retry", work.help.retry)
    _add_priority(group, work)
    if work.help.delete is not None:
        add_delete(group, work.name, work.path, work.help.delete)


def add_delete(group: typer.Typer, name: str, path: str, help: str) -> None:
    """`delete ID`, for whatever the client can delete."""

    @group.command(help=help)
    def delete(ctx: typer.Context, id: _id_of(name)) -> None:  # type: ignore[valid-type]
        with connected(ctx) as client:
            getattr(client, path).delete(id)
        say(f"{id} is deleted")


def _add_priority(group: typer.Typer, work: WorkGroup) -> None:
    @group.command(
        help=f"Have the jobs of a {work.name} go before those of the workspace with a smaller priority."
    )
    def prioritise(
        ctx: typer.Context,
        id: _id_of(work.name),  # type: ignore[valid-type]
        priority: Annotated[
            int, typer.Argument(min=-10, max=10, help="from -10 to 10; 0 where none was given")
        ],
    ) -> None:
        with connected(ctx) as client:
            work.of(client).prioritise(id, priority)
        say(f"{id} has the priority {priority}")


def _add_list(group: typer.Typer, work: WorkGroup) -> None:
    selection_of_work: Any = work.selection

    @group.command("list", help=work.help.list)
    @spread
    def list_(
        ctx: typer.Context, selection: selection_of_work, limit: Limit = 20, outcome: Outcome = Outcome()
    ) -> None:
        with connected(ctx) as client:
            page = work.of(client).page(**vars(selection), limit=limit)
        if outcome.json:
            as_json(page)
        else:
            out.print(work.table(page["items"]))


def _add_show(group: typer.Typer, work: WorkGroup) -> None:
    outcome_of_work: Any = work.outcome

    @group.command(help=work.help.show)
    @spread
    def show(
        ctx: typer.Context,
        id: _id_of(work.name),  # type: ignore[valid-type]
        *,
        wait: Wait = False,
        outcome: outcome_of_work,
    ) -> None:
        with connected(ctx) as client:
            record = work.of(client).get(id)
            if wait:
                record = work.wait(client, record)
            work.answer(client, record, outcome)


def _add_acting(group: typer.Typer, work: WorkGroup, verb: str, help: str) -> None:
    @group.command(verb, help=help)
    @spread
    def act(ctx: typer.Context, id: _id_of(work.name), outcome: Outcome) -> None:  # type: ignore[valid-type]
        with connected(ctx) as client:
            work.answer(client, getattr(work.of(client), verb)(id), outcome)


def _id_of(name: str) -> Any:
    return Annotated[str, typer.Argument(metavar=name.upper(), help="its id")]
