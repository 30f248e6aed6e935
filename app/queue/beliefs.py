"""What of a workspace its beliefs stand on: which of its verifications count, and a mark that changes with them."""

from sqlalchemy import ColumnElement, and_, func, or_, select, update
from sqlalchemy.orm import Session

from app.db.tables import Ranking, Verification, Workspace
from app.queue.states import JobState


def counts() -> ColumnElement[bool]:
    """The verifications that a belief may use: those with a mAP that were not taken over from another, nor taught by one."""
    return and_(
        Verification.state == JobState.SUCCEEDED.value,
        Verification.map.is_not(None),
        Verification.result["reused_from"].as_string().is_(None),
        Verification.request["teacher_checkpoint_id"].as_string().is_(None),
    )


def forget(session: Session, workspace_id: str) -> None:
    """What stands on something that is taken back is shown no longer; workers make it anew.

    Asked where verifications are deleted or may no longer be used, in the same transaction.
    """
    believed = (Ranking.workspace_id == workspace_id, Ranking.believed_from.is_not(None))
    # locked in one order, for others change many rankings at the same time (training_costs.keep)
    session.scalars(select(Ranking.id).where(*believed).order_by(Ranking.id).with_for_update()).all()
    session.execute(
        update(Ranking)
        .where(*believed)
        .values(believed_from=None, version=Ranking.version + 1)
        .execution_options(synchronize_session=False)
    )


def stale(session: Session, shipped: str, most: int) -> list[tuple[str, str]]:
    """At most so many (ranking, workspace) whose belief stands on what has changed, the newest of each workspace first.

    shipped: mark of what all beliefs are made with.
    """
    found: list[tuple[str, str]] = []
    for workspace, mark in marks(session).items():
        made_from = f"{mark} {shipped}"
        query = (
            select(Ranking.id)
            .where(
                Ranking.workspace_id == workspace,
                Ranking.state == JobState.SUCCEEDED.value,
                or_(Ranking.believed_from.is_(None), Ranking.believed_from != made_from),
            )
            .order_by(Ranking.id.desc())
            .limit(most - len(found))
        )
        found += [(id, workspace) for id in session.scalars(query)]
        if len(found) >= most:
            break
    return found


def marks(session: Session, workspace_id: str | None = None) -> dict[str, str]:
    """{workspace: mark}. Where a verification came or went, or the workspace changed its mind, the mark is another."""
    query = (
        select(Workspace.id, Workspace.learns, func.count(Verification.id), func.max(Verification.id))
        .outerjoin(Verification, and_(Verification.workspace_id == Workspace.id, Workspace.learns, counts()))
        .group_by(Workspace.id, Workspace.learns)
    )
    if workspace_id is not None:
        query = query.where(Workspace.id == workspace_id)
    return {
        id: f"{'own' if learns else 'none'} {count} {last or '-'}"
        for id, learns, count, last in session.execute(query)
    }
