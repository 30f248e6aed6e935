"""The tables of the evidence."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from worker.studies.document import Table
from worker.studies.evidence.evidence import CHOSEN, MAIN, Evidence, seed_noise, short
from worker.studies.evidence.plots import main_scores, maps, rule_taus, size_taus
from worker.studies.measures.lines import Interval, Line, Share, tau_among
from worker.studies.measures.scoring import BACKBONE, LOCAL
from worker.studies.measures.sizes import SIZES
from worker.studies.reports.report import figures


def proof_table(lines: Sequence[Line], datasets: Sequence[str]) -> Table:
    """One row for each line, its tau on each dataset first."""
    header = (
        "score",
        *datasets,
        "mean [datasets; candidates]",
        "share of ceiling",
        "untrained: places",
        "untrained last on",
        "Regret@1",
        "above the best static order",
    )
    rows = []
    for line in lines:
        looked_at = line.place is not None
        rows.append(
            (
                line.name,
                *(number(line.taus.get(d)) for d in datasets),
                _mean(line),
                share(line.share),
                "; ".join(" ".join(map(str, line.ranks[d])) or "–" for d in datasets)
                if any(line.ranks.values())
                else "–",
                f"{line.last} of {len(datasets)}" if any(line.ranks.values()) else "–",
                number(line.regret),
                f"{line.above[0]} of {line.above[1]}"
                if looked_at and line.above[1] and line.kind != "baseline"
                else "–",
            )
        )
    strong = frozenset(n for n, line in enumerate(lines) if line.kind == CHOSEN)
    return Table(header, tuple(rows), strong)


def nearest_table(found: Evidence) -> Table:
    """The best scores on the datasets of the choice, and what became of them on the others."""
    rows = tuple(
        (
            line.name,
            number(tau),
            _mean(line),
            share(line.share),
            f"{line.last} of {len(found.material.proof)}",
        )
        # the nearest are the first of those that fit
        for tau, line in zip(found.choice.fitting.values(), found.nearest, strict=False)
    )
    header = (
        "score",
        "mean tau where chosen",
        "mean tau on the others [datasets; candidates]",
        "share of ceiling",
        "untrained last on",
    )
    return Table(header, rows, frozenset({0}))


def left_out_table(found: Evidence) -> Table:
    header = (
        "left out",
        "chosen on the others",
        "tau on them",
        "tau on it",
        "ceiling",
        "best static order",
        "untrained last",
    )
    rows = [
        (
            each.dataset,
            "–" if each.choice.place is None else short(each.choice.place),
            number(each.choice.tau),
            number(each.tau),
            number(each.ceiling),
            number(each.static),
            "yes" if each.last else "no",
        )
        for each in found.left_out
    ]
    average = ("mean", "", "", figures(found.left_out_mean), share(found.left_out_share), "", "")
    return Table(header, (*rows, average), frozenset({len(rows)}))


def ceiling_table(found: Evidence) -> Table:
    rows_of = found.material.observations
    rows = []
    for dataset, measured in found.ceiling.items():
        maps = [o.map for o in rows_of if o.dataset == dataset]
        rows.append(
            (
                dataset,
                figures(measured[MAIN]),
                number(measured["pearson"].value),
                number(measured["regret_at_1"].value),
                f"{min(maps):.2f} to {max(maps):.2f}",
                number(seed_noise(rows_of, dataset), 3),
            )
        )
    if found.ceiling_average:
        average = found.ceiling_average
        rows.append(
            (
                "mean",
                figures(average[MAIN]),
                number(average["pearson"].value),
                number(average["regret_at_1"].value),
                "",
                "",
            )
        )
    return Table(
        ("dataset", "weighted tau [95 %]", "Pearson", "Regret@1", "mAP", "deviation between seeds"),
        tuple(rows),
        frozenset({len(rows) - 1}),
    )


def rule_table(found: Evidence) -> Table:
    """Mean tau over all datasets of each score at each layer rule."""
    rules = [rule.name for rule in found.material.question.rules]
    rows = tuple((score, *map(number, values)) for score, values in rule_taus(found).items())
    return Table(("score", *rules), rows)


def layer_table(found: Evidence) -> Table:
    """Dataset by dataset the map at which each main score is best, and those that fit the objects."""
    material, rules = found.material, maps(found)
    scores = main_scores(found)
    matched = [rule.name for rule in material.question.rules if rule.cells is not None]
    rows = []
    for dataset in sorted(material.datasets, key=material.object_pixels.__getitem__):
        group = [o for o in material.observations if o.dataset == dataset]
        cells = []
        for score in scores:
            taus = {rule: t for rule in rules if (t := tau_among(group, (score, rule, LOCAL))) is not None}
            best = max(taus, key=lambda rule: taus[rule], default=None)
            cells.append("–" if best is None else f"{_map(best)} ({taus[best]:.2f})")
        read = (_map(*material.layers[dataset][rule]) for rule in matched)
        rows.append((dataset, f"{material.object_pixels[dataset]:.0f}", *read, *cells))
    return Table(
        ("dataset", "median object, pixels", *matched, *(f"best map of {score} (tau)" for score in scores)),
        tuple(rows),
    )


def _map(layer: str = "–") -> str:
    return layer.removeprefix(BACKBONE)


def gain_table(found: Evidence) -> Table:
    """Each metric's raw score and gain at one place."""
    n = len(found.material.proof)
    rows = []
    for name, (raw, gain) in found.gains.items():
        both = [(r, g) for d, r in raw.taus.items() if r is not None and (g := gain.taus[d]) is not None]
        higher = sum(g > r for r, g in both)
        rows.append(
            (
                name,
                _mean(raw),
                _mean(gain),
                f"{higher} of {len(both)}",
                f"{raw.last} of {n}",
                f"{gain.last} of {n}",
            )
        )
    header = (
        "score",
        "raw: mean tau [datasets; candidates]",
        "gain: the same",
        "gain higher on",
        "raw: untrained last on",
        "gain: untrained last on",
    )
    return Table(header, tuple(rows))


def size_table(found: Evidence) -> Table:
    """Means over datasets of each main score on the objects of each size."""
    taus = size_taus(found)
    rows = tuple(
        (f"{score} at {layer}", *(number(v) for v in values), str(n))
        for (score, layer), (values, n) in taus.items()
    )
    return Table(("score", *SIZES, "all objects", "datasets"), rows)


def cost_table(found: Evidence) -> Table:
    """Cheapest first, of equal cost the best first."""

    def place(each) -> tuple[float, float]:
        return (
            float("inf") if each.seconds is None else round(each.seconds, 1),
            -(-9.0 if each.line.mean.value is None else each.line.mean.value),
        )

    rows = [
        (
            each.line.name,
            each.family,
            "–" if each.choice is None else f"{number(each.choice.tau)} ({len(each.choice.on)} datasets)",
            _mean(each.line),
            str(each.line.mean.n),
            share(each.line.share),
            f"{each.line.last} of {len(found.material.proof)}" if any(each.line.ranks.values()) else "–",
            "–" if each.seconds is None else f"{each.seconds:.1f}",
        )
        for each in sorted(found.priced, key=place)
    ]
    header = (
        "signal",
        "family",
        "tau where it was chosen",
        "mean tau [datasets; candidates]",
        "datasets",
        "share of ceiling",
        "untrained last on",
        "seconds",
    )
    return Table(header, tuple(rows))


def number(value: float | None, digits: int = 2) -> str:
    return "–" if value is None or not np.isfinite(value) else f"{value:.{digits}f}"


def share(each: Share | None) -> str:
    if each is None:
        return "–"
    return number(each.value) if each.low is None else f"{each.value:.2f} [{each.low:.2f}, {each.high:.2f}]"


def _mean(line: Line) -> str:
    if line.mean.value is None:
        return "–"
    limits = [_interval((line.mean.low, line.mean.high)), _interval(line.by_candidates)]
    return f"{line.mean.value:.2f} [{'; '.join(limits)}]"


def _interval(limits: Interval) -> str:
    return "–" if limits[0] is None else f"{limits[0]:.2f}, {limits[1]:.2f}"
