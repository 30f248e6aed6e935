"""Waiting, with bars on standard error so that standard output stays clean."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from app.cli.session import err
from app.client import ENDED, Client

Record = dict[str, Any]


@contextlib.contextmanager
def bars() -> Iterator[Progress]:
    columns = (
        TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[note]}"),
        TimeElapsedColumn(),
    )  # fmt: skip
    with Progress(*columns, console=err, disable=not err.is_terminal) as progress:
        yield progress


@contextlib.contextmanager
def sending(name: str) -> Iterator[Callable[[int, int], None]]:
    """A bar for the bytes of one file."""
    with bars() as progress:
        task = progress.add_task(f"sending {escape(name)}", total=None, note="")
        yield lambda done, total: progress.update(task, completed=done, total=total, note=f"{done >> 20}/{total >> 20} MiB")


def wait_for(client: Client, path: str, record: Record) -> Record:
    """Waits until a dataset or checkpoint (`path`) is processed; returns it as it is then."""
    with bars() as progress:
        task = progress.add_task(escape(record["name"]), total=None, note=record["state"])
        now = record
        for now in getattr(client, path).follow(record["id"]):
            if now["state"] not in ENDED and now.get("job_id"):
                _show_job(progress, task, client.jobs.get(now["job_id"]))
        progress.update(task, total=1, completed=1, note=now["state"])
    return now


def wait_for_ranking(client: Client, ranking: Record) -> Record:
    """Waits for a ranking with one bar for each candidate, fed by their jobs, and for each verification."""
    now = ranking
    with bars() as progress:
        tasks = {
            candidate["checkpoint_id"]: progress.add_task(escape(candidate["name"]), total=None, note=candidate["state"])
            for candidate in ranking["candidates"]
        }
        for now in client.rankings.follow(ranking["id"]):
            running = {job["checkpoint_id"]: job for job in client.jobs.list(resource_id=ranking["id"], state="running")}
            for candidate in now["candidates"]:
                task, job = tasks[candidate["checkpoint_id"]], running.get(candidate["checkpoint_id"])
                if candidate["state"] in ENDED:
                    progress.update(task, total=1, completed=1, note=candidate["state"])
                elif job is not None:
                    _show_job(progress, task, job)
            _show_verifications(client, progress, tasks, now)
    return now


def wait_for_verification(client: Client, record: Record) -> Record:
    """Waits for a verification with a bar for its iterations."""
    now = record
    with bars() as progress:
        task = progress.add_task(escape(record["name"] or record["recipe"]), total=None, note=record["state"])
        for now in client.verifications.follow(record["id"]):
            _show_verification(progress, task, now)
    return now


def _show_verifications(client: Client, progress: Progress, tasks: dict[str, TaskID], ranking: Record) -> None:
    """A bar for each verification of a ranking, once there are any."""
    parts = {one["id"]: candidate["name"] for candidate in ranking["candidates"] for one in candidate["verifications"]}
    if not parts:
        return
    for one in client.verifications.list(ranking_id=ranking["id"]):
        if one["id"] not in tasks:
            named = f"fine-tuning {parts.get(one['id'], '')} (seed {one['seed']})"
            tasks[one["id"]] = progress.add_task(escape(named), total=None, note=one["state"])
        _show_verification(progress, tasks[one["id"]], one)


def _show_verification(progress: Progress, task: TaskID, record: Record) -> None:
    at = record["progress"]
    if record["state"] in ENDED:
        found = "" if record["map"] is None else f", mAP {record['map']:.3f}"
        progress.update(task, total=1, completed=1, note=f"{record['state']}{found}")
    elif at:
        eta = f", {at['eta_s']:.0f} s left" if at["eta_s"] else ""
        note = f"{record['stage'] or record['state']} {at['message'] or ''}{eta}"
        progress.update(task, total=at["total"], completed=at["done"], note=escape(note))


def _show_job(progress: Progress, task: TaskID, job: Record) -> None:
    at = job["progress"]
    eta = f" {at['eta_s']:.0f} s left" if at["eta_s"] else ""
    part = "" if job.get("shard") is None else f"part {job['shard'] + 1} of {job['shards']}, "
    progress.update(task, total=at["total"], completed=at["done"], note=f"{part}{job['stage'] or job['state']}{eta}")
