"""Waiting for long work: a bar for each part of it that is at work."""

from typing import Any

from rich.markup import escape
from rich.progress import Progress, TaskID

from app.cli.waiting.bars import bars, show_job
from detrank import ENDED, Client

Record = dict[str, Any]


def wait_for_ranking(client: Client, ranking: Record) -> Record:
    """Waits for a ranking with one bar for each candidate, fed by their jobs, and for each verification."""
    now = ranking
    with bars() as progress:
        tasks = {
            candidate["checkpoint_id"]: progress.add_task(
                escape(candidate["name"]), total=None, note=candidate["state"]
            )
            for candidate in ranking["candidates"]
        }
        for now in client.rankings.follow(ranking["id"]):
            running = {
                job["checkpoint_id"]: job
                for job in client.jobs.list(resource_id=ranking["id"], state="running")
            }
            for candidate in now["candidates"]:
                task, job = tasks[candidate["checkpoint_id"]], running.get(candidate["checkpoint_id"])
                if candidate["state"] in ENDED:
                    progress.update(task, total=1, completed=1, note=candidate["state"])
                elif job is not None:
                    show_job(progress, task, job)
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


def _show_verifications(
    client: Client, progress: Progress, tasks: dict[str, TaskID], ranking: Record
) -> None:
    """A bar for each verification of a ranking, once there are any."""
    parts = {
        one["id"]: candidate["name"]
        for candidate in ranking["candidates"]
        for one in candidate["verifications"]
    }
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
                    tasks[key] = progress.add_task(
                        escape(named), total=part["stop"] - part["begin"] or 1, note=""
                    )
                if key in tasks:
                    _show_part(client, progress, tasks[key], part)
    return now


def wait_for_study(client: Client, record: Record) -> Record:
    """Waits for a study, with one bar for its parts."""
    now = record
    with bars() as progress:
        task = progress.add_task(
            "parts of the study", total=record["progress"]["total"], note=record["state"]
        )
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
    progress.update(
        task,
        completed=max(0, at["done"] - part["begin"]),
        note=escape(f"{job['stage'] or job['state']} {at['message'] or ''}"),
    )


def wait_for_pretraining(client: Client, record: Record) -> Record:
    """Waits for a pretraining, with a bar for its regions, its training and its comparison each."""
    now = record
    with bars() as progress:
        tasks: dict[str, TaskID] = {}
        for now in client.pretrainings.follow(record["id"]):
            _show_jobs(client, progress, tasks, now["id"], ("propose", "learn"))
            if now["verification_ids"]:
                _show_comparison(client, progress, tasks, now)
    return now


def wait_for_pseudo_labelling(client: Client, record: Record) -> Record:
    """Waits for a pseudo-labelling, with a bar for each of its parts that is at work."""
    now = record
    with bars() as progress:
        tasks: dict[str, TaskID] = {}
        for now in client.pseudo_labellings.follow(record["id"]):
            _show_jobs(client, progress, tasks, now["id"], ("look", "teach"))
    return now


def _show_jobs(
    client: Client, progress: Progress, tasks: dict[str, TaskID], id: str, kinds: tuple[str, ...]
) -> None:
    """A bar for each job of a record that is at work; the others have ended."""
    running = [job for job in client.jobs.list(resource_id=id, state="running") if job["kind"] in kinds]
    for job in running:
        if job["id"] not in tasks:
            tasks[job["id"]] = progress.add_task(escape(job["kind"]), total=None, note=job["state"])
        show_job(progress, tasks[job["id"]], job)
    _end_tasks(progress, tasks, {job["id"] for job in running})


def _show_comparison(client: Client, progress: Progress, tasks: dict[str, TaskID], record: Record) -> None:
    ids = record["verification_ids"]
    if "comparison" not in tasks:
        what = "students" if record["method"] == "self_training" else "comparison"
        tasks["comparison"] = progress.add_task(what, total=len(ids), note="")
    done = sum(client.verifications.get(id)["state"] in ENDED for id in ids)
    # of a self-training there are more after each round
    progress.update(
        tasks["comparison"], total=len(ids), completed=done, note=f"{done}/{len(ids)} fine-tunings"
    )


def _end_tasks(progress: Progress, tasks: dict[str, TaskID], running: set[str]) -> None:
    for id, task in tasks.items():
        if id not in running and id != "comparison":
            progress.update(task, total=1, completed=1, note="done")
