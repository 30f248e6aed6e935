"""What the service answers: dictionaries as they were sent, with typed names for their fields.

`ranking["state"]` and `ranking.state` are the same; `raw` is the whole document as plain dictionaries. A field that a newer service
has beside these can be asked for by both. Documents do not change: `client.rankings.get(ranking.id)` gives a newer one.
"""

import functools
import types
from datetime import datetime
from typing import Any, ClassVar, Union, get_args, get_origin, get_type_hints

Record = dict[str, Any]


class Document(Record):
    """A part of an answer."""

    def __init__(self, raw: Record, service: str = "") -> None:
        super().__init__(raw)
        self._service = service

    def __getattr__(self, name: str) -> Any:
        if name not in self:
            raise AttributeError(f"{type(self).__name__} has no {name!r}; it has {', '.join(self)}")
        return _typed(self[name], _hints(type(self)).get(name, Any), self._service)

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *self]

    def __repr__(self) -> str:
        told = ", ".join(f"{name}={self[name]!r}" for name in ("id", "name", "state") if self.get(name))
        return f"{type(self).__name__}({told})"

    @property
    def raw(self) -> Record:
        """The document as it was sent."""
        return dict(self)


class Addressed(Document):
    """A document that has an address of its own."""

    path: ClassVar[str]
    id: str

    @property
    def url(self) -> str:
        """Where the API has it."""
        return f"{self._service}/v1/{self.path}/{self.id}"

    @property
    def page(self) -> str:
        """Where people look at it, in a browser."""
        return f"{self._service}/{self.path}/{self.id}"


class Progress(Document):
    """How far it is; what nobody can know is None."""

    done: int
    total: int | None
    unit: str | None
    fraction: float | None
    eta_s: float | None
    message: str | None


class Dataset(Addressed):
    """Labelled pictures. `ready` when they were checked; `invalid` says why in `error`."""

    path = "datasets"
    name: str
    state: str
    format: str | None
    supervision: str | None
    digest: str | None
    stays_at: str | None
    source_sha256: str | None
    summary: Record | None
    previews: list[str]
    request: Record
    error: Record | None
    job_id: str | None
    created_at: datetime
    updated_at: datetime


class Checkpoint(Addressed):
    """Pretrained weights with the architecture that holds them."""

    path = "checkpoints"
    name: str
    state: str
    kind: str | None
    architecture: str | None
    format: str | None
    parameters: int | None
    licence: str | None
    provenance: Record | None
    manifest: Record | None
    source_sha256: str | None
    weights_sha256: str | None
    request: Record
    error: Record | None
    job_id: str | None
    created_at: datetime
    updated_at: datetime


class Job(Addressed):
    """A unit of queued work."""

    path = "jobs"
    kind: str
    state: str
    stage: str | None
    resource_id: str
    checkpoint_id: str | None
    queue: str
    attempt: int
    max_attempts: int
    worker: str | None
    progress: Progress
    error: Record | None
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None


class Work(Addressed):
    """What takes long and ends."""

    name: str | None
    state: str
    stage: str | None
    error: Record | None
    job_id: str | None
    request: Record
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None


class Verification(Work):
    """One fine-tuning of a checkpoint on a dataset, and its mAP."""

    path = "verifications"
    dataset_id: str
    checkpoint_id: str
    recipe: str
    seed: int
    subset_id: str
    map: float | None
    ap50: float | None
    split: str | None
    trained_checkpoint_id: str | None
    progress: Progress | None
    plan: Record | None
    test: Record | None
    val: Record | None
    warnings: list[Any]
    pictures: list[Record]
    plots: list[Record]
    seconds: float | None


class Search(Work):
    """A budget spent on finding the best of many checkpoints."""

    path = "searches"
    dataset_id: str
    checkpoint_ids: list[str]
    budget_minutes: float
    map: float | None
    trained_checkpoint_id: str | None
    ranking_id: str | None
    rounds: list[Record]
    best: Record | None
    sure: Record | None
    spent: Record
    left_out: list[Record]
    warnings: list[str]
    summary: str | None


class Study(Work):
    """Candidates on datasets, ranked and fine-tuned: which metric deserved trust."""

    path = "studies"
    dataset_ids: list[str]
    checkpoint_ids: list[str]
    seeds: list[int]
    verdict: list[str]
    rankings: list[Record]
    trainings: list[Record]
    correlations: Record | None
    left_out: list[Record]
    warnings: list[str]
    files: list[Record]


class Pretraining(Work):
    """A detector pretrained on pictures without labels, and whether it was worth it."""

    path = "pretrainings"
    method: str
    dataset_id: str
    trained_checkpoint_id: str | None
    recipe: str
    proposals: str | None
    seed: int
    progress: Progress | None
    recall: Record | None
    self_training: Record | None
    comparison: Record | None
    verification_ids: list[str]
    warnings: list[str]
    seconds: float | None


class PseudoLabelling(Work):
    """What a teacher says of pictures, as a dataset with pseudo boxes, and what these are worth."""

    path = "pseudo-labellings"
    dataset_id: str
    teacher: str
    checkpoint_id: str | None
    truth_dataset_id: str | None
    made_dataset_id: str | None
    trained_checkpoint_id: str | None
    progress: Progress | None
    looked_at: int | None
    labelled: int | None
    boxes: int | None
    said: Record | None
    quality: Record | None
    warnings: list[str]
    pictures: list[Record]
    plots: list[Record]
    seconds: float | None


class Subset(Addressed):
    """The training images that verifications see, drawn once."""

    path = "subsets"
    dataset_id: str
    kind: str
    value: float | None
    seed: int
    split: str
    images: int | None
    objects: int | None
    image_ids: list[int] | None


class Worker(Document):
    """A worker process."""

    name: str
    queues: list[str]
    alive: bool
    details: Record
    jobs: list[str]
    started_at: datetime
    seen_at: datetime


@functools.cache
def _hints(kind: type[Document]) -> dict[str, Any]:
    return get_type_hints(kind)


def _typed(value: Any, hint: Any, service: str) -> Any:
    """The value as its field's annotation says: documents, and times, are made of what was sent."""
    if get_origin(hint) in (Union, types.UnionType):
        hint = next(one for one in get_args(hint) if one is not type(None))
    if value is None:
        return None
    if get_origin(hint) is list:
        (each,) = get_args(hint)
        return [_typed(one, each, service) for one in value]
    if isinstance(hint, type) and issubclass(hint, Document):
        return hint(value, service)
    return datetime.fromisoformat(value) if hint is datetime else value
