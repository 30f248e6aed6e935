"""A candidate opened by a worker: its records, the unpacked dataset, the loaded detector, and the reading to make."""

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

import models_store
from app.db.tables import Candidate, Checkpoint, Dataset, Ranking
from app.errors import CandidateFailed, NotFound
from worker.attempt import Attempt, ClaimedJob
from worker.data.dataset import open_dataset
from worker.device import choose_device
from worker.features.errors import Unextractable
from worker.features.reading import Reading, reading_of
from worker.files import scratch
from worker.handlers.datasets import dataset_folder, left_out
from worker.handlers.inputs import checkpoint_folder, manifest_of
from worker.handlers.ranking.request import sampled, spec_of
from worker.models import Models, models

__all__ = ["Candidate", "InHand", "opened"]


@dataclass(frozen=True)
class InHand:
    """Everything that reading a candidate's features takes.

    `scratch`: a folder that is gone afterwards. `left_out`: a sentence on pictures that could not be used, or None.
    """

    ranking: Ranking
    reading: Reading
    models: Models
    device: str
    scratch: Path
    loading_s: float
    left_out: str | None = None


@contextmanager
def opened(attempt: Attempt, job: ClaimedJob) -> Iterator[InHand]:
    """The candidate of a `score` or `shard` job, in stages `loading` and then `extracting`.

    Raises NotFound, and CandidateFailed where this candidate cannot be read, also from inside the block.
    """
    ranking, checkpoint, dataset = _records(attempt, job)
    attempt.stage("loading")
    settings = attempt.settings
    with ExitStack() as stack:
        folder = stack.enter_context(scratch(settings.scratch_dir))
        root = stack.enter_context(dataset_folder(attempt, dataset, partial(sampled, ranking.request)))
        try:
            started, device = time.perf_counter(), choose_device(settings.device)
            detector = models().load(
                checkpoint_folder(attempt, checkpoint, folder),
                manifest_of(checkpoint),
                device=device,
                max_bytes=settings.model_cache_bytes,
            )
            reading = reading_of(
                detector,
                open_dataset(root),
                spec_of(ranking.request, detector.layers),
                device=device,
                precision=settings.precision,
            )
            loading_s = time.perf_counter() - started
            attempt.stage("extracting")
            yield InHand(ranking, reading, models(), device, folder, loading_s, left_out(root, dataset))
        except (models_store.Unusable, Unextractable) as refusal:
            raise CandidateFailed(refusal.detail, code=refusal.code) from refusal
        except (torch.OutOfMemoryError, MemoryError):
            models().forget()
            raise


def _records(attempt: Attempt, job: ClaimedJob) -> tuple[Ranking, Checkpoint, Dataset]:
    with attempt.database.reading() as session:
        ranking = session.get(Ranking, job.resource_id)
        checkpoint = session.get(Checkpoint, job.payload["checkpoint_id"])
        dataset = session.get(Dataset, ranking.dataset_id) if ranking else None
    if ranking is None or checkpoint is None or dataset is None:
        raise NotFound(f"the ranking {job.resource_id}, its dataset or its checkpoint is gone")
    if not checkpoint.weights_sha256 or not checkpoint.manifest:
        raise CandidateFailed(
            f"the checkpoint {checkpoint.id} is {checkpoint.state}; rank it when it is ready"
        )
    if not dataset.archive_sha256:
        raise CandidateFailed(f"the dataset {dataset.id} is {dataset.state}; rank on it when it is ready")
    return ranking, checkpoint, dataset
