"""A bar for what is sent, and for one record that a job works on."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from app.cli.session import err
from detrank import ENDED, Client

Record = dict[str, Any]


@contextlib.contextmanager
def bars() -> Iterator[Progress]:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[note]}"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=err, disable=not err.is_terminal) as progress:
        yield progress


@contextlib.contextmanager
def sending(name: str) -> Iterator[Callable[[int, int], None]]:
    """A bar for the bytes of one file."""
    with bars() as progress:
        task = progress.add_task(f"sending {escape(name)}", total=None, note="")
        yield lambda done, total: progress.update(
            task, completed=done, total=total, note=f"{done >> 20}/{total >> 20} MiB"
        )


def wait_for(client: Client, path: str, record: Record) -> Record:
    """Waits until a dataset or checkpoint is processed, or a job has ended; returns it as it is then.

    path: what the record is, as the client names it.
    """
    with bars() as progress:
        task = progress.add_task(
            escape(record.get("name") or record["kind"]), total=None, note=record["state"]
        )
        now = record
        for now in getattr(client, path).follow(record["id"]):
            if now["state"] in ENDED:
                continue
            if path == "jobs":
                show_job(progress, task, now)
            elif now.get("job_id"):
                show_job(progress, task, client.jobs.get(now["job_id"]))
        progress.update(task, total=1, completed=1, note=now["state"])
    return now


def show_job(progress: Progress, task: TaskID, job: Record) -> None:
    at = job["progress"]
    eta = f" {at['eta_s']:.0f} s left" if at["eta_s"] else ""
    part = "" if job.get("shard") is None else f"part {job['shard'] + 1} of {job['shards']}, "
    progress.update(
        task, total=at["total"], completed=at["done"], note=f"{part}{job['stage'] or job['state']}{eta}"
    )
