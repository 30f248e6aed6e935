"""What is believed of rankings' candidates, kept true: made anew where what it stands on has changed.

Nobody who finishes, deletes or forgets a verification has to think of it: a mark on the ranking says what of the
workspace its belief was made from (app/queue/beliefs.py), and the sweeper compares and starts this
(worker/belief_renewal.py).
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.db import documents, tables
from app.db.engine import Database
from app.queue.beliefs import counts, marks, stale
from app.settings import get_settings
from worker.belief_renewal import shipped_mark
from worker.data.dataset import WITH_BOXES
from worker.ranking.belief import Evidence, Facts, Observed, TargetFacts, believe, shipped
from worker.ranking.belief.design import standardised
from worker.ranking.belief.facts import facts_of_manifest, scores_of
from worker.ranking.belief.records import AT_THE_END, MAPS, PIXELS, SCORES

# the newest of a workspace; more would add little and cost with their cube
MOST_EVIDENCE = 500
AT_ONCE = 20
# of a plan, what decides which mAP a training comes to, beside dataset, candidate and seed
BUDGET = ("iterations", "budget_s", "image_size", "batch_size", "freeze", "lr_factor", "ema", "images")


log = logging.getLogger(__name__)

UNTELLABLE = (ArithmeticError, LookupError, TypeError, ValueError)


def renew(database: Database) -> int:
    """Makes beliefs anew that stand on what has changed, some at a time, the newest rankings first; how many."""
    with database.reading() as session:
        found = stale(session, shipped_mark(), AT_ONCE)
    own: dict[str, list[Evidence]] = {}
    for id, workspace in found:
        with database.unit_of_work() as session:
            row = session.get(tables.Ranking, id)
            if row is None:
                continue
            if workspace not in own:
                own[workspace] = evidence_of(session, workspace)
            put(session, row, marks(session, workspace)[workspace], own[workspace])
            row.version = tables.Ranking.version + 1
    return len(found)


def put(
    session: Session, ranking: tables.Ranking, mark: str | None = None, own: list[Evidence] | None = None
) -> None:
    """Write what is believed now of the candidates of a ranking."""
    workspace = ranking.workspace_id
    mark = marks(session, workspace)[workspace] if mark is None else mark
    own = evidence_of(session, workspace) if own is None else own
    ranking.believed_from = f"{mark} {shipped_mark()}"
    try:
        ranking.belief = belief_of(session, ranking, own)
    except UNTELLABLE as failure:
        # an order is worth having without it, and what fails now would fail again at every look
        log.warning("no belief about %s: %s: %s", ranking.id, type(failure).__name__, failure)
        ranking.belief = None


def predicted(session: Session, ranking: tables.Ranking) -> dict[str, tuple[float, float, float]]:
    """{checkpoint: (mean, low, high)} of what is believed now, without writing it; empty where nothing can be."""
    try:
        found = belief_of(session, ranking, evidence_of(session, ranking.workspace_id))
    except UNTELLABLE:
        return {}
    told = found["candidates"] if found else []
    return {each["checkpoint_id"]: (each["mean"], each["low"], each["high"]) for each in told}


def belief_of(session: Session, ranking: tables.Ranking, own: list[Evidence]) -> documents.Belief | None:
    """None where no candidate has weights that are known."""
    dataset = session.get_one(tables.Dataset, ranking.dataset_id)
    pairs = [
        (candidate.checkpoint_id, checkpoint)
        for candidate, checkpoint in session.execute(
            select(tables.Candidate, tables.Checkpoint)
            .join(tables.Checkpoint, tables.Checkpoint.id == tables.Candidate.checkpoint_id)
            .where(tables.Candidate.ranking_id == ranking.id)
            .order_by(tables.Candidate.position)
        )
        if checkpoint.weights_sha256 is not None
    ]
    if not pairs:
        return None
    scores = scores_in(session, ranking.id)
    pool = [checkpoint_facts(checkpoint, scores.get(id)) for id, checkpoint in pairs]
    learned = shipped()
    found = believe(pool, _target(dataset, own), own, learned=learned)
    return {
        "level": found.level,
        "budget": learned.budget,
        "studies": list(learned.studies),
        "candidates": [
            {
                "checkpoint_id": id,
                "mean": each.mean,
                "low": each.low,
                "high": each.high,
                "chance_of_best": each.chance_of_best,
                "parts": dict(each.parts),
                "far": list(each.far),
                "architecture_seen": each.architecture_seen,
            }
            for (id, _), each in zip(pairs, found.candidates, strict=True)
        ],
        "used": list(found.used),
        "warnings": list(found.warnings),
    }


def evidence_of(session: Session, workspace_id: str) -> list[Evidence]:
    """The workspace's own verifications, the newest first; none where it does not want them used.

    Of one that has paused, the last look at its validation images.
    """
    if not session.get_one(tables.Workspace, workspace_id).learns:
        return []
    rows = session.execute(
        select(tables.Verification, tables.Checkpoint, tables.Dataset)
        .join(tables.Checkpoint, tables.Checkpoint.id == tables.Verification.checkpoint_id)
        .join(tables.Dataset, tables.Dataset.id == tables.Verification.dataset_id)
        .where(tables.Verification.workspace_id == workspace_id, counts())
        .order_by(tables.Verification.id.desc())
        .limit(MOST_EVIDENCE)
    )
    found = []
    for row, checkpoint, dataset in rows:
        observed = _observed(row)
        if observed is not None and row.plan is not None and checkpoint.weights_sha256 is not None:
            target = dataset_facts(dataset, row.plan)
            found.append(Evidence(checkpoint_facts(checkpoint), target, observed))
    return found


def checkpoint_facts(
    checkpoint: tables.Checkpoint, scores: Mapping[tuple[str, str], float] | None = None
) -> Facts:
    known = {
        "weights_sha256": checkpoint.weights_sha256 or checkpoint.id,
        "architecture": checkpoint.architecture or "unknown",
        "parameters": checkpoint.parameters,
        "kind": checkpoint.kind,
        "provenance": checkpoint.provenance or {},
    }
    return replace(facts_of_manifest({**(checkpoint.manifest or {}), **known}), scores=scores or {})


def dataset_facts(dataset: tables.Dataset, plan: Mapping[str, Any] | None) -> TargetFacts:
    """Of a dataset with the budget of a plan; without one the images that the studies had at most are not known."""
    summary: Mapping[str, Any] = dataset.summary or {}
    images, annotations = summary.get("images"), summary.get("annotations")
    # the box of an image label is the whole picture
    sides = summary.get("objects", {}).get("relative_sides") if dataset.supervision in WITH_BOXES else None
    return TargetFacts(
        f"{dataset.digest}/{_budget(plan)}",
        plan["images"] if plan else None,
        len(summary["categories"]) if summary.get("categories") else None,
        annotations / images if images and annotations else None,
        tuple(sides) if sides else None,
        plan.get("image_size") if plan else PIXELS,
    )


def _target(dataset: tables.Dataset, own: list[Evidence]) -> TargetFacts:
    """The dataset by the budget that most of the workspace's trainings on it had, the longest used where several."""
    known = Counter(
        each.target for each in own if each.target.key.startswith(f"{dataset.digest}/")
    ).most_common(1)
    return known[0][0] if known else dataset_facts(dataset, None)


def _budget(plan: Mapping[str, Any] | None) -> str:
    if plan is None:
        return "unknown"
    facts = {name: plan.get(name) for name in BUDGET} | {"recipe": plan["recipe"]["name"]}
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:12]


def _observed(row: tables.Verification) -> Observed | None:
    if row.map is None:
        return None
    paused = row.stop_at is not None and row.split != "test"
    if not paused:
        return Observed(row.map, id=row.id, own=True)
    steps = (row.plan or {}).get("iterations")
    looks = [point for point in row.curves or [] if (point.get("val") or {}).get("map") is not None]
    if not steps or not looks:
        return None
    last = looks[-1]
    return Observed(last["val"]["map"], min(last["iteration"] / steps, AT_THE_END), id=row.id, own=True)


def scores_in(session: Session, ranking_id: str) -> dict[str, dict[tuple[str, str], float]]:
    """By checkpoint, standardised within the ranking."""
    query = select(
        tables.Score.checkpoint_id,
        tables.Score.metric,
        tables.Score.layer,
        tables.Score.value,
        tables.Score.details["zero_point"].as_float(),
    ).where(
        tables.Score.ranking_id == ranking_id,
        tables.Score.level == "local",
        tables.Score.layer.in_(MAPS),
        tables.Score.metric.in_({metric for metric, _ in SCORES}),
    )
    values: dict[str, dict[tuple[str, str], tuple[float | None, float | None]]] = defaultdict(dict)
    for id, metric, layer, value, zero in session.execute(query):
        values[id][metric, layer] = value, zero
    standard = standardised([scores_of(own) for own in values.values()])
    return dict(zip(values, standard, strict=True))


def main() -> None:
    """Until nothing is left to make anew."""
    database = Database(get_settings().resolved_database_url)
    try:
        while renew(database):
            pass
    finally:
        database.dispose()


if __name__ == "__main__":
    main()
