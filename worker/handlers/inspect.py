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
    """Converts, then fills in what the file does not say about itself and the request does."""
    asked, settings = checkpoint.request, step.settings
    limits = models_store.Limits(wall_s=int(settings.inspect_time_limit_s))
    if settings.inspect_memory_bytes:
        limits = replace(limits, memory_bytes=settings.inspect_memory_bytes)
    manifest = models_store.convert(source, out, architecture=asked.get("architecture"), limits=limits)
    channels = {name: tuple(asked[name]) for name in ("mean", "std") if asked.get(name)}
    manifest = replace(manifest, input=replace(manifest.input, **channels))
    if asked.get("class_names"):
        manifest = replace(manifest, class_names=_class_names(manifest, asked["class_names"]))
    return manifest


def _class_names(manifest: models_store.Manifest, names: list[str]) -> tuple[str, ...]:
    if manifest.num_classes is not None and len(names) != manifest.num_classes:
        raise UnusableCheckpoint(
            f"{len(names)} class names were given and the checkpoint's head has {manifest.num_classes} classes; "
            "give one name for each, without background"
        )
    return tuple(names)
