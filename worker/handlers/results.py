"""What handlers of several kinds need to hand their results over: files in storage, and names that people tell apart."""

from collections.abc import Mapping
from pathlib import Path

from app.storage.remember import remember_blob
from worker.attempt import Attempt


def keep_file(attempt: Attempt, path: Path, media_type: str) -> str:
    """Stores the file and its record; the SHA-256 of its content. The same content twice is kept once."""
    stored = attempt.store.put_file(path)
    with attempt.writing() as session:
        return remember_blob(session, stored, media_type)


def told_apart(names: Mapping[str, str]) -> dict[str, str]:
    """The names by id, those that several have with a number."""
    found: dict[str, str] = {}
    for id, name in names.items():
        unique, number = name, 2
        while unique in found.values():
            unique, number = f"{name} ({number})", number + 1
        found[id] = unique
    return found
