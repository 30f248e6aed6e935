"""A whole study: sections that ask one question each of the same observations, ready for its report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from worker.studies.document import Table
from worker.studies.measures.correlation import Correlations, correlate
from worker.studies.measures.observations import Observation, Place


@dataclass(frozen=True)
class Section:
    """One question. slug: begins the names of its files; dataset, candidate: what the two are called in it;
    featured: scores that get scatter plots."""

    slug: str
    title: str
    text: tuple[str, ...]
    observations: tuple[Observation, ...]
    correlations: Correlations
    dataset: str = "dataset"
    candidate: str = "candidate"
    featured: tuple[Place, ...] = ()


@dataclass(frozen=True)
class StudyResults:
    """facts: settings and costs as (name, text); tables: others to print, as (title, text, table)."""

    title: str
    text: tuple[str, ...]
    facts: tuple[tuple[str, str], ...]
    sections: tuple[Section, ...]
    tables: tuple[tuple[str, str, Table], ...] = ()


def section(
    slug: str,
    title: str,
    text: Sequence[str],
    observations: Sequence[Observation],
    *,
    dataset: str = "dataset",
    candidate: str = "candidate",
    featured: Sequence[Place] = (),
    bootstrap: int = 1000,
    seed: int = 0,
) -> Section:
    """A Section with its correlations. Raises StudyRefused."""
    found = correlate(observations, bootstrap=bootstrap, seed=seed)
    return Section(slug, title, tuple(text), tuple(observations), found, dataset, candidate, tuple(featured))
