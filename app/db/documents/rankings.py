"""What a ranking found, and what is believed of its candidates."""

from typing import Literal, NotRequired

from typing_extensions import TypedDict

from app.db.documents.scores import Interval


class RankedBy(TypedDict):
    """The score that gives the order; `quantity` is its value or its gain."""

    metric: str | None
    layer: str | None
    level: str | None
    quantity: NotRequired[str | None]
    chosen_by: str | None


class Placed(TypedDict):
    """A candidate's place, with the score that it was placed by."""

    checkpoint_id: str
    name: str
    rank: int | None
    value: float | None
    z: float | None
    interval: Interval | None
    zero_point: NotRequired[float | None]
    gain: NotRequired[float | None]
    gain_interval: NotRequired[Interval | None]
    score_chance_of_highest: NotRequired[float | None]
    chance_of_best: NotRequired[float | None]  # the same, as rankings of before were written
    group: NotRequired[int | None]
    near: list[str]  # checkpoint ids
    static_ranks: dict[str, int | None]


class LeftOut(TypedDict):
    """A candidate without a place. code: failed, cancelled, filtered, no_score, undefined, no_room,
    little_expected."""

    checkpoint_id: str
    name: str
    code: str
    reason: str


class Warned(TypedDict):
    code: str
    detail: str


class Coefficient(TypedDict):
    value: float | None
    low: float | None
    high: float | None
    undefined: str | None


class Correlation(TypedDict):
    """How one score, or one static baseline, agrees with mAP over the candidates that were verified."""

    kind: Literal["metric", "baseline"]
    metric: str
    layer: str | None
    level: str | None
    n: int
    excluded: dict[str, str]
    measures: dict[str, Coefficient]


class Verified(TypedDict):
    """What verifications by the same terms say about the scores of a ranking."""

    terms: str
    recipes: list[str]
    split: Literal["test", "val"]
    seeds: list[int]
    candidates: int
    without: dict[str, str]
    summary: str
    correlations: list[Correlation]


class OrdersAgree(TypedDict):
    """How far the order agrees with that of another ranking; measures: kendall and spearman."""

    ranking_id: str
    dataset_id: str
    n: int
    measures: dict[str, Coefficient]
    only_one: list[str]


class Believed(TypedDict):
    """What is believed of one candidate; see worker/ranking/belief/records.py. parts: on the square root of mAP.
    architecture_seen: not there where it was believed by an older version."""

    checkpoint_id: str
    mean: float
    low: float
    high: float
    chance_of_best: float
    parts: dict[str, float]
    far: list[str]
    architecture_seen: NotRequired[bool]


class Belief(TypedDict):
    """What mAP the candidates of a ranking will reach. used: ids of the workspace's verifications that it stands on."""

    level: float
    budget: str
    studies: list[str]
    candidates: list[Believed]
    used: list[str]
    warnings: list[str]


class RankingResult(TypedDict):
    """What the `rank` job writes. groups, ties: of checkpoint ids. baselines: name to checkpoint id to value."""

    ranked_by: RankedBy | None
    order: list[Placed]
    summary: str | None
    groups: NotRequired[list[list[str]]]
    ties: list[list[str]]
    left_out: list[LeftOut]
    warnings: list[Warned]
    baselines: dict[str, dict[str, float | None]]
    verified_ids: NotRequired[list[str]]  # verifications that the result has seen
    verified: NotRequired[list[Verified]]
    agreement: NotRequired[OrdersAgree | None]
