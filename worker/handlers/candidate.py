"""A candidate in a worker's hand: its records, the dataset unpacked, the detector loaded, and what is to be read."""

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

import models_store
from app.db.tables import Candidate, Checkpoint, Dataset, Ranking
from app.errors import CandidateFailed, NotFound
from worker.data.dataset import open_dataset
from worker.device import choose_device
from worker.features.errors import Unextractable
from worker.features.reading import Reading, reading_of
from worker.files import scratch, unpacked_dataset
from worker.handlers.request import spec_of
from worker.models import Models, models
from worker.step import JobView, Step

__all__ = ["Candidate", "InHand", "opened"]


@dataclass(frozen=True)
class InHand:
    """Everything that reading a candidate's features takes. `scratch`: a folder that is gone afterwards."""

    ranking: Ranking
    reading: Reading
    models: Models
    device: str
    scratch: Path
    loading_s: float


@contextmanager
def opened(step: Step, job: JobView) -> Iterator[InHand]:
    """The candidate of a `score` or `shard` job, in stages `loading` and then `extracting`.

    Raises NotFound, and CandidateFailed where this candidate cannot be read, also from inside the block.
    """
    ranking, checkpoint, dataset = _records(step, job)
    step.stage("loading")
    settings = step.settings
    with ExitStack() as stack:
        folder = stack.enter_context(scratch(settings.scratch_dir))
        root = stack.enter_context(
            unpacked_dataset(
                settings.cache_dir / "datasets",
                step.store,
                dataset.archive_sha256,
                max_bytes=settings.dataset_cache_bytes,
                check=step.check,
            )
        )
        try:
            started, device = time.perf_counter(), choose_device(settings.device)
            detector = models().load(
                checkpoint_folder(step, checkpoint, folder),
                models_store.Manifest.from_json(checkpoint.manifest),
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
            step.stage("extracting")
            yield InHand(ranking, reading, models(), device, folder, loading_s)
        except (models_store.Unusable, Unextractable) as refusal:
            raise CandidateFailed(refusal.detail, code=refusal.code) from refusal
        except (torch.OutOfMemoryError, MemoryError):
            models().forget()
            raise


def _records(step: Step, job: JobView) -> tuple[Ranking, Checkpoint, Dataset]:
    with step.database.reading() as session:
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


def checkpoint_folder(step: Step, checkpoint: Checkpoint, folder: Path) -> Path:
    """A folder with `weights.safetensors` and `manifest.json` of a ready checkpoint; the weights are not copied."""
    (folder / "weights.safetensors").symlink_to(step.store.local_path(checkpoint.weights_sha256))
    models_store.Manifest.from_json(checkpoint.manifest).write(folder)
    return folder
