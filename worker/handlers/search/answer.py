"""What a search answers: the best checkpoint, how sure that is, what was spent, and what brute force would have taken."""

from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np

from app.db.documents import Agreement, Best, BruteForce, Ladder, LeftOut, SearchResult, Sure
from app.errors import detail_of
from worker.handlers.search.paces import Paces
from worker.handlers.search.records import LOST, Known, rung_of
from worker.ranking.halving import Entrant, leader
from worker.ranking.halving import Part as Stretch
from worker.studies.measures.agreement import kendall

FEWEST = 3
# mAP: seeds of one training differ by as much
CLOSE = 0.01

# rung to (iterations, mAP by candidate)
Table = dict[int, tuple[int, dict[str, float]]]


def answer_of(
    found: Known,
    kept: Ladder,
    paces: Paces,
    entrants: Sequence[Entrant],
    prospects: Mapping[str, Stretch],
    *,
    ended: bool,
) -> SearchResult:
    """While the search goes on only what is known by now. prospects: what training a candidate on would be expected to
    bring, where that decided."""
    stops = kept.get("ladder", [])
    total = found.ranking_s + found.training_s
    result: SearchResult = {
        **kept,
        "spent": {
            "budget_s": found.budget_s,
            "ranking_s": round(found.ranking_s, 3),
            "training_s": round(found.training_s, 3),
            "total_s": round(total, 3),
            "left_s": round(found.budget_s - total, 3),
        },
        "names": found.names,
        "best": _best(found, entrants),
        "brute_force": _brute_force(found, stops, paces, entrants),
        "left_out": _left_out(found, stops, paces, entrants, prospects, ended),
        "warnings": _warnings(found, stops, kept.get("longest"), entrants, ended),
    }
    if ended:
        result["sure"], result["summary"] = _sure(found, entrants), _summary(found, entrants, result)
    return result


def course_of(found: Known, best: str | None) -> dict[str, list[tuple[int, float]]]:
    """Name of each candidate to (iterations, validation mAP), round by round; the best one last."""
    course: dict[str, list[tuple[int, float]]] = {}
    for part in found.parts("round"):
        if part["map"] is not None and part["iterations"] is not None:
            course.setdefault(part["checkpoint_id"], []).append((part["iterations"], part["map"]))
    ordered = sorted(course.items(), key=lambda each: (each[0] == best, each[1][-1]))
    return {found.names[id]: points for id, points in ordered}


def _best(found: Known, entrants: Sequence[Entrant]) -> Best | None:
    best = leader(entrants)
    if best is None:
        return None
    last = [part for part in found.parts("round", "final") if part["checkpoint_id"] == best.id][-1]
    return {
        "checkpoint_id": best.id,
        "verification_id": last["verification_id"],
        "iterations": best.iterations,
        "whole": best.iterations >= found.verifications[last["verification_id"]].request["iterations"],
        "rank": found.order.index(best.id) + 1,
    }


def _brute_force(
    found: Known, stops: Sequence[int], paces: Paces, entrants: Sequence[Entrant]
) -> BruteForce | None:
    if not stops:
        return None
    whole = stops[-1]
    seconds = sum(paces.of[id].seconds(0, whole, whole) + paces.closing_s[id] for id in found.order)
    measured = sum(each.rung >= 0 for each in entrants)
    return {
        "seconds": round(seconds, 1),
        "minutes": round(seconds / 60, 2),
        "candidates": len(found.order),
        "iterations": whole,
        "text": f"an estimate: {len(found.order)} trainings of {whole} iterations each at the pace that was measured "
        f"for {measured} of them and reckoned from a forward pass for the others",
    }


def _left_out(
    found: Known,
    stops: Sequence[int],
    paces: Paces,
    entrants: Sequence[Entrant],
    prospects: Mapping[str, Stretch],
    ended: bool,
) -> list[LeftOut]:
    ranked = found.ranking.result
    out: list[LeftOut] = [
        {**one, "name": found.names[one["checkpoint_id"]]} for one in (ranked["left_out"] if ranked else [])
    ]
    out += [_lost(found, id) for id in found.order if found.lost(id)]
    if not ended:
        return out
    trained = {each.id for each in entrants if each.rung >= 0}
    for id in found.order:
        if id not in trained and not found.lost(id):
            stretch = prospects.get(id)
            if stretch is not None and stretch.predicted_s <= found.left_s:
                reason = (
                    f"training it for about {stretch.predicted_s:.0f} s, to iteration {stretch.stop}, was expected to "
                    f"raise the best mAP by {stretch.improvement or 0.0:.4f}: less than asked for a second"
                )
                out.append(_out(found, id, "little_expected", reason))
                continue
            reason = f"there was no room for it in the budget: {max(0.0, found.left_s):.0f} s were left"
            if stops:
                reason += f", its first {stops[0]} iterations would take about {paces.of[id].seconds(0, stops[0], stops[-1]):.0f} s"
            out.append(_out(found, id, "no_room", reason))
    return out


def _lost(found: Known, id: str) -> LeftOut:
    part = next(part for part in found.parts() if part["checkpoint_id"] == id and part["state"] in LOST)
    state = str(part["state"])
    return _out(found, id, state, detail_of(part["error"], f"it was {state}"))


def _out(found: Known, id: str, code: str, reason: str) -> LeftOut:
    return {"checkpoint_id": id, "name": found.names[id], "code": code, "reason": reason}


def _warnings(
    found: Known, stops: Sequence[int], longest: int | None, entrants: Sequence[Entrant], ended: bool
) -> list[str]:
    said = []
    if stops and longest and stops[-1] < longest:
        said.append(
            f"a whole training has {stops[-1]} iterations instead of the {longest} asked for: more do not fit the budget"
        )
    clocked = [
        part
        for part in found.parts("round")
        if part["iterations"] is not None and part["iterations"] < part["stop"]
    ]
    stopped = [
        part
        for part in clocked
        if (ended_so := found.verifications[part["verification_id"]].result)
        and ended_so["finished"] == "paused"
    ]
    if stopped:
        names = ", ".join(found.names[part["checkpoint_id"]] for part in stopped[:5])
        said.append(
            f"{len(stopped)} parts took longer than was thought and were stopped by the clock before the end of their "
            f"round ({names}): they are compared at fewer iterations"
        )
    best = leader(entrants)
    if ended and best is not None and stops and best.iterations < stops[-1]:
        said.append(
            f"nobody came to the end of a training: the best was stopped after {best.iterations} of {stops[-1]} iterations, "
            "and would be better still with more"
        )
    if ended and found.left_s < 0:
        said.append(
            f"{-found.left_s:.0f} s more than the budget were spent: some parts took longer than was thought"
        )
    if ended and best is not None:
        _, trained = found.trained(best.id)
        said += [note for note in trained["warnings"] if note not in said]
    return said


def _sure(found: Known, entrants: Sequence[Entrant]) -> Sure | None:
    best = leader(entrants)
    if best is None:
        return None
    table = _by_rung(found)
    at: int | None = None
    runner_up: str | None = None
    margin: float | None = None
    for rung in sorted(table, reverse=True):  # where it was compared last
        stop, values = table[rung]
        others = {id: value for id, value in values.items() if id != best.id}
        if best.id in values and others:
            runner_up = max(others, key=lambda id: others[id])
            at, margin = stop, round(values[best.id] - others[runner_up], 6)
            break
    _, trained = found.trained(best.id)
    images, agree = trained["val"]["images"], _rounds_agree(table)
    return {
        "runner_up": runner_up,
        "margin": margin,
        "at": at,
        "val_images": images,
        "rounds_agree": agree,
        "score_agrees": _score_agrees(found, table),
        "text": _sure_text(None if runner_up is None else found.names[runner_up], margin, at, images, agree),
    }


def _by_rung(found: Known) -> Table:
    table: Table = {}
    for one in found.rounds:
        if one["kind"] == "round" and one["rung"] is not None:
            for part in one["parts"]:
                if part["map"] is not None:
                    _, values = table.setdefault(rung_of(one, part), (part["stop"], {}))
                    values[part["checkpoint_id"]] = part["map"]
    return table


def _rounds_agree(table: Table) -> list[Agreement]:
    return [
        _agreement(first, second, [(one[id], other[id]) for id in one if id in other])
        for (_, (first, one)), (_, (second, other)) in pairwise(sorted(table.items()))
    ]


def _score_agrees(found: Known, table: Table) -> Agreement | None:
    if not table:
        return None
    stop, values = table[min(table)]
    return _agreement(0, stop, [(-float(found.order.index(id)), value) for id, value in values.items()])


def _agreement(first: int, second: int, pairs: list[tuple[float, float]]) -> Agreement:
    value = None
    if len(pairs) >= FEWEST:
        one, other = (np.array(column)[None] for column in zip(*pairs, strict=True))
        found = float(kendall(one, other)[0])
        value = round(found, 4) if np.isfinite(found) else None
    return {"first": first, "second": second, "n": len(pairs), "kendall": value}


def _sure_text(
    runner_up: str | None, margin: float | None, at: int | None, images: int, agree: list[Agreement]
) -> str:
    if runner_up is None or margin is None:
        return "nobody else was trained as far, so it was compared with nobody: the order of the scores is all there is"
    lead = (
        f"ahead of {runner_up} by {margin:.3f} mAP"
        if margin >= 0
        else f"{-margin:.3f} mAP behind {runner_up}"
    )
    said = f"on {images} validation images it was {lead} after {at} iterations, with one seed each"
    if margin < CLOSE:
        said += ": another seed could turn that round"
    known = [one for one in agree if one["kendall"] is not None]
    if known:
        said += "; a round agrees with the next by a Kendall's tau of " + ", ".join(
            f"{one['kendall']:.2f} (n = {one['n']})" for one in known
        )
    return said


def _summary(found: Known, entrants: Sequence[Entrant], result: SearchResult) -> str:
    spent, best = result["spent"], leader(entrants)
    used = f"{spent['total_s'] / 60:.1f} of {spent['budget_s'] / 60:g} minutes"
    if best is None:
        why = (
            "no candidate has a score" if not found.order else "not one training fits into what scoring left"
        )
        if found.order and all(found.lost(id) for id in found.order):
            why = "every training failed"
        return f"no candidate was fine-tuned: {why} ({used} spent)"
    _, result_of_best = found.trained(best.id)
    maps = [
        f"{evaluation['box']['map']:.3f} on {split}"
        for split, evaluation in (("test", result_of_best["test"]), ("val", result_of_best["val"]))
        if evaluation and evaluation["box"]["map"] is not None
    ]
    trained = sum(each.rung >= 0 for each in entrants)
    said = f"the best of {trained} that were trained is {found.names[best.id]}, mAP {' and '.join(maps) or 'undefined'}"
    said += f", after {best.iterations} iterations; {used} spent"
    if brute := result["brute_force"]:
        said += f", brute force on {brute['candidates']} would take about {brute['minutes']:.1f}"
    return said
