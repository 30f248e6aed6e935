"""What a search that spends by expected improvement believes of its candidates before it has trained any.

That is what their ranking shows, from the same evidence: the studies, the workspace's verifications on this and other
datasets, the scores. What the search itself trains is added where it decides, look by look, so it is left out here.
"""

from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session, defer

from app.db import tables
from app.db.engine import database_now
from app.queue.beliefs import counts
from app.queue.kinds import KINDS
from app.queue.states import JobKind
from worker.beliefs import checkpoint_facts, dataset_facts, evidence_of, scores_in
from worker.handlers.search.records import Known
from worker.ranking.belief import Evidence, TargetFacts, shipped
from worker.ranking.belief.posterior import joint
from worker.ranking.expected_improvement import Outlook

# the first of the order; beyond that a table of all pairs would be large, and scores say too little
POOL = 300
# of a verification's request, what does not decide which mAP it comes to
APART = frozenset(
    ("checkpoint_id", "dataset_id", "name", "seed", "iterations", "epochs", "budget_minutes", "evaluations")
)


def outlook_of(session: Session, known: Known, whole: int, images: int) -> Outlook:
    """Of the first POOL of the order, for trainings of `whole` iterations on `images` images."""
    learned = shipped()
    plain = dataset_facts(known.dataset, None)
    here = replace(plain, key=f"{plain.key}/{known.search.id}", images=images)
    mine = set(known.verifications)
    own = [each for each in evidence_of(session, known.search.workspace_id) if each.observed.id not in mine]
    alike = _alike(session, known, whole)
    scores = scores_in(session, known.ranking.id)
    pool = [checkpoint_facts(known.checkpoints[id], scores.get(id)) for id in known.order[:POOL]]
    found = joint(pool, here, [_here(each, alike, here) for each in own], learned=learned)
    return Outlook.of(found, learned.curves, learned.spread.seed)


def at_once(session: Session, asked: int | None, lease_s: float) -> int:
    """How many parts train at once: as many as were asked for, else as there are workers that train."""
    if asked is not None:
        return asked
    since = database_now(session) - timedelta(seconds=lease_s)
    alive = session.scalars(select(tables.WorkerRecord.queues).where(tables.WorkerRecord.seen_at >= since))
    return max(1, sum(KINDS[JobKind.VERIFY].queue in queues for queues in alive))


def _alike(session: Session, known: Known, whole: int) -> set[str]:
    """Keys of the targets that earlier trainings by equal terms on the same dataset are of."""
    row = tables.Verification
    query = (
        select(row)
        .where(row.dataset_id == known.search.dataset_id, row.search_id.is_distinct_from(known.search.id))
        .where(row.workspace_id == known.search.workspace_id, counts(), row.plan.is_not(None))
        .options(defer(row.curves), defer(row.result))
    )
    asked = _terms(known.request["verification"])
    return {
        dataset_facts(known.dataset, each.plan).key
        for each in session.scalars(query)
        if each.plan and each.plan["iterations"] == whole and _terms(each.request) == asked
    }


def _terms(request: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in request.items() if name not in APART}


def _here(each: Evidence, alike: set[str], here: TargetFacts) -> Evidence:
    return replace(each, target=here) if each.target.key in alike else each
