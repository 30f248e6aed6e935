"""How far the order of a ranking agrees with that of another one, on another dataset."""

from typing import Any, cast

from sqlalchemy.orm import Session

from app.db import tables
from app.db.documents import OrdersAgree
from worker.ranking.records import Ordering
from worker.studies.measures.two_orders import agreement_of


def agreement(session: Session, request: dict[str, Any], ordering: Ordering, seed: int) -> OrdersAgree | None:
    """What the result says of it; None where no other ranking was named, or it is gone."""
    id = request.get("compare_with")
    other = session.get(tables.Ranking, id) if id else None
    if other is None or other.result is None:
        return None
    mine = {row.id: -float(row.rank) for row in ordering.rows}
    its = {row["checkpoint_id"]: -float(row["rank"]) for row in other.result["order"] if row["rank"]}
    found = agreement_of(mine, its, seed=seed)
    return cast(OrdersAgree, {"ranking_id": other.id, "dataset_id": other.dataset_id, **found})
