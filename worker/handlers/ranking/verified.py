"""What the verifications of a ranking say about its scores: mAP of each candidate, and how every score agrees with it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from sqlalchemy import select
from sqlalchemy.orm import Session, defer

from app.db import tables
from app.db.documents import Correlation, Verified
from app.errors import detail_of
from app.queue.states import JobState
from worker.ranking.order import baselines_of
from worker.ranking.records import GAIN, Candidate, Ordering, Scored
from worker.studies.measures.correlation import Correlations, correlate
from worker.studies.measures.gains import gain_place
from worker.studies.measures.observations import Observation, Place
from worker.studies.reports.plots import Panel, scatter

Split = Literal["test", "val"]
NAMED = ("pearson", "spearman", "kendall", "weighted_tau")


@dataclass(frozen=True)
class EndedVerification:
    """One verification that ended: its mAP, or why there is none. split: where it was measured."""

    id: str
    checkpoint_id: str
    seed: int
    terms: str
    recipe: str
    split: str | None
    map: float | None
    why: str


def trained_of(session: Session, ranking_id: str) -> list[EndedVerification]:
    """All that ended, in the order in which they were asked for."""
    query = (
        select(tables.Verification)
        .options(defer(tables.Verification.curves), defer(tables.Verification.result))
        .where(tables.Verification.ranking_id == ranking_id)
        .order_by(tables.Verification.position)
    )
    return [_trained(row) for row in session.scalars(query)]


def succeeded(trained: Sequence[EndedVerification]) -> list[str]:
    return sorted(each.id for each in trained if each.split is not None)


def verified_of(
    trained: Sequence[EndedVerification], candidates: Sequence[Candidate], ordering: Ordering, seed: int
) -> list[Verified]:
    """For each set of terms, the last asked for first."""
    groups: dict[str, list[EndedVerification]] = {}
    for each in trained:
        groups.setdefault(each.terms, []).append(each)
    found = [_group(group, candidates, ordering, seed) for group in reversed(groups.values())]
    return [group for group in found if group is not None]


def plot(
    trained: Sequence[EndedVerification],
    candidates: Sequence[Candidate],
    ordering: Ordering,
    path: Path,
    title: str,
) -> Path | None:
    """The scores that ordered the candidates against their mAP by the terms asked for last; None without both."""
    last = [each for each in trained if each.terms == trained[-1].terms] if trained else []
    place = _place(ordering)
    if place is None:
        return None
    rows = [each for each in _observations(last, candidates) if place in each.scores]
    if not rows:
        return None
    names = {candidate.id: candidate.name for candidate in candidates}
    measures = correlate(rows, bootstrap=0).per_dataset[_DATASET][place]
    panel = Panel(
        title,
        tuple(names[row.candidate] for row in rows),
        tuple(row.scores[place] for row in rows),
        tuple(row.map for row in rows),
        {name: measures[name] for name in NAMED},
    )
    return scatter([panel], path, f"{place[0]} at {place[1]} ({place[2]}) against mAP", place[0])


_DATASET = "target"


def _trained(row: tables.Verification) -> EndedVerification:
    split, value, why = None, None, f"it was {row.state}"
    if row.state == JobState.SUCCEEDED:
        split, value = row.split, row.map
        why = "mAP is undefined on the images it was measured on"
    elif row.error:
        why = detail_of(row.error, why)
    request = row.request
    return EndedVerification(
        row.id, row.checkpoint_id, request["seed"], row.terms, request["recipe"], split, value, why
    )


def _observations(trained: Sequence[EndedVerification], candidates: Sequence[Candidate]) -> list[Observation]:
    maps: dict[str, dict[int, float]] = {}
    for each in trained:
        if each.map is not None:
            maps.setdefault(each.checkpoint_id, {})[each.seed] = each.map
    baselines = baselines_of(candidates)
    return [
        Observation(
            dataset=_DATASET,
            candidate=one.id,
            scores={place: value for s in one.scores for place, value in _values(s).items()},
            static={name: getattr(one, name) for name in baselines},
            map_by_seed=maps[one.id],
            undefined={(s.metric, s.layer, s.level): s.undefined for s in one.scores if s.undefined},
        )
        for one in candidates
        if one.id in maps
    ]


def _values(scored: Scored) -> dict[Place, float]:
    """A score and its gain, as far as they are known."""
    place = (scored.metric, scored.layer, scored.level)
    values = {place: scored.value, gain_place(place): scored.gain}
    return {where: value for where, value in values.items() if value is not None}


def _group(
    trained: Sequence[EndedVerification], candidates: Sequence[Candidate], ordering: Ordering, seed: int
) -> Verified | None:
    observations = _observations(trained, candidates)
    if not observations:
        return None
    names = {candidate.id: candidate.name for candidate in candidates}
    found = correlate(observations, seed=seed)
    measured = {each.candidate for each in observations}
    split: Split = "test" if any(each.split == "test" for each in trained) else "val"
    return {
        "terms": trained[0].terms,
        "recipes": sorted({each.recipe for each in trained}),
        "split": split,
        "seeds": sorted({each.seed for each in trained if each.map is not None}),
        "candidates": len(observations),
        "without": {each.checkpoint_id: each.why for each in trained if each.checkpoint_id not in measured},
        "summary": _summary(observations, names, split, found, ordering),
        "correlations": _rows(found),
    }


def _rows(found: Correlations) -> list[Correlation]:
    rows: list[Correlation] = []
    for place, measured in found.per_dataset[_DATASET].items():
        baseline = place in found.baselines
        first = next(iter(measured.values()))
        rows.append(
            {
                "kind": "baseline" if baseline else "metric",
                "metric": place[0],
                "layer": None if baseline else place[1],
                "level": None if baseline else place[2],
                "n": first.n,
                "excluded": dict(first.excluded),
                "measures": {
                    name: {
                        "value": each.value,
                        "low": each.low,
                        "high": each.high,
                        "undefined": each.undefined,
                    }
                    for name, each in measured.items()
                },
            }
        )
    return rows


def _summary(
    observations: Sequence[Observation],
    names: Mapping[str, str],
    split: str,
    found: Correlations,
    ordering: Ordering,
) -> str:
    best = max(observations, key=lambda each: each.map)
    said = f"{len(observations)} candidates were fine-tuned; the best of them is {names[best.candidate]} with mAP {best.map:.3f} on {split}"
    place = _place(ordering)
    measured = found.per_dataset[_DATASET].get(place) if place else None
    if place is None or measured is None:
        return said
    tau = measured["weighted_tau"]
    agrees = f"whether {place[0]} at {place[1]} agrees with mAP cannot be said: {tau.undefined}"
    if tau.value is not None:
        interval = "no interval" if tau.low is None else f"95 %: {tau.low:.2f} to {tau.high:.2f}"
        agrees = f"{place[0]} at {place[1]} agrees with mAP by a weighted tau of {tau.value:.2f} (n = {tau.n}, {interval})"
    return f"{said}; {agrees}"


def _place(ordering: Ordering) -> Place | None:
    if ordering.metric is None or ordering.layer is None or ordering.level is None:
        return None
    place = (ordering.metric, ordering.layer, ordering.level)
    return gain_place(place) if ordering.quantity == GAIN else place
