"""A ranking as Python has it: its candidates in order, as text, as a table with a plot, as a data frame."""

import importlib
from typing import Any

from detrank import show
from detrank.documents import Document, Record, Work


class InferenceCost(Document):
    """Finding the objects of one picture with the whole detector."""

    ms_per_image: float
    peak_memory_bytes: int
    image_hw: list[int]
    device: str


class TrainingCost(Document):
    """Fine-tuning it on the service's device, by a step that was measured there; `unknown` says why something is None."""

    recipe: str
    image_size: int | None
    batch_size: int | None
    iterations: int | None
    seconds: float | None
    step_s: float | None
    peak_memory_bytes: int | None
    memory_bytes: int | None
    fits: bool | None
    device: str
    measured: str | None
    unknown: str | None


class Cost(Document):
    """What a candidate costs; what is not known is None. `ms_per_image` and `peak_memory_bytes` are of reading it in batches."""

    parameters: int | None
    peak_memory_bytes: int | None
    ms_per_image: float | None
    device: str | None
    licence: str | None
    inference: InferenceCost | None
    training: TrainingCost | None


class Score(Document):
    """A metric's value at one layer; `undefined` has the reason where there is no value."""

    metric: str
    layer: str
    level: str
    value: float | None
    undefined: str | None
    z: float | None
    interval: list[float] | None
    zero_point: float | None
    gain: float | None
    gain_interval: list[float] | None


class Candidate(Document):
    """A checkpoint inside a ranking. What orders the candidates is `predicted_map`, or the score's `gain` or `value`, as the
    ranking's `order_by` and `ranked_by` say."""

    checkpoint_id: str
    name: str
    rank: int | None
    state: str
    error: Record | None
    value: float | None
    z: float | None
    interval: list[float] | None
    zero_point: float | None
    gain: float | None
    gain_interval: list[float] | None
    predicted_map: Record | None
    chance_of_best: float | None
    contributions: dict[str, float]
    far: list[str]
    score_chance_of_highest: float | None
    group: int | None
    near: list[str]
    scores: list[Score]
    cost: Cost
    frontier: bool
    map: float | None
    verifications: list[Record]
    baselines: Record
    warnings: list[Any]


class LeftOut(Document):
    """A candidate without a place, and why."""

    checkpoint_id: str
    name: str
    code: str
    reason: str


class Ranking(Work):
    """Candidates in order for a dataset, the best first; those without a rank come last."""

    path = "rankings"
    dataset_id: str
    checkpoint_ids: list[str]
    order_by: str
    ranked_by: Record | None
    belief: Record | None
    candidates: list[Candidate]
    left_out: list[LeftOut]
    summary: str | None
    groups: list[list[str]]
    ties: list[list[str]]
    warnings: list[Record]
    verified: list[Record]

    @property
    def best(self) -> Candidate | None:
        """The candidate of rank 1; `chance_of_best` of all says how sure that is."""
        return next((candidate for candidate in self.candidates if candidate.rank == 1), None)

    def to_pandas(self, *, scores: bool = False) -> Any:
        """A pandas.DataFrame with a row for each candidate, indexed by rank; needs pandas.

        scores: a row for each score instead: every metric of every candidate at every layer.
        """
        pandas = importlib.import_module("pandas")
        if scores:
            kept = [name for name in Score.__annotations__ if name not in ("interval", "gain_interval")]
            return pandas.DataFrame(
                [
                    {"candidate": candidate.name, **{name: score[name] for name in kept}}
                    for candidate in self.candidates
                    for score in candidate.scores
                ]
            )
        frame = pandas.DataFrame([_row(self, candidate) for candidate in self.candidates])
        frame["rank"] = frame["rank"].astype("Int64")
        return frame.set_index("rank")

    def __repr__(self) -> str:
        return show.as_text(self)

    def _repr_html_(self) -> str:
        return show.as_html(self, self.page)


def _row(ranking: Ranking, candidate: Candidate) -> Record:
    ordering, interval = show.ordering(ranking, candidate)
    low, high = interval or (None, None)
    cost, told = candidate.cost, candidate.predicted_map
    # a service of before has none of these
    inference, training = cost.get("inference") or {}, cost.get("training") or {}
    return {
        "rank": candidate.rank,
        "name": candidate.name,
        "score": ordering,
        "low": low,
        "high": high,
        "value": candidate.value,
        "zero_point": candidate.zero_point,
        "gain": candidate.gain,
        "predicted_map": told and told["mean"],
        "predicted_low": told and told["low"],
        "predicted_high": told and told["high"],
        "chance_of_best": candidate.chance_of_best,
        "map": candidate.map,
        "ms_per_image": cost.ms_per_image,
        "inference_ms": inference.get("ms_per_image"),
        "frontier": candidate.get("frontier"),
        "training_s": training.get("seconds"),
        "training_memory_bytes": training.get("peak_memory_bytes"),
        "fits": training.get("fits"),
        "parameters": cost.parameters,
        "peak_memory_bytes": cost.peak_memory_bytes,
        "licence": cost.licence,
        "state": candidate.state,
        "checkpoint_id": candidate.checkpoint_id,
    }
