"""Names that people tell things apart by."""

from collections.abc import Mapping


def told_apart(names: Mapping[str, str]) -> dict[str, str]:
    """The names by id, those that several have with a number."""
    found: dict[str, str] = {}
    for id, name in names.items():
        unique, number = name, 2
        while unique in found.values():
            unique, number = f"{name} ({number})", number + 1
        found[id] = unique
    return found
