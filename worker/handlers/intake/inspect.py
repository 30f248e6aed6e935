"""Job `inspect`: from a foreign file, or the name of one, to a checkpoint that every later step can trust."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from sqlalchemy.orm import Session

import models_store
from app.db.tables import Checkpoint
from app.errors import NotFound, Unavailable, UnusableCheckpoint
from app.queue.states import ResourceState
from worker.attempt import Attempt, ClaimedJob
from worker.files import scratch
from worker.handlers.inputs import manifest_document
from worker.handlers.results import keep_file

# what the file does not say about itself and the request may
OVERRIDES = (
    "mean",
    "std",
    "channel_order",
    "min_size",
    "max_size",
    "num_classes",
    "class_names",
    "options",
)


def run(attempt: Attempt, job: ClaimedJob) -> Callable[[Session], None]:
    """Fetches, converts in a limited child and stores; returns the write that makes the checkpoint ready.

    Raises UnusableCheckpoint, NotFound, and Unavailable where a download broke off or the child was killed.
    """
    with attempt.database.reading() as session:
        checkpoint = session.get(Checkpoint, job.resource_id)
    if checkpoint is None:
        raise NotFound(f"the checkpoint {job.resource_id} is gone")
    with scratch(attempt.settings.scratch_dir) as folder:
        # It gets ready while the file is fetched.
        models_store.prepare()
        try:
            source = _source(attempt, checkpoint, folder)
            attempt.check()
            attempt.stage("validating")
            manifest = _convert(attempt, checkpoint, source, folder / "converted")
        except models_store.Unusable as refusal:
            if refusal.code in ("unreachable", "killed"):
                raise Unavailable(refusal.detail) from refusal
            raise UnusableCheckpoint(refusal.detail, errors=refusal.errors, code=refusal.code) from refusal
        attempt.stage("storing")
        weights = keep_file(attempt, folder / "converted" / "weights.safetensors", "application/octet-stream")

    def finish(session: Session) -> None:
        row = session.get(Checkpoint, job.resource_id)
        if row is None:
            return
        row.state, row.error = ResourceState.READY, None
        row.kind, row.architecture, row.format = manifest.kind, manifest.architecture, manifest.format
        row.parameters, row.manifest, row.weights_sha256 = (
            manifest.parameters,
            manifest_document(manifest),
            weights,
        )
        row.licence = row.licence or source.licence or manifest.licence
        row.provenance = {**manifest.provenance, **source.provenance, **(row.provenance or {})}

    return finish


def _source(attempt: Attempt, checkpoint: Checkpoint, folder: Path) -> models_store.Fetched:
    """The file on this disk, with what is known from where it was fetched."""
    if checkpoint.source_sha256:
        path = attempt.store.local_path(checkpoint.source_sha256)
        return models_store.Fetched(path, checkpoint.source_sha256)
    uri, pinned = checkpoint.request["source"], checkpoint.request.get("sha256")
    if "://" in uri:
        attempt.stage("fetching")
        private = attempt.settings.fetch_from_private
        return models_store.fetch(uri, folder / "fetched", sha256=pinned, private=private)
    if not attempt.settings.allow_local_paths:
        raise UnusableCheckpoint("paths on the server's disk are not accepted here; upload the file")
    if not Path(uri).is_file() and not (Path(uri) / "config.json").is_file():
        raise UnusableCheckpoint(
            f"there is no file at {uri}; give the path of a checkpoint file or of a transformers folder"
        )
    return models_store.Fetched(Path(uri), pinned or "")


def _convert(
    attempt: Attempt, checkpoint: Checkpoint, source: models_store.Fetched, out: Path
) -> models_store.Manifest:
    """Converts in a limited child; what the request says goes before what the name says."""
    asked, settings = checkpoint.request, attempt.settings
    limits = models_store.Limits(wall_s=int(settings.inspect_time_limit_s))
    if settings.inspect_memory_bytes:
        limits = replace(limits, memory_bytes=settings.inspect_memory_bytes)
    given = {name: asked[name] for name in OVERRIDES if asked.get(name) is not None}
    return models_store.convert(
        source.path,
        out,
        architecture=asked.get("architecture") or source.architecture,
        uri=asked.get("source") or checkpoint.name,
        sha256=asked.get("sha256"),
        overrides={**source.overrides, **given},
        limits=limits,
        check=attempt.check,
    )
