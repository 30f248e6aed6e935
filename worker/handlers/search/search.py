"""Job `search`: what a search trains next, or what it has found.

Each job looks at how the parts of the last round ended, and adds those of the next in the transaction that ends it; one
that adds none has written the answer. The arithmetic is worker/ranking/halving.py.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Literal

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from app.db import documents, tables
from app.db.documents import DatasetSummary, Ladder, Part, SearchResult, StopAt
from app.queue import verifications
from app.queue.ranking_order import order_of
from worker.attempt import Attempt, Cancelled, ClaimedJob
from worker.files import scratch
from worker.handlers.inputs import manifest_of
from worker.handlers.results import keep_file
from worker.handlers.search.answer import answer_of, course_of
from worker.handlers.search.outlook import at_once, outlook_of
from worker.handlers.search.paces import Paces, paces_of
from worker.handlers.search.records import Known, known
from worker.ranking.belief import shipped
from worker.ranking.expected_improvement import (
    Outlook,
    expected_map,
    next_stretches,
    prospects,
    stops_of,
    whole_training,
)
from worker.ranking.halving import Entrant, Round, ladder, leader, next_round
from worker.ranking.halving import Part as Stretch
from worker.ranking.rounds_plot import rounds_plot
from worker.training.errors import Untrainable
from worker.training.plan import plan_of

# iterations of one candidate that are timed where no pace is known
TIMING_ITERATIONS = 5
# shares of the seconds left: the longest predicted timing of the first candidate, and the longest that its iterations may run
TIMING_SHARE = 0.05
TIMING_MOST = 0.1
# the clock stops a part after so many times its predicted seconds, or when the budget ends; not before this share of what may
# be spent, for a part of few seconds is long only because the machine did something else
PATIENCE = 2.0
MOMENT = 0.01


@dataclass(frozen=True)
class Asked:
    """A part to add: the candidate, the iteration it goes on from, and the one it trains up to."""

    checkpoint_id: str
    row: tables.Verification | None
    begin: int
    begin_s: float
    stop: int
    predicted_s: float
    stop_at: StopAt
    rung: int | None = None
    improvement: float | None = None


@dataclass(frozen=True)
class Decision:
    """The next round, `parts` empty where there is none."""

    kind: Literal["timing", "round", "final", "end"]
    rung: int | None
    left_s: float
    whole: int
    parts: Sequence[Asked] = ()


def run(attempt: Attempt, job: ClaimedJob) -> Callable[[Session], None]:
    """Decides; returns the write of the round with its parts, or of the answer. Raises NotFound."""
    attempt.stage("deciding")
    with attempt.database.reading() as session:
        found = known(session, job.resource_id)
        paces = paces_of(session, found, TIMING_ITERATIONS)
        spending = _spending(attempt, session, found, paces)
    decision, result = _decided(found, paces, spending)
    attempt.check()
    plot = None
    if not decision.parts:
        with scratch(attempt.settings.scratch_dir) as folder:
            title = found.request["name"] or f"Search on {found.dataset.name}"
            best = result["best"]
            course = course_of(found, best["checkpoint_id"] if best else None)
            plot = (
                keep_file(attempt, rounds_plot(course, folder / "rounds.png", title), "image/png")
                if course
                else None
            )

    def finish(session: Session) -> None:
        row = session.get(tables.Search, found.search.id)
        if row is None:
            return
        row.result, row.plot_sha256 = result, plot
        row.rounds = found.rounds
        if decision.parts and row.cancel_requested_at is not None:
            raise Cancelled(job.id)
        if decision.parts:
            parent = session.get_one(tables.Job, job.id)
            row.rounds = [*found.rounds, _begun(session, row, parent, decision)]

    return finish


@dataclass(frozen=True)
class Spending:
    """How the budget is spent: `kept` has the ladder, `entrants` stand as they do, with what decides between them as their
    value. timing: a round that has to come before. outlook: where expected improvement decides, of the first entrants."""

    kept: Ladder
    entrants: Sequence[Entrant] = ()
    timing: Decision | None = None
    outlook: Outlook | None = None
    looked: Sequence[Entrant] = ()
    parts: int = 1

    def next_round(self, asked: Mapping[str, Any], left_s: float) -> Round | None:
        least, stops = asked["min_iterations"], self.kept["ladder"]
        if self.outlook is None:
            return next_round(self.entrants, stops, left_s, eta=asked["eta"], least=least)
        return next_stretches(
            self.looked,
            self.outlook,
            stops,
            left_s,
            parts=self.parts,
            least=least,
            least_improvement=asked["min_improvement"],
        )

    def prospects(self) -> dict[str, Stretch]:
        """What going on would be expected to bring of each candidate; nothing where that does not decide."""
        stops = self.kept.get("ladder", [])
        return prospects(self.looked, self.outlook, stops) if self.outlook is not None and stops else {}


def _spending(attempt: Attempt, session: Session, found: Known, paces: Paces) -> Spending:
    kept = found.ladder
    if found.order and "strategy" not in kept:
        # once: a belief that changes meanwhile changes nothing of it
        kept["strategy"] = _strategy(found)
    expecting = kept.get("strategy") == "expected_improvement"
    if "ladder" not in kept and found.order:
        longest = _longest(found)
        kept["longest"] = longest
        if not paces.measured and (timing := _timing(found, paces, longest)):
            return Spending(kept, timing=timing)
        kept.update(_stops(found, paces, longest) if expecting else _ladder(found, paces, longest))
    stops = kept.get("ladder", [])
    entrants = found.entrants(paces.of, kept.get("late", [])) if stops else []
    if not (expecting and stops):
        return Spending(kept, entrants)
    outlook = outlook_of(session, found, stops[-1], _images(found))
    looked = entrants[: len(outlook.mean)]
    expected = expected_map(looked, outlook, stops[-1])
    # the answer is the best of those that came furthest by what is believed of them, not by one look
    valued = [
        replace(each, value=float(value)) for each, value in zip(looked, expected, strict=True)
    ] + entrants[len(looked) :]
    parts = at_once(session, found.request["parallel"], attempt.settings.lease_s)
    return Spending(kept, valued, None, outlook, looked, parts)


def _strategy(found: Known) -> Literal["halving", "expected_improvement"]:
    """As asked; else what is believed of the candidates decides where it orders them, too."""
    asked = found.request.get("strategy", "halving")
    believed = asked is None and order_of(found.ranking) == "predicted_map"
    return "expected_improvement" if believed or asked == "expected_improvement" else "halving"


def _stops(found: Known, paces: Paces, longest: int) -> Ladder:
    """Where stretches may end; see expected_improvement.py."""
    going = [id for id in found.order if not found.lost(id)]
    least = found.request["min_iterations"]
    reserve = max((paces.closing_s[id] for id in going), default=0.0)
    whole = whole_training(
        [paces.of[id] for id in going], longest=longest, budget_s=found.left_s - reserve, least=least
    )
    return {"ladder": [] if whole is None else list(stops_of(whole, shipped().curves, least)), "late": []}


def _decided(found: Known, paces: Paces, spending: Spending) -> tuple[Decision, SearchResult]:
    """The next round or the answer, and what is written on the search in either case."""
    last = found.rounds[-1] if found.rounds else None
    kept = spending.kept
    if spending.timing is not None:
        return _with_result(spending.timing, found, paces, spending)
    stops = kept.get("ladder", [])
    whole = stops[-1] if stops else 0
    entrants = spending.entrants
    reserve = _reserve(entrants, paces)
    left = found.left_s
    over = last is not None and last["kind"] == "final" and last["parts"][0]["state"] == "succeeded"
    if stops and not over and (last is None or last["kind"] != "final"):
        step = spending.next_round(found.request, left - reserve)
        if step is not None:
            return _with_result(
                _round(found, entrants, step, left, left - reserve, whole), found, paces, spending
            )
    if not over and (best := leader(entrants)) is not None:
        return _with_result(_final(found, best, left, whole, paces), found, paces, spending)
    return _with_result(Decision("end", None, left, whole), found, paces, spending)


def _with_result(
    decision: Decision, found: Known, paces: Paces, spending: Spending
) -> tuple[Decision, SearchResult]:
    ended = not decision.parts
    little = spending.prospects() if ended else {}
    return decision, answer_of(found, spending.kept, paces, spending.entrants, little, ended=ended)


def _longest(found: Known) -> int:
    """Iterations of a whole training as it was asked for: of the recipe on this number of images."""
    asked = found.request["verification"]
    if asked["iterations"] is not None:
        return int(asked["iterations"])
    manifest = manifest_of(found.checkpoints[found.order[0]])
    images = _images(found)
    try:
        plan = plan_of(
            asked["recipe"],
            manifest=manifest,
            images=images,
            epochs=asked["epochs"],
            batch_size=asked["batch_size"],
        )
    except Untrainable:  # each of them will say so itself
        return 1
    return plan.iterations or 1  # None is only where seconds decide, which a search does not ask for


def _images(found: Known) -> int:
    """Images that are trained on; of shots as many as they hold at most."""
    asked = found.request["verification"]
    summary = found.dataset.summary or DatasetSummary()
    train = summary.get("splits", {}).get("train")
    images = max(1, train["images"] if train else 1)
    if asked["label_fraction"] is not None:
        return max(1, round(asked["label_fraction"] * images))
    if asked["shots"] is not None:
        return min(images, int(asked["shots"]) * max(1, len(summary.get("categories", []))))
    return images


def _ladder(found: Known, paces: Paces, longest: int) -> Ladder:
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
    """A round that times a few iterations: of the first candidate for which they are cheap, otherwise of the fastest; None where
    not even these fit."""
    stop = min(TIMING_ITERATIONS, longest)
    predicted = {id: paces.timing_s[id] for id in found.order if not found.lost(id)}
    if not predicted or min(predicted.values()) > found.left_s:
        return None
    little = (id for id, seconds in predicted.items() if seconds <= TIMING_SHARE * found.left_s)
    id = next(little, min(predicted, key=lambda id: predicted[id]))
    seconds = max(1.0, TIMING_MOST * found.left_s)
    stop_at: StopAt = {"iterations": stop, "seconds": seconds, "conclude": False, "timing": True}
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
        stop_at: StopAt = {
            "iterations": part.stop,
            "seconds": begin_s + max(1.0, patience * training_s, MOMENT * spendable),
            "conclude": False,
        }
        parts.append(
            Asked(
                part.id,
                row,
                each.iterations,
                begin_s,
                part.stop,
                part.predicted_s,
                stop_at,
                part.rung,
                part.improvement,
            )
        )
    return Decision("round", step.rung, left, whole, parts)


def _final(found: Known, best: Entrant, left: float, whole: int, paces: Paces) -> Decision:
    row, _ = found.trained(best.id)
    stop_at: StopAt = {"iterations": best.iterations, "seconds": None, "conclude": True}
    part = Asked(
        best.id, row, best.iterations, row.seconds or 0.0, best.iterations, paces.closing_s[best.id], stop_at
    )
    return Decision("final", best.rung, left, whole, [part])


def _begun(
    session: Session, search: tables.Search, parent: tables.Job, decision: Decision
) -> documents.Round:
    """The round as it is kept, its verifications queued; `parent`: the search's own job."""
    rows = select(func.count()).select_from(tables.Verification)
    position = session.scalar(rows.where(tables.Verification.search_id == search.id)) or 0
    parts: list[Part] = []
    for asked in decision.parts:
        if asked.row is None:
            row = verifications.add(
                session,
                workspace_id=search.workspace_id,
                request=search.request["verification"]
                | {"checkpoint_id": asked.checkpoint_id, "epochs": None, "iterations": decision.whole},
                parent=parent,
                position=position + len(parts),
                stop_at=asked.stop_at,
            )
        else:
            row = session.get_one(tables.Verification, asked.row.id)
            paused = session.get_one(tables.Job, row.job_id, with_for_update=True)
            verifications.go_on(session, row, paused, stop_at=asked.stop_at)
        parts.append(_part(asked, row))
    if decision.kind == "end":
        raise AssertionError("a search that has ended begins no round")
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


def _part(asked: Asked, row: tables.Verification) -> Part:
    return {
        "checkpoint_id": asked.checkpoint_id,
        "verification_id": row.id,
        "job_id": row.job_id,
        "begin": asked.begin,
        "begin_s": asked.begin_s,
        "stop": asked.stop,
        "rung": asked.rung,
        "expected_improvement": asked.improvement,
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
