"""Job `search`: what a search trains next, or what it has found.

Each job looks at how the parts of the last round ended, and adds those of the next in the transaction that ends it; one
that adds none has written the answer. The arithmetic is worker/ranking/halving.py.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

import models_store
from app.db import tables
from app.queue import verifications
from worker.files import scratch
from worker.handlers.blobs import keep_file
from worker.handlers.search_answer import answer_of, course_of
from worker.handlers.search_paces import Paces, paces_of
from worker.handlers.search_records import Known, known
from worker.ranking.halving import Entrant, Round, ladder, leader, next_round
from worker.ranking.rounds_plot import rounds_plot
from worker.step import JobView, Step
from worker.training import Untrainable, plan_of

# of one candidate, where the pace of none is known
TIMING_ITERATIONS = 5
# of what is left: what timing the first candidate may be thought to take, and what its iterations may take at most
TIMING_SHARE = 0.05
TIMING_MOST = 0.1
# a part may take so many times the seconds it was thought to, as far as the budget allows, before the clock stops it
PATIENCE = 2.0


@dataclass(frozen=True)
class Asked:
    """A part to be added: the candidate, where it goes on from, and what it is to reach."""

    checkpoint_id: str
    row: tables.Verification | None
    begin: int
    begin_s: float
    stop: int
    predicted_s: float
    stop_at: dict[str, Any]


@dataclass(frozen=True)
class Decision:
    """The next round, `parts` empty where there is none; `result` is what goes on the search in either case."""

    kind: str
    rung: int | None
    left_s: float
    whole: int
    parts: Sequence[Asked] = ()
    result: dict[str, Any] = field(default_factory=dict)


def run(step: Step, job: JobView) -> Callable[[Session], None]:
    """Decides; returns the write of the round with its parts, or of the answer. Raises NotFound."""
    step.stage("deciding")
    with step.database.reading() as session:
        found = known(session, job.resource_id)
        paces = paces_of(session, found, TIMING_ITERATIONS)
    decision = _decided(found, paces)
    step.check()
    plot = None
    if not decision.parts:
        with scratch(step.settings.scratch_dir) as folder:
            title = found.request["name"] or f"Search on {found.dataset.name}"
            best = decision.result["best"]
            course = course_of(found, best and best["checkpoint_id"])
            plot = keep_file(step, rounds_plot(course, folder / "rounds.png", title), "image/png") if course else None

    def finish(session: Session) -> None:
        row = session.get(tables.Search, found.search.id)
        if row is None:
            return
        row.result, row.plot_sha256 = decision.result, plot
        row.rungs = found.rungs
        if decision.parts and row.cancel_requested_at is None:
            row.rungs = [*found.rungs, _begun(session, row, decision, step.settings.max_attempts)]

    return finish


def _decided(found: Known, paces: Paces) -> Decision:
    last = found.rungs[-1] if found.rungs else None
    kept = {name: found.result[name] for name in ("ladder", "late", "longest") if name in found.result}
    if "ladder" not in kept and found.order:
        longest = _longest(found)
        kept |= {"longest": longest}
        if not paces.measured and (timing := _timing(found, paces, longest)):
            return _with_result(timing, found, paces, kept)
        kept |= _ladder(found, paces, longest)
    stops = kept.get("ladder") or []
    whole = stops[-1] if stops else 0
    entrants = found.entrants(paces.of, kept.get("late") or ()) if stops else []
    reserve = _reserve(entrants, paces)
    left = found.left_s
    over = last is not None and last["kind"] == "final" and last["parts"][0]["state"] == "succeeded"
    if stops and not over and (last is None or last["kind"] != "final"):
        asked = found.request
        step = next_round(entrants, stops, left - reserve, eta=asked["eta"], least=asked["min_iterations"])
        if step is not None:
            return _with_result(_round(found, entrants, step, left, left - reserve, whole), found, paces, kept)
    if not over and (best := leader(entrants)) is not None:
        return _with_result(_final(found, best, left, whole, paces), found, paces, kept)
    return _with_result(Decision("end", None, left, whole), found, paces, kept)


def _with_result(decision: Decision, found: Known, paces: Paces, kept: dict[str, Any]) -> Decision:
    entrants = found.entrants(paces.of, kept.get("late") or ()) if kept.get("ladder") else []
    result = kept | answer_of(found, kept, paces, entrants, ended=not decision.parts)
    return Decision(decision.kind, decision.rung, decision.left_s, decision.whole, decision.parts, result)


def _longest(found: Known) -> int:
    """Iterations of a whole training as it was asked for: of the recipe on this number of images."""
    asked = found.request["verification"]
    if asked["iterations"] is not None:
        return asked["iterations"]
    manifest = models_store.Manifest.from_json(found.checkpoints[found.order[0]].manifest)
    images = _images(found)
    try:
        plan = plan_of(
            asked["recipe"], manifest=manifest, images=images, epochs=asked["epochs"], batch_size=asked["batch_size"]
        )
    except Untrainable:  # each of them will say so itself
        return 1
    return plan.iterations


def _images(found: Known) -> int:
    """Images that are trained on; of shots as many as they hold at most."""
    asked = found.request["verification"]
    summary = found.dataset.summary or {}
    images = int(((summary.get("splits") or {}).get("train") or {}).get("images") or 1)
    if asked["label_fraction"] is not None:
        return max(1, round(asked["label_fraction"] * images))
    if asked["shots"] is not None:
        return min(images, asked["shots"] * len(summary.get("categories") or [1]))
    return images


def _ladder(found: Known, paces: Paces, longest: int) -> dict[str, Any]:
    going = [id for id in found.order if not found.lost(id)]
    asked = found.request
    reserve = max((paces.closing_s[id] for id in going), default=0.0)
    opened = ladder(
        [paces.of[id] for id in going],
        longest=longest,
        budget_s=found.left_s - reserve,
        eta=asked["eta"],
        least=asked["min_iterations"],
    )
    if opened is None:
        return {"ladder": [], "late": []}
    return {"ladder": list(opened.stops), "late": [going[place] for place in sorted(opened.late)]}


def _reserve(entrants: Sequence[Entrant], paces: Paces) -> float:
    """Seconds that the last look at the winner may take: of those in the race, the slowest."""
    in_it = [each for each in entrants if not each.lost and each.rung >= 0]
    return max((paces.closing_s[each.id] for each in in_it or entrants if not each.lost), default=0.0)


def _timing(found: Known, paces: Paces, longest: int) -> Decision | None:
    """A few iterations of the first candidate that they cost little, else of the fastest; None where not even these fit."""
    stop = min(TIMING_ITERATIONS, longest)
    predicted = {id: paces.timing_s[id] for id in found.order if not found.lost(id)}
    if not predicted or min(predicted.values()) > found.left_s:
        return None
    little = (id for id, seconds in predicted.items() if seconds <= TIMING_SHARE * found.left_s)
    id = next(little, min(predicted, key=lambda id: predicted[id]))
    seconds = max(1.0, TIMING_MOST * found.left_s)
    stop_at = {"iterations": stop, "seconds": seconds, "conclude": False, "timing": True}
    part = Asked(id, None, 0, 0.0, stop, predicted[id], stop_at)
    return Decision("timing", None, found.left_s, longest, [part])


def _round(
    found: Known, entrants: Sequence[Entrant], step: Round, left: float, spendable: float, whole: int
) -> Decision:
    standing = {each.id: each for each in entrants}
    patience = max(1.0, min(PATIENCE, spendable / step.predicted_s if step.predicted_s > 0 else PATIENCE))
    parts = []
    for part in step.parts:
        each, row = standing[part.id], found.row_of(part.id)
        begin_s = (row.seconds or 0.0) if row is not None else 0.0
        training_s = each.pace.seconds(each.iterations, part.stop, whole) - each.pace.part_s
        stop_at = {"iterations": part.stop, "seconds": begin_s + max(1.0, patience * training_s), "conclude": False}
        parts.append(Asked(part.id, row, each.iterations, begin_s, part.stop, part.predicted_s, stop_at))
    return Decision("round", step.rung, left, whole, parts)


def _final(found: Known, best: Entrant, left: float, whole: int, paces: Paces) -> Decision:
    row = found.row_of(best.id)
    stop_at = {"iterations": best.iterations, "seconds": None, "conclude": True}
    part = Asked(best.id, row, best.iterations, row.seconds or 0.0, best.iterations, paces.closing_s[best.id], stop_at)
    return Decision("final", best.rung, left, whole, [part])


def _begun(session: Session, search: tables.Search, decision: Decision, max_attempts: int) -> dict[str, Any]:
    """The round as it is kept, its verifications queued."""
    rows = select(func.count()).select_from(tables.Verification)
    position = session.scalar(rows.where(tables.Verification.search_id == search.id))
    parts = []
    for asked in decision.parts:
        if asked.row is None:
            row = verifications.add(
                session,
                workspace_id=search.workspace_id,
                request=search.request["verification"]
                | {"checkpoint_id": asked.checkpoint_id, "epochs": None, "iterations": decision.whole},
                owner=search,
                position=position + len(parts),
                stop_at=asked.stop_at,
                max_attempts=max_attempts,
            )
        else:
            row = session.get_one(tables.Verification, asked.row.id, with_for_update=True)
            verifications.go_on(session, row, stop_at=asked.stop_at, max_attempts=max_attempts)
        parts.append(
            {
                "checkpoint_id": asked.checkpoint_id,
                "verification_id": row.id,
                "job_id": row.job_id,
                "begin": asked.begin,
                "begin_s": asked.begin_s,
                "stop": asked.stop,
                "predicted_s": round(asked.predicted_s, 3),
                "seconds": None,
                "trained_s": None,
                "loading_s": None,
                "evaluating_s": None,
                "state": None,
                "iterations": None,
                "map": None,
                "ap50": None,
                "error": None,
            }
        )
    return {
        "kind": decision.kind,
        "rung": decision.rung,
        "stop": max(part["stop"] for part in parts),
        "left_s": round(decision.left_s, 3),
        "predicted_s": round(sum(part["predicted_s"] for part in parts), 3),
        "seconds": None,
        "decided_at": datetime.now(UTC).isoformat(),
        "parts": parts,
    }
