"""Whole pieces of work as steps: what they are to be done on, asked for and waited for."""

from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Any

from detrank import http
from detrank.documents import Checkpoint, Dataset, Record
from detrank.errors import ProblemError
from detrank.inputs import Deadline, checkpoints_of, dataset_of
from detrank.progress import Bars
from detrank.rankings import Ranking
from detrank.resource import ENDED
from detrank.steps import Steps


def ranked(
    service: Any,
    dataset: str | Path | Dataset,
    checkpoints: Sequence[str | Path | Checkpoint],
    fields: Record,
    *,
    bars: Bars,
    timeout_s: float | None,
) -> Steps[Ranking]:
    """A ranking that has ended. Raises ProblemError where it did not succeed."""
    deadline = Deadline(timeout_s)
    target = yield from dataset_of(service, dataset, bars, deadline)
    candidates = yield from checkpoints_of(service, checkpoints, bars, deadline)
    ids = [one["id"] for one in candidates]
    asked = yield from service.rankings.created(target["id"], ids, fields)

    def seen(now: Ranking) -> Generator[Any, Any, None]:
        done = sum(one["state"] in ENDED for one in now["candidates"])
        note = now["stage"] or now["state"]
        if now["state"] not in ENDED:
            running = yield from http.get("/v1/jobs", resource_id=now["id"], state="running", limit=100)
            note = _note(now, running["items"]) or note
        bars.show(now["id"], "candidates", done, len(now["candidates"]), note)

    ranking: Ranking = yield from service.rankings.ended(asked["id"], deadline.left(), seen)
    if ranking["state"] != "succeeded":
        reasons = "; ".join(one["reason"] for one in ranking["left_out"])
        told = {"detail": reasons or f"the ranking {ranking['id']} was {ranking['state']}"}
        raise ProblemError(told | (ranking["error"] or {}))
    return ranking


def _note(ranking: Record, running: Sequence[Record]) -> str:
    """Who is at work on what, of those that have a candidate."""
    names = {one["checkpoint_id"]: one["name"] for one in ranking["candidates"]}
    for job in running:
        if name := names.get(job["checkpoint_id"]):
            return f"{name}: {job['stage'] or job['state']}"
    return ""
