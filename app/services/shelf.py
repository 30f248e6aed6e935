"""Choosing from the shelf of public checkpoints: filters, and how much may be fetched."""

from dataclasses import dataclass
from typing import Any

from app.services.catalogue import catalogue

Row = dict[str, Any]
GIGABYTE = 1e9
# Licences under which weights may be used for anything, by their SPDX names.
PERMISSIVE = frozenset({"apache-2.0", "mit", "bsd-3-clause", "bsd-2-clause"})


@dataclass(frozen=True)
class ShelfFilters:
    """What may be taken.

    licence: a name, or `permissive`. families: of the rows. kind: detector or backbone.
    count: at most so many. gigabytes: of weights that are fetched, all together.
    """

    licence: str | None = None
    max_parameters: int | None = None
    families: tuple[str, ...] = ()
    kind: str | None = None
    count: int | None = None
    gigabytes: float | None = None


def choose(filters: ShelfFilters) -> list[Row]:
    """Rows of the shelf that fit, the best published COCO AP first, backbones behind all detectors.

    What would go beyond the gigabytes is passed over, and smaller ones behind it are still taken.
    """
    taken: list[Row] = []
    left = None if filters.gigabytes is None else filters.gigabytes * GIGABYTE
    for row in catalogue()["shelf"]:
        if not fits(row, filters) or (left is not None and row["bytes"] > left):
            continue
        taken.append(row)
        left = None if left is None else left - row["bytes"]
        if filters.count is not None and len(taken) >= filters.count:
            break
    return taken


def fits(row: Row, filters: ShelfFilters) -> bool:
    licence = row["licence"].lower()
    wanted = (filters.licence or "").lower()
    return (
        (not wanted or licence == wanted or (wanted == "permissive" and licence in PERMISSIVE))
        and (filters.max_parameters is None or row["parameters"] <= filters.max_parameters)
        and (not filters.families or row["family"] in filters.families)
        and filters.kind in (None, row["kind"])
    )


def families() -> list[str]:
    return sorted({row["family"] for row in catalogue()["shelf"]})
