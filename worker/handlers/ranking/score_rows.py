"""A score as it is written and told."""

from sqlalchemy.orm import Session

from app.db.tables import Ranking
from app.db.tables import Score as ScoreRow
from app.queue import events


def write_score(session: Session, ranking: Ranking, row: ScoreRow) -> None:
    """Upserts the score of a locked ranking and tells its stream."""
    details = row.details
    session.merge(row)
    about = {
        "checkpoint_id": row.checkpoint_id,
        "metric": row.metric,
        "layer": row.layer,
        "level": row.level,
        "value": row.value,
        "undefined": row.undefined,
        "zero_point": details.get("zero_point") if details else None,
        "gain": details.get("gain") if details else None,
    }
    events.append(session, ranking, "score", about)
