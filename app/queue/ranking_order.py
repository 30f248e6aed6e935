"""In which order a ranking's candidates stand: by the mAP that is predicted of them, or by a score."""

from typing import Literal

from app.db.documents import Believed
from app.db.tables import Ranking

OrderBy = Literal["predicted_map", "score"]


def predictions(ranking: Ranking) -> dict[str, Believed]:
    """What is predicted, by checkpoint; nothing while it is made anew because something was taken back."""
    if ranking.belief is None or ranking.believed_from is None:
        return {}
    return {each["checkpoint_id"]: each for each in ranking.belief["candidates"]}


def order_of(ranking: Ranking, asked: OrderBy | None = None) -> OrderBy:
    """What was asked; else `predicted_map`, but for a ranking that names a score, and where something is not predicted of all
    with a place or stands on an architecture of which nothing was ever trained: there predictions order no better than
    the default score (docs/studies/truth)."""
    if asked is not None:
        return asked
    placed = _placed(ranking)
    sure = bool(placed) and predictions(ranking).keys() >= set(placed) and not strangers(ranking)
    return "predicted_map" if sure and not names_score(ranking) else "score"


def names_score(ranking: Ranking) -> bool:
    return any(value is not None for value in (ranking.request.get("rank_by") or {}).values())


def strangers(ranking: Ranking) -> list[str]:
    """Checkpoints with a place of whose architecture nothing was ever trained, as far as predictions know."""
    told = predictions(ranking)
    return [id for id in _placed(ranking) if id in told and not told[id].get("architecture_seen", False)]


def ordered(ranking: Ranking) -> list[str]:
    """Checkpoints that have a place, the best first."""
    placed = _placed(ranking)
    if order_of(ranking) == "score":
        return placed
    told = predictions(ranking)
    return sorted(placed, key=lambda id: -told[id]["mean"])


def _placed(ranking: Ranking) -> list[str]:
    """By the score."""
    rows = ranking.result["order"] if ranking.result is not None else []
    return [row["checkpoint_id"] for row in rows if row["rank"]]
