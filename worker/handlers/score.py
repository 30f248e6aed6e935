"""Job `score`: features and scores of one candidate of a ranking, written as they come."""

import dataclasses
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
from sqlalchemy.orm import Session

import models_store
from app.db.tables import Candidate, Checkpoint, Dataset, Ranking
from app.db.tables import Score as ScoreRow
from app.errors import CandidateFailed, NotFound
from app.queue import events
from app.settings import Settings
from worker.data.dataset import open_dataset
from worker.device import choose_device
from worker.features.errors import Unextractable
from worker.features.extract import Features, extract
from worker.features.layers import SOURCE_LAYER, SOURCE_LEVEL
from worker.files import scratch, unpacked_dataset
from worker.handlers.calibration import calibration_of, score_row
from worker.handlers.pool import per_candidate
from worker.handlers.request import spec_of
from worker.metrics import OF_SOURCE, FeatureSet, Score, score
from worker.step import JobView, Step


def run(step: Step, job: JobView) -> Callable[[Session], None]:
    """Reads the candidate's features, from the cache where they are, and scores each layer and level.

    Scores are upserted layer by layer, so that they can be watched; a second attempt writes the same rows. Returns the
    write of cost, timings and warnings. Raises CandidateFailed where this candidate cannot be scored, and NotFound.
    """
    started = time.perf_counter()
    ranking, checkpoint, dataset = _records(step, job)
    step.stage("loading")
    with ExitStack() as stack:
        folder = stack.enter_context(scratch(step.settings.scratch_dir))
        root = stack.enter_context(
            unpacked_dataset(
                step.settings.cache_dir / "datasets",
                step.store,
                dataset.archive_sha256,
                max_bytes=step.settings.dataset_cache_bytes,
                check=step.check,
            )
        )
        with _refusals():
            features, loading_s = _features(step, checkpoint, ranking, root, folder)
    step.stage("scoring")
    places = _places(features, per_candidate(ranking.request["metrics"]))
    scoring_s = calibrating_s = 0.0
    for done, ((layer, level), metrics) in enumerate(places.items()):
        step.check()
        began = time.perf_counter()
        found = _scores(step, features, layer, level, metrics, calibration_of(ranking.request))
        alone = sum(each.seconds for each in found.values())
        scoring_s += alone
        calibrating_s += max(time.perf_counter() - began - alone, 0.0)
        _write_scores(step, job, features, layer, level, found)
        step.progress(done + 1, len(places), "layers", f"{layer} ({level}) scored")

    steps = {name: seconds for name, seconds in features.seconds.items() if name != "total"}
    timings = {
        "load": round(loading_s, 4),
        **steps,
        "features": features.seconds["total"],
        "score": round(scoring_s, 4),
        "calibrate": round(calibrating_s, 4),
        "total": round(time.perf_counter() - started, 4),
        "cached": features.cached,
    }

    def finish(session: Session) -> None:
        row = session.get(Candidate, (job.resource_id, job.payload["checkpoint_id"]))
        if row is not None:
            row.cost = dataclasses.asdict(features.cost)
            row.timings, row.warnings = timings, list(features.warnings)

    return finish


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


@contextmanager
def _refusals() -> Iterator[None]:
    """What the libraries refuse, as the failure of this one candidate."""
    try:
        yield
    except (models_store.Unusable, Unextractable) as refusal:
        raise CandidateFailed(refusal.detail, code=refusal.code) from refusal


def _features(
    step: Step, checkpoint: Checkpoint, ranking: Ranking, root: Path, folder: Path
) -> tuple[Features, float]:
    """The candidate's features and the seconds that loading it took."""
    settings: Settings = step.settings
    device = choose_device(settings.device)
    started = time.perf_counter()
    detector = models_store.load_detector(checkpoint_folder(step, checkpoint, folder), device=device)
    dataset = open_dataset(root)
    loading_s = time.perf_counter() - started
    step.check()
    step.stage("extracting")
    features = extract(
        detector,
        dataset,
        spec_of(ranking.request),
        cache=settings.cache_dir / "features",
        cache_max_bytes=settings.feature_cache_bytes,
        device=device,
        decode_threads=settings.decode_threads,
        progress=lambda done, total, message: step.progress(done, total, "images", message),
        check=step.check,
    )
    return features, loading_s


def checkpoint_folder(step: Step, checkpoint: Checkpoint, folder: Path) -> Path:
    """A folder with `weights.safetensors` and `manifest.json` of a ready checkpoint; the weights are not copied."""
    (folder / "weights.safetensors").symlink_to(step.store.local_path(checkpoint.weights_sha256))
    models_store.Manifest.from_json(checkpoint.manifest).write(folder)
    return folder


def _places(features: Features, metrics: Sequence[str]) -> dict[tuple[str, str], list[str]]:
    """What is scored where: metrics of the detector's own classes once, the others at every layer and level."""
    of_source = [name for name in metrics if name in OF_SOURCE]
    others = [name for name in metrics if name not in OF_SOURCE]
    places = dict.fromkeys(features.layers, others) if others else {}
    return places | ({(SOURCE_LAYER, SOURCE_LEVEL): of_source} if of_source else {})


def _scores(
    step: Step,
    features: Features,
    layer: str,
    level: str,
    metrics: Sequence[str],
    calibration: Mapping[str, int],
) -> dict[str, Score]:
    table = _table(features, layer, level)
    if table is None:
        reason = f"no source class probabilities: {features.no_source}"
        return {name: Score(None, reason, 0.0) for name in metrics}
    prepared = FeatureSet(
        features=table,
        labels=features.labels,
        boxes=features.boxes,
        source_probabilities=features.source_probabilities,
        image_ids=features.image_ids,
    )
    return score(prepared, metrics, **calibration, check=step.check)


def _table(features: Features, layer: str, level: str) -> np.ndarray | None:
    if (layer, level) == (SOURCE_LAYER, SOURCE_LEVEL):
        return features.source_probabilities
    return features.layers[layer, level]


def _write_scores(
    step: Step, job: JobView, features: Features, layer: str, level: str, found: dict[str, Score]
) -> None:
    table = _table(features, layer, level)
    objects, dimensions = (len(features.labels), None) if table is None else table.shape
    with step.writing() as session:
        ranking = session.get(Ranking, job.resource_id)
        for metric, each in found.items():
            row = score_row(
                each,
                ranking_id=job.resource_id,
                checkpoint_id=job.payload["checkpoint_id"],
                metric=metric,
                layer=layer,
                level=level,
                objects=objects,
                dimensions=dimensions,
            )
            write_score(session, ranking, row)


def write_score(session: Session, ranking: Ranking, row: ScoreRow) -> None:
    """Upserts the score of a locked ranking and tells its stream."""
    session.merge(row)
    about = {
        "checkpoint_id": row.checkpoint_id, "metric": row.metric, "layer": row.layer, "level": row.level,
        "value": row.value, "undefined": row.undefined,
    }  # fmt: skip
    events.append(session, ranking, "score", about)
