"""`--shelf`: candidates from the table of public checkpoints, for those who bring none."""

from dataclasses import dataclass
from typing import Annotated, Any

import typer

from app.cli.commands import checkpoints
from app.cli.options import given, split
from app.cli.session import Failed, note
from app.cli.waiting.bars import wait_for
from detrank import Client

Record = dict[str, Any]
USUAL_COUNT = 8
OFFLINE = "offline"
GIGABYTE = 1e9


@dataclass(frozen=True, kw_only=True)
class FromShelf:
    """Which public checkpoints are candidates. Fields are named as in the request."""

    shelf: Annotated[
        bool, typer.Option("--shelf", help="also rank public checkpoints, the best published COCO AP first")
    ] = False
    licence: Annotated[
        str | None, typer.Option(help="of --shelf: an SPDX name, or permissive (Apache-2.0, MIT, BSD)")
    ] = None
    max_parameters: Annotated[int | None, typer.Option(min=1, help="of --shelf")] = None
    families: Annotated[
        str | None, typer.Option(help="of --shelf: comma separated, e.g. rt_detr,d_fine,two_stage,backbone")
    ] = None
    count: Annotated[
        int | None, typer.Option("--shelf-count", min=1, help=f"of --shelf: at most so many; {USUAL_COUNT}")
    ] = None
    gigabytes: Annotated[
        float | None, typer.Option(min=0.001, help="of --shelf: of weights to fetch, all together")
    ] = None

    def filters(self) -> Record:
        """As the request has them. Raises Failed where they are given without --shelf."""
        asked = {
            "licence": self.licence,
            "max_parameters": self.max_parameters,
            "families": split(self.families),
            "count": self.count,
            "gigabytes": self.gigabytes,
        }
        if not self.shelf and given(asked):
            raise Failed(f"{', '.join(given(asked) or ())}: of --shelf; give --shelf too")
        return asked | {"count": self.count or USUAL_COUNT}


def taken_from_shelf(client: Client, choice: FromShelf) -> list[str]:
    """Ids of the shelf's checkpoints that fit and are ready: what is here already, and what can be fetched.

    The best are tried first, as many as are asked for; for each that cannot be had the next one is tried.
    What a server that cannot be reached would have given is told in one line.

    Raises Failed where nothing is left.
    """
    filters = choice.filters()
    if not choice.shelf:
        return []
    here = _here(client)
    asked = given(filters | {"count": None, "gigabytes": None}) or {}
    waiting = list(client.get("/v1/shelf", **asked)["items"])
    if not waiting:
        raise Failed("nothing on the shelf fits: ask for less, see GET /v1/shelf")
    ids: list[str] = []
    away: list[str] = []
    left = (choice.gigabytes or float("inf")) * GIGABYTE
    while waiting and len(ids) < filters["count"]:
        round_: list[tuple[Record, Record]] = []
        while waiting and len(ids) + len(round_) < filters["count"]:
            row = waiting.pop(0)
            size = 0 if row["name"] in here else row["bytes"]
            if size <= left:
                left -= size
                round_.append((row, here.get(row["name"]) or _sent(client, row)))
        for row, record in round_:
            record = wait_for(client, "checkpoints", record) if record["state"] == "processing" else record
            if record["state"] == "ready":
                ids.append(record["id"])
                continue
            left += row["bytes"]
            if (record.get("error") or {}).get("code") == OFFLINE:
                away.append(row["name"])
            else:
                note(f"left out: {checkpoints.refusal(record)}")
    if away:
        servers = ", ".join(sorted({name.partition("://")[0] + "://" for name in away}))
        note(f"{servers} cannot be reached: {len(away)} of the shelf are not here, {len(ids)} are")
    if not ids:
        raise Failed("nothing of the shelf is here or can be fetched: give checkpoints of your own")
    return ids


def _sent(client: Client, row: Record) -> Record:
    return checkpoints.send(client, row["name"], name=row["name"], licence=row["licence"])


def _here(client: Client) -> dict[str, Record]:
    """Ready checkpoints by the source that they were fetched from."""
    records = client.checkpoints.list(state="ready")
    return {record["request"]["source"]: record for record in records if record["request"].get("source")}
