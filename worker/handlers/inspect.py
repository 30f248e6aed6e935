"""Job `inspect`: from a foreign file, or the name of one, to a checkpoint that every later step can trust."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from sqlalchemy.orm import Session

import models_store
from app.db.tables import Checkpoint
from app.errors import NotFound, UnusableCheckpoint
from app.queue.states import ResourceState
from worker.files import scratch
from worker.handlers.blobs import keep_file
from worker.step import JobView, Step

# what the file does not say about itself and the request may
OVERRIDES = ("mean", "std", "class_names")


def run(step: Step, job: JobView) -> Callable[[Session], None]:
    """Fetches, converts in a limited child and stores; returns the write that makes the checkpoint ready.

    Raises UnusableCheckpoint and NotFound.
    """
    with step.database.reading() as session:
        checkpoint = session.get(Checkpoint, job.resource_id)
    if checkpoint is None:
        raise NotFound(f"the checkpoint {job.resource_id} is gone")
    with scratch(step.settings.scratch_dir) as folder:
        try:
            source, licence, provenance = _source(step, checkpoint, folder)
            step.check()
            step.stage("validating")
            manifest = _convert(step, checkpoint, source, folder / "converted")
        except models_store.Unusable as refusal:
            raise UnusableCheckpoint(refusal.detail, errors=refusal.errors, code=refusal.code) from refusal
        step.stage("storing")
        weights = keep_file(step, folder / "converted" / "weights.safetensors", "application/octet-stream")

    def finish(session: Session) -> None:
        row = session.get(Checkpoint, job.resource_id)
        if row is None:
            return
        row.state, row.error = ResourceState.READY, None
        row.kind, row.architecture, row.format = manifest.kind, manifest.architecture, manifest.format
        row.parameters, row.manifest, row.weights_sha256 = manifest.parameters, manifest.to_json(), weights
        row.licence = row.licence or licence or manifest.licence
        row.provenance = {**manifest.provenance, **provenance, **(row.provenance or {})}

    return finish


def _source(step: Step, checkpoint: Checkpoint, folder: Path) -> tuple[Path, str | None, dict[str, Any]]:
    """The file on this disk, with the licence and provenance known from where it was fetched."""
    if checkpoint.source_sha256:
        return step.store.local_path(checkpoint.source_sha256), None, {}
    uri = checkpoint.request["source"]
    if "://" not in uri:
        if not step.settings.allow_local_paths:
            raise UnusableCheckpoint("Paths on the server's disk are not accepted here; upload the file.")
        if not Path(uri).is_file():
            raise UnusableCheckpoint(f"there is no file at {uri}; give the path of a checkpoint file")
        return Path(uri), None, {}
    step.stage("fetching")
    fetched = models_store.fetch(uri, folder / "fetched", sha256=checkpoint.request.get("sha256"))
    return fetched.path, fetched.licence, fetched.provenance


def _convert(step: Step, checkpoint: Checkpoint, source: Path, out: Path) -> models_store.Manifest:
    asked, settings = checkpoint.request, step.settings
    limits = models_store.Limits(
        file_bytes=settings.max_upload_bytes, wall_s=int(settings.inspect_time_limit_s)
    )
    if settings.inspect_memory_bytes:
        limits = replace(limits, memory_bytes=settings.inspect_memory_bytes)
    return models_store.convert(
        source,
        out,
        architecture=asked.get("architecture"),
        uri=asked.get("source") or checkpoint.name,
        sha256=asked.get("sha256"),
        overrides={name: asked[name] for name in OVERRIDES if asked.get(name) is not None},
        limits=limits,
        check=step.check,
    )
