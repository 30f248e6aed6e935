"""Waiting for a search or a study: a bar for each ranking, and one for all trainings."""

from typing import Any

from rich.markup import escape

from app.cli.progress import bars
from app.client import ENDED, Client

Record = dict[str, Any]


def wait_for_search(client: Client, record: Record) -> Record:
    """Waits for a search, with a bar for the budget and one for each training at work."""
    now = record
    with bars() as progress:
        budget = progress.add_task("budget", total=record["spent"]["budget_s"], note=record["state"])
        tasks = {}
        for now in client.searches.follow(record["id"]):
            progress.update(budget, completed=now["spent"]["total_s"], note=_stage(now))
            for part in now["rounds"][-1]["parts"] if now["rounds"] else ():
                key = part["job_id"]
                if key not in tasks and part["state"] not in ENDED:
                    named = f"{part['name']} to {part['stop']}"
                    tasks[key] = progress.add_task(escape(named), total=part["stop"] - part["begin"] or 1, note="")
                if key in tasks:
                    _show_part(client, progress, tasks[key], part)
    return now


def wait_for_study(client: Client, record: Record) -> Record:
    """Waits for a study, with one bar for its parts."""
    now = record
    with bars() as progress:
        task = progress.add_task("parts of the study", total=record["progress"]["total"], note=record["state"])
        for now in client.studies.follow(record["id"]):
            at = now["progress"]
            note = f"{at['done']}/{at['total']} {_stage(now)}"
            progress.update(task, total=at["total"], completed=at["done"], note=note)
    return now


def _stage(record: Record) -> str:
    return record["stage"] or record["state"]


def _show_part(client: Client, progress: Any, task: Any, part: Record) -> None:
    if part["state"] in ENDED:
        found = "" if part["map"] is None else f", mAP {part['map']:.3f}"
        progress.update(task, completed=part["stop"] - part["begin"] or 1, note=f"{part['state']}{found}")
        return
    job = client.jobs.get(part["job_id"])
    at = job["progress"]
    progress.update(task, completed=max(0, at["done"] - part["begin"]), note=escape(f"{job['stage'] or job['state']} {at['message'] or ''}"))
