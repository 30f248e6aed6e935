"""Hundreds of hostile files, made from tables of kinds and seeds: archives, annotations, pictures, checkpoints."""

from collections.abc import Iterator

from tests.security.hostile import annotations, archives, checkpoints, pictures
from tests.security.hostile.case import Case


def cases() -> Iterator[Case]:
    """All of them, in the same order each time; what they hold is made when it is asked for."""
    for module in (archives, annotations, pictures, checkpoints):
        yield from module.cases()
