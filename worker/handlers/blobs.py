"""Keep a file in storage together with its record."""

from pathlib import Path

from app.storage.remember import remember_blob
from worker.step import Step


def keep_file(step: Step, path: Path, media_type: str) -> str:
    """Stores the file and its record; the SHA-256 of its content. The same content twice is kept once."""
    stored = step.store.put_file(path)
    with step.writing() as session:
        return remember_blob(session, stored, media_type)
