"""Subsets: finding. They are made by the first request that names them, and filled by its job."""

from sqlalchemy import select
from sqlalchemy.orm import Session, defer

from app.db.tables import Subset
from app.schemas.verifications import SubsetQuery
from app.services.listing import page
from app.services.records import owned


def find(session: Session, workspace_id: str, id: str) -> Subset:
    return owned(session, Subset, workspace_id, id)


def listed(session: Session, workspace_id: str, asked: SubsetQuery) -> tuple[list[Subset], str | None]:
    lists = (defer(Subset.image_ids), defer(Subset.annotation_ids))
    query = select(Subset).options(*lists).where(Subset.workspace_id == workspace_id)
    if asked.dataset_id is not None:
        query = query.where(Subset.dataset_id == asked.dataset_id)
    return page(session, query, Subset, asked)
