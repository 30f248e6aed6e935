"""What is predicted of a ranking's candidates, as it is shown. Workers make it (worker/beliefs.py)."""

from typing import TypedDict

from app.db.documents import Believed
from app.db.tables import Ranking
from app.schemas.ranking_views import BeliefView, CandidateView, PredictedMap


class Said(TypedDict):
    """Fields of a candidate's view."""

    predicted_map: PredictedMap | None
    chance_of_best: float | None
    contributions: dict[str, float]
    far: list[str]


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
    return belief, {each["checkpoint_id"]: _said(each, found["level"]) for each in found["candidates"]}


def rank(candidates: list[CandidateView]) -> None:
    """Ranks by the predicted mAP, in place; equal ones share a rank. Who had no place before gets none."""
    having = [one for one in candidates if one.predicted_map is not None and one.rank is not None]
    means = {one.checkpoint_id: one.predicted_map.mean for one in having if one.predicted_map is not None}
    for one in candidates:
        own = means.get(one.checkpoint_id)
        one.rank = None if own is None else 1 + sum(other > own for other in means.values())


def _said(each: Believed, level: float) -> Said:
    return {
        "predicted_map": PredictedMap(mean=each["mean"], low=each["low"], high=each["high"], level=level),
        "chance_of_best": each["chance_of_best"],
        "contributions": each["parts"],
        "far": each["far"],
    }
