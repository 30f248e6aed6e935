"""What a command is to work on: datasets and checkpoints that are there, or are sent and waited for first."""

from pathlib import Path
from typing import Any

from app.cli.commands import checkpoints, datasets
from app.cli.session import Failed, note
from app.cli.waiting.bars import wait_for
from detrank import Client

Record = dict[str, Any]


def dataset_for(client: Client, word: str) -> Record:
    """The ready dataset that an id, a name, a path or a source stands for. Raises Failed where it is not usable."""
    fresh = "://" in word or (Path(word).exists() and not word.startswith("ds_"))
    record = datasets.send(client, word) if fresh else datasets.find(client, word)
    if record["state"] == "processing":
        record = wait_for(client, "datasets", record)
    datasets.fail_if_invalid(record)
    if fresh:
        datasets.tell_how_it_was_read(client, record)
    return record


def checkpoints_for(client: Client, words: list[str]) -> tuple[list[Record], list[Record]]:
    """The ready checkpoints, and those that cannot be used. Raises Failed where none is left."""
    records = []
    for word in words:
        if "://" in word or (Path(word).exists() and not word.startswith("ckpt_")):
            records.append(checkpoints.send(client, word))
        else:
            records.append(checkpoints.find(client, word))
    records = [wait_for(client, "checkpoints", r) if r["state"] == "processing" else r for r in records]
    unusable = [record for record in records if record["state"] != "ready"]
    if len(unusable) == len(records):
        raise Failed("\n".join(checkpoints.refusal(record) for record in unusable))
    return [record for record in records if record["state"] == "ready"], unusable


def tell_of_unusable(records: list[Record]) -> None:
    """Names on standard error those that were left out, and why."""
    for record in records:
        note(f"left out: {checkpoints.refusal(record)}")
