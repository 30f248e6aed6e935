"""What is predicted of a ranking's candidates, as it is shown. Workers make it (worker/beliefs.py)."""

from typing import TypedDict

from app.db.documents import Believed
from app.db.tables import Ranking
from app.queue.ranking_order import names_score, predictions, strangers
from app.schemas.ranking_views import BeliefView, CandidateView, PredictedMap
from detrank.show import NEARLY


class Said(TypedDict):
    """Fields of a candidate's view."""

    predicted_map: PredictedMap | None
    chance_of_best: float | None
    contributions: dict[str, float]
    far: list[str]


MOST_NAMED = 3
NOTHING: Said = {"predicted_map": None, "chance_of_best": None, "contributions": {}, "far": []}


def shown(ranking: Ranking) -> tuple[BeliefView | None, dict[str, Said]]:
    """What the predictions stand on, and those by checkpoint. None of either while they are made anew because
    something was taken back."""
    found = ranking.belief
    if found is None or ranking.believed_from is None:
        return None, {}
    belief = BeliefView(
        budget=found["budget"],
        studies=found["studies"],
        own_verifications=len(found["used"]),
        warnings=found["warnings"],
    )
    return belief, {id: _said(each, found["level"]) for id, each in predictions(ranking).items()}


def why_score(ranking: Ranking, candidates: list[CandidateView]) -> list[str]:
    """Why a ranking that names no score is ordered by one; nothing where something else is the reason."""
    unknown = set(strangers(ranking))
    names = [one.name for one in candidates if one.checkpoint_id in unknown]
    if not names or names_score(ranking):
        return []
    more = f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
    return [
        f"the score orders: nothing was ever fine-tuned of the architecture of {', '.join(names[:MOST_NAMED])}{more}; one "
        "verification of each architecture changes that"
    ]


def rank(candidates: list[CandidateView]) -> None:
    """Ranks by the predicted mAP, in place; equal ones share a rank. Who had no place before gets none."""
    having = [one for one in candidates if one.predicted_map is not None and one.rank is not None]
    means = {one.checkpoint_id: one.predicted_map.mean for one in having if one.predicted_map is not None}
    for one in candidates:
        own = means.get(one.checkpoint_id)
        one.rank = None if own is None else 1 + sum(other > own for other in means.values())


def sentence(candidates: list[CandidateView]) -> str:
    """What a reader should take from an order by the predicted mAP."""
    placed = sorted((one for one in candidates if one.rank is not None), key=lambda one: one.rank or 0)
    if len(placed) < 2:
        return "only one candidate has a place" if placed else "no candidate has a place"
    likely = sorted(placed, key=lambda one: -(one.chance_of_best or 0.0))
    best, *others = [(one, one.chance_of_best or 0.0) for one in likely]
    near = [(one, chance) for one, chance in others if chance >= NEARLY * best[1]]
    told = f"{best[0].name} most probably reaches the highest mAP, {best[1]:.0%}"
    if not near:
        return told
    named = ", ".join(f"{one.name} {chance:.0%}" for one, chance in near[:MOST_NAMED])
    more = f" and {len(near) - MOST_NAMED} more" if len(near) > MOST_NAMED else ""
    return f"{told}; not far behind: {named}{more}"


def _said(each: Believed, level: float) -> Said:
    return {
        "predicted_map": PredictedMap(mean=each["mean"], low=each["low"], high=each["high"], level=level),
        "chance_of_best": each["chance_of_best"],
        "contributions": each["parts"],
        "far": each["far"],
    }
