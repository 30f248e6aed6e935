"""What a study asks for evidence of: which score, read where, orders candidates best on datasets it was not chosen on."""

from __future__ import annotations

from dataclasses import dataclass

from worker.studies.measures.gains import gain_of
from worker.studies.measures.layer_rules import LayerRule
from worker.studies.measures.observations import Place
from worker.studies.measures.scoring import LOCAL


@dataclass(frozen=True)
class Question:
    """choose_on: datasets that the choice may look at, the others prove it. metrics, rules: every combination is one score
    to choose from, raw and, with `gains`, above its zero point. untrained: candidates with random weights."""

    choose_on: tuple[str, ...]
    metrics: tuple[str, ...]
    rules: tuple[LayerRule, ...]
    untrained: frozenset[str] = frozenset()
    gains: bool = False

    @property
    def scores(self) -> tuple[str, ...]:
        """Metrics and their gains."""
        return (*self.metrics, *(map(gain_of, self.metrics) if self.gains else ()))

    @property
    def space(self) -> tuple[Place, ...]:
        """All scores to choose from."""
        return tuple((score, rule.name, LOCAL) for score in self.scores for rule in self.rules)
