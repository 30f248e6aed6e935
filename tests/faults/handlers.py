"""A handler that does as its job's payload says, in real worker processes. Importing this puts it in place of all kinds."""

import os
import signal
import time
from pathlib import Path

from app.db.tables import Dataset
from app.errors import CandidateFailed, TransientFailure
from app.queue.states import JobKind
from worker import tasks


def run(step, job):
    """`diary`: a file that gets a line per event; `do`: what to do; `steps`: how many tenths of a second to work."""
    asked = job.payload
    if job.kind == JobKind.RANK:
        return None
    diary = Path(asked["diary"])

    def note(line: str) -> None:
        with diary.open("a") as file:
            file.write(f"{job.id} {line}\n")

    note(f"started {job.attempt} {os.getpid()}")
    match asked.get("do", "work"):
        case "die":
            os.kill(os.getpid(), signal.SIGKILL)
        case "raise":
            raise RuntimeError("as asked\x00")
        case "exit":
            raise SystemExit(3)
        case "refuse":
            raise CandidateFailed("unusable, as asked")
        case "fail_once" if job.attempt == 1:
            raise TransientFailure("the first time, as asked")
        case "deaf":
            time.sleep(3600)
    steps = asked.get("steps", 3)
    for stage in ("fetching", "working", "storing"):
        step.stage(stage)
        note(f"stage {stage}")
        for done in range(steps):
            step.progress(done + 1, steps, "steps", stage)
            step.log(f"{stage} {done}")
            time.sleep(0.1)
    note("computed")

    def finish(session):
        row = session.get(Dataset, job.resource_id)
        if row is not None:
            row.summary = {"finished_by": job.attempt, "times": (row.summary or {}).get("times", 0) + 1}
            session.flush()

    return finish


for kind in JobKind:
    tasks.HANDLERS[kind] = "tests.faults.handlers"
