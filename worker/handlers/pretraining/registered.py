"""Checkpoints that a pretraining or a pseudo-labelling makes: what it started from where that was fresh, and what came of it."""

from datetime import UTC, datetime
from typing import Any

from sqlalchemy.orm import Session

import models_store
from app.db import tables
from app.ids import new_id
from app.queue.states import ResourceState


def register(
    session: Session,
    row: tables.Pretraining | tables.PseudoLabelling,
    manifest: models_store.Manifest,
    weights_sha256: str,
    *,
    name: str,
    licence: str | None,
    plain: dict[str, Any] | None = None,
) -> str:
    """A checkpoint that is ready; its id."""
    now = datetime.now(UTC)
    made = tables.Checkpoint(
        id=new_id("ckpt"),
        workspace_id=row.workspace_id,
        name=name[:200],
        state=ResourceState.READY,
        request={"pretraining_id" if isinstance(row, tables.Pretraining) else "pseudo_labelling_id": row.id},
        kind=manifest.kind,
        architecture=manifest.architecture,
        format=manifest.format,
        parameters=manifest.parameters,
        licence=licence,
        provenance=manifest.provenance,
        manifest=manifest.to_json(),
        weights_sha256=weights_sha256,
        plain=plain,
        created_at=now,
        updated_at=now,
    )
    session.add(made)
    session.flush()
    return made.id
