"""The pictures of the evidence."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from worker.studies.document import Plot
from worker.studies.evidence.evidence import CHOSEN, Evidence
from worker.studies.measures.correlation import Coefficient
from worker.studies.measures.lines import tau_among
from worker.studies.measures.observations import Observation, Place
from worker.studies.measures.scoring import BACKBONE, LOCAL
from worker.studies.measures.sizes import SIZES
from worker.studies.reports.plots import Bar, Panel, bars, heat_map, scatter
from worker.studies.reports.report import place_name

TAU = "weighted tau"
_KINDS = {"ceiling": "ceiling", "baseline": "baseline"}


def by_dataset(found: Evidence, plots: Path) -> Plot:
    """Heat map: each line on each dataset of the proof, and its mean."""
    datasets, title = found.material.proof, "Weighted tau on the datasets that the choice did not look at"
    values = [[line.taus.get(d) for d in datasets] + [line.mean.value] for line in found.lines]
    return _heat(
        [line.name for line in found.lines],
        [*datasets, "mean"],
        values,
        plots / "proof-datasets.png",
        title,
        len(datasets),
    )


def scatter_of(found: Evidence, plots: Path) -> list[Plot]:
    """The chosen score against mAP, a panel for each dataset; those of the choice say so."""
    place = found.choice.place
    if place is None:
        return []
    panels = []
    lines = {
        d: line.taus[d] for line in (found.line(CHOSEN), _on(found)) if line is not None for d in line.taus
    }
    for dataset in (*found.material.proof, *found.material.chosen_on):
        group = [o for o in found.material.observations if o.dataset == dataset and place in o.scores]
        names = tuple(o.candidate for o in group)
        where = f"{dataset}{' (chosen on it)' if dataset in found.material.chosen_on else ''}"
        measures = {"weighted_tau": Coefficient(lines.get(dataset), len(group))}
        panels.append(
            Panel(where, names, tuple(o.scores[place] for o in group), tuple(o.map for o in group), measures)
        )
    title = f"{place_name(place)} against mAP"
    return [
        Plot(
            scatter(panels, plots / "proof-scatter.png", title, place_name(place)),
            f"{title}; one point per candidate",
        )
    ]


def by_rule(found: Evidence, plots: Path) -> Plot:
    """Heat map: mean over all datasets of each score at each layer rule."""
    question, title = found.material.question, "Mean weighted tau over all datasets by layer rule"
    rules = [rule.name for rule in question.rules]
    taus = rule_taus(found)
    split = sum(rule.layer is not None for rule in question.rules)
    return _heat(list(taus), rules, list(taus.values()), plots / "layers-rules.png", title, split)


def by_map(found: Evidence, plots: Path) -> Plot:
    """Heat map: each main score at each map on each dataset, from small to large objects."""
    material, title = found.material, "Weighted tau by map, datasets from small to large objects"
    order = sorted(material.datasets, key=material.object_pixels.__getitem__)
    groups = [[o for o in material.observations if o.dataset == d] for d in order]
    places: list[Place] = [(score, rule, LOCAL) for score in main_scores(found) for rule in maps(found)]
    values = [[tau_among(group, place) for group in groups] for place in places]
    columns = [f"{d}, {material.object_pixels[d]:.0f} px" for d in order]
    return _heat([f"{p[0]}, {p[1]}" for p in places], columns, values, plots / "layers-maps.png", title)


def by_size(found: Evidence, plots: Path) -> Plot | None:
    """Heat map of the scores by size; None where none were made."""
    taus, title = size_taus(found), "Mean weighted tau of scores of small, medium, large and all objects"
    if not taus:
        return None
    rows = [f"{score} at {layer}" for score, layer in taus]
    return _heat(
        rows,
        [*SIZES, "all objects"],
        [values for values, _ in taus.values()],
        plots / "sizes.png",
        title,
        len(SIZES),
    )


def costs(found: Evidence, plots: Path) -> Plot:
    """Bars: each signal's mean tau with its interval."""
    title = "What each signal is worth"
    order = sorted(
        found.priced, key=lambda p: -9.0 if p.line.mean.value is None else p.line.mean.value, reverse=True
    )
    named = [
        Bar(
            f"{p.line.name}{'' if p.seconds is None else f' ({p.seconds:.1f} s)'}",
            p.line.mean,
            _KINDS.get(p.line.kind, "metric"),
        )
        for p in order
    ]
    axis = f"{TAU}, mean over the datasets of the proof; lines: 95 % over datasets"
    return Plot(
        bars(named, plots / "costs.png", title, axis),
        f"{title}: {axis}; in brackets seconds of one candidate on one dataset",
    )


def main_scores(found: Evidence) -> tuple[str, ...]:
    """What the tables by layer and size show: the metrics that are scored by size, else all."""
    question = found.material.question
    return tuple(m for m in question.metrics if m in found.material.real.settings.by_size) or question.metrics


def maps(found: Evidence) -> list[str]:
    """Names of the rules that read one map on all datasets."""
    return [rule.name for rule in found.material.question.rules if rule.layer is not None]


def rule_taus(found: Evidence) -> dict[str, list[float | None]]:
    """Score to its mean tau at each layer rule, over the datasets where it has a value."""
    question = found.material.question
    return {
        score: [_mean_over(found, (score, rule.name, LOCAL)) for rule in question.rules]
        for score in question.scores
    }


def size_taus(found: Evidence) -> dict[tuple[str, str], tuple[list[float | None], int]]:
    """(score, layer) to means of small, medium, large and all objects over the datasets where each has a value, and how many
    those are."""
    rows = found.material.observations
    layers = sorted({p[1] for o in rows for p in o.scores if p[2] in SIZES and p[1].startswith(BACKBONE)})
    result = {}
    for score in found.material.real.settings.by_size:
        for layer in layers:
            taus = []
            for dataset in found.material.datasets:
                group = [o for o in rows if o.dataset == dataset]
                levels = (*SIZES, LOCAL)
                each = [t for level in levels if (t := tau_among(group, (score, layer, level))) is not None]
                if len(each) == len(levels):
                    taus.append(each)
            if taus:
                result[score, layer] = (np.mean(taus, axis=0).tolist(), len(taus))
    return result


def _on(found: Evidence):
    return next((line for line in found.lines_on if line.kind == CHOSEN), None)


def _mean_over(found: Evidence, place: Place) -> float | None:
    groups: list[list[Observation]] = [
        [o for o in found.material.observations if o.dataset == d] for d in found.material.datasets
    ]
    known = [t for group in groups if (t := tau_among(group, place)) is not None]
    return float(np.mean(known)) if known else None


def _heat(
    rows: Sequence[str],
    columns: Sequence[str],
    values: Sequence[Sequence[float | None]],
    path: Path,
    title: str,
    split: int | None = None,
) -> Plot:
    table = np.array([[np.nan if v is None else v for v in row] for row in values], dtype=np.float64).reshape(
        len(rows), len(columns)
    )
    return Plot(heat_map(rows, columns, table, path, title, split_after=split), title)
