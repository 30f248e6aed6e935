"""The JSON in columns that workers write and the API reads, typed: both sides import it from here.

A key that rows of an earlier version may lack is `NotRequired`. Nothing is checked while it runs: the type checker holds
both sides to these, and tests/science/test_documents.py holds what real work leaves in the columns to them.
"""

from typing import Any, Literal, NotRequired

from typing_extensions import TypedDict  # pydantic, which tests check with, takes no other before 3.12

from app.errors import Problem

Interval = list[float]  # [low, high]


class Preview(TypedDict):
    """A picture in storage that a dataset names."""

    sha256: str
    file_name: str


class StoredFile(Preview):
    """A file in storage that a row names, with what is said of it."""

    media_type: str
    title: str
    about: dict[str, Any]


# the file among a verification's pictures that has the boxes of every image that was looked at
PREDICTIONS = "predictions.json"


class Progress(TypedDict):
    """How far a job is; `fraction` is None while the total is not known."""

    done: int
    total: int | None
    unit: str | None
    fraction: float | None
    eta_s: float | None
    message: str | None


class PretrainingResult(TypedDict, total=False):
    """Written by the jobs of a pretraining, one after the other: `learn`, or the last student, all but the last two."""

    recall: dict[str, Any]  # {"start": by kind and k, "end": {"proposals", "objects"}}
    pictures: int
    without_region: int
    held_out: dict[str, int]
    iterations: int
    finished: str
    warnings: list[str]
    self_training: dict[
        str, Any
    ]  # {"teacher", "rounds"}: what each said of the pictures, and its student's mAP
    cost: dict[str, float]
    comparison: dict[str, Any] | None


class PseudoLabellingResult(TypedDict, total=False):
    """Written by the jobs of a pseudo-labelling: `teach` all but `cost`.

    quality: as worker/pseudo_boxes/quality.py has it, with `measured_on`; None where no true box is known.
    """

    teacher: dict[str, Any]  # what it chose and measured on the way
    looked_at: int
    pictures: int
    boxes: int
    quality: dict[str, Any] | None
    warnings: list[str]
    cost: dict[str, float]


class DatasetLineage(TypedDict):
    """Where the boxes of a dataset come from that nobody drew. checkpoint, dataset: id, name, digest."""

    pseudo_labelling_id: str
    teacher: str
    dataset: dict[str, Any]
    checkpoint: dict[str, Any] | None
    settings: dict[str, Any]


class Review(TypedDict):
    """What a person is asked about pseudo boxes, as worker/pseudo_boxes/review.py draws it, and what was decided.

    A decision is `decision` and `corrected` of an item, and `missed` of a picture.
    """

    items: list[dict[str, Any]]
    pictures: list[dict[str, Any]]
    strata: list[dict[str, Any]]
    all_pictures: int
    categories: list[str]
    images: list[dict[str, Any]]


class SplitCount(TypedDict):
    images: int
    annotations: int


class DatasetSummary(TypedDict, total=False):
    """Of a dataset's counts those that are computed with; people see all of them."""

    images: int
    annotations: int
    categories: list[dict[str, Any]]
    splits: dict[str, SplitCount]


class LayerOfCheckpoint(TypedDict):
    name: str
    kind: NotRequired[str]  # map or vector
    trained: NotRequired[bool]


class InputOfCheckpoint(TypedDict, total=False):
    min_size: int
    fixed_size: list[int] | None


class Manifest(TypedDict, total=False):
    """Of a checkpoint's manifest (models_store/manifest.py has all of it) what is read without loading the checkpoint."""

    kind: str
    class_names: list[str] | None
    architecture: str
    backbone: str | None
    layers: list[LayerOfCheckpoint]
    input: InputOfCheckpoint
    options: dict[str, Any]
    published: dict[str, float]
    warnings: list[str]


class PlainForm(TypedDict, total=False):
    """A fine-tuned checkpoint for its own library: the files beside the weights, or why there is no such form."""

    unavailable: str
    library: str
    weights: str
    texts: dict[str, str]


class StepCost(TypedDict):
    """What a step of a training costs on one device; see worker/training/cost.py.

    step_s: seconds of a step of the optimiser; image_s: of looking at one picture in an evaluation; pixels: of the median
    picture as the network sees it. too_large: not even one picture at a time fits.
    """

    step_s: float | None
    image_s: float | None
    peak_memory_bytes: int | None
    pixels: float
    measured: Literal["step", "verification"]
    too_large: NotRequired[bool]


class TrainingAsked(TypedDict):
    """A fine-tuning whose cost is of interest, and under which `key` it is measured. memory_bytes: what the device has.

    val_looks: pictures of validation looked at in all, each evaluation on schedule counted; end_looks: at its end. unknown:
    why there can be no number, None where one step says it.
    """

    key: str | None
    recipe: str
    image_size: int | None
    batch_size: int | None
    iterations: int | None
    budget_s: float | None
    val_looks: int
    end_looks: int
    pixels: float | None
    device: str
    memory_bytes: int | None
    unknown: str | None


class InferenceCost(TypedDict):
    """Of the whole detector, one picture at a time."""

    ms_per_image: float
    peak_memory_bytes: int
    image_hw: list[int]
    device: str


class Cost(TypedDict):
    """What one image costs a candidate; see worker/features/cost.py. Beside it the whole detector, and its fine-tuning."""

    parameters: int
    ms_per_image: float
    peak_memory_bytes: int
    device: str
    image_hw: NotRequired[list[int]]
    measures: NotRequired[str]
    precision: NotRequired[str]
    inference: NotRequired[InferenceCost | None]
    training: NotRequired[TrainingAsked | None]


class Null(TypedDict):
    mean: float
    std: float
    permutations: int


class ScoreFacts(TypedDict, total=False):
    """Of how many rows a score is. object_pixels: the median side of an object in the input."""

    objects: int
    regions: int
    dimensions: int | None
    object_pixels: float


class ScoreDetails(ScoreFacts):
    """What is kept beside a score's value."""

    notes: list[str]
    null: NotRequired[Null | None]
    z: NotRequired[float | None]
    interval: NotRequired[Interval | None]
    zero_point: NotRequired[float | None]
    gain: NotRequired[float | None]
    gain_interval: NotRequired[Interval | None]


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


class StopAt(TypedDict):
    """Where a verification pauses as a part of a search. conclude: with a look at test; timing: thrown away after it."""

    iterations: int
    seconds: NotRequired[float | None]
    conclude: NotRequired[bool]
    timing: NotRequired[bool]


class Evaluation(TypedDict):
    """Of worker/evaluation/evaluate.py's form what is computed with; callers are given all of it."""

    box: dict[str, float | None]  # COCO's numbers: map, ap50, ...
    images: int
    objects: int


class PartSeconds(TypedDict, total=False):
    """Of a worker, for a part of a search. worker_seconds: all in."""

    worker_seconds: float
    loading_s: float  # until the first step
    evaluating_s: float  # beside the steps of training


class VerificationResult(PartSeconds):
    """What the `verify` job writes; callers are given the evaluations whole."""

    val: Evaluation
    test: Evaluation | None
    best: dict[str, Any]  # the point of the curves that was chosen
    iterations: int
    finished: str  # completed, plateau, budget or paused
    warnings: list[str]
    reused_from: NotRequired[str]  # the verification whose result was taken over
    taught: NotRequired[dict[str, Any]]  # by a teacher: which, its confidence, how many pseudo boxes


class Part(TypedDict):
    """One candidate's training in a round of a search; what it came to is None until the round is settled."""

    checkpoint_id: str
    verification_id: str
    job_id: str | None
    begin: int
    begin_s: NotRequired[float]
    stop: int
    rung: NotRequired[int | None]  # of its stop, where parts of one round have several
    expected_improvement: NotRequired[
        float | None
    ]  # of the mAP that the search ends with, where that decided
    predicted_s: float
    seconds: float | None
    trained_s: NotRequired[float | None]
    loading_s: NotRequired[float | None]
    evaluating_s: NotRequired[float | None]
    state: str | None
    iterations: int | None
    map: float | None
    ap50: float | None
    error: Problem | None


class Round(TypedDict):
    """What a search decided at once, an item of `Search.rounds`. rung: from 0, which iteration of the ladder all its
    parts train up to; None where iterations are only timed."""

    kind: Literal["timing", "round", "final"]
    rung: int | None
    stop: int
    left_s: float
    predicted_s: float
    seconds: float | None
    decided_at: NotRequired[str]
    parts: list[Part]


class Spent(TypedDict):
    """Seconds of workers' time."""

    budget_s: float
    ranking_s: float
    training_s: float
    total_s: float
    left_s: float


class Best(TypedDict):
    checkpoint_id: str
    verification_id: str
    iterations: int
    whole: bool
    rank: int | None


class BruteForce(TypedDict):
    seconds: float
    minutes: float
    candidates: int
    iterations: int
    text: str


class Agreement(TypedDict):
    first: int
    second: int
    n: int
    kendall: float | None


class Sure(TypedDict):
    runner_up: str | None
    margin: float | None
    at: int | None
    val_images: int | None
    rounds_agree: list[Agreement]
    score_agrees: Agreement | None
    text: str


class Ladder(TypedDict, total=False):
    """By what a search spends, and where its rounds end. late: candidates too slow to enter with the others."""

    strategy: Literal["halving", "expected_improvement"]
    longest: int  # iterations of a training as it was asked for
    ladder: list[int]
    late: list[str]


class SearchResult(Ladder):
    """What the `search` job writes, with every round anew; `sure` and `summary` at the end."""

    names: dict[str, str]  # of checkpoints, told apart
    spent: Spent
    best: Best | None
    brute_force: BruteForce | None
    left_out: list[LeftOut]
    warnings: list[str]
    sure: NotRequired[Sure | None]
    summary: NotRequired[str]


class StudyLeftOut(TypedDict):
    """A candidate on a dataset, or all of them, that no number stands on."""

    dataset_id: str
    dataset: str
    checkpoint_id: str | None
    candidate: str | None
    reason: str


class StudySpent(TypedDict):
    scoring_s: float
    training_s: float
    reused: int
    reused_s: float


class StudyResult(TypedDict):
    """What the `study` job writes. correlations: as worker/studies/measures/correlation.py has them."""

    correlations: dict[str, Any]
    verdict: list[str]
    names: dict[str, str]
    left_out: list[StudyLeftOut]
    warnings: list[str]
    spent: StudySpent
