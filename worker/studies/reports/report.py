"""A study's report: one HTML page that stands alone, the same as Markdown, its plots, and two CSV files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from worker.studies.document import Block, Heading, Paragraph, Plot, Table, as_html, as_markdown
from worker.studies.measures.chance import Luck, luck_of
from worker.studies.measures.correlation import (
    CORRELATIONS,
    STATIC,
    Coefficient,
    Correlations,
    Measured,
    value_at,
)
from worker.studies.measures.default_rule import DEFAULT_RULE
from worker.studies.measures.foreknown import BELIEF, BLIND_PLACE, HALF
from worker.studies.measures.observations import Observation, Place
from worker.studies.measures.signals import TRAINED
from worker.studies.reports.plots import Bar, Panel, bars, heat_map, scatter
from worker.studies.reports.tables import write_correlations, write_observations
from worker.studies.study import Section, StudyResults

MAIN = "weighted_tau"
TITLES = {
    "pearson": "Pearson",
    "spearman": "Spearman",
    "kendall": "Kendall tau-b",
    "weighted_tau": "weighted tau",
    "rel_at_1": "Rel@1",
    "rel_at_3": "Rel@3",
    "regret_at_1": "Regret@1",
    "regret_at_3": "Regret@3",
}
HOW = (
    "Weighted tau is Kendall's with additive hyperbolic weights, symmetric between truth and score. Rel@k is the best "
    "mAP among the k highest scores divided by the best mAP there is, Regret@k one minus that. In brackets: 95 % "
    "bootstrap intervals, over candidates within one {dataset} and over {dataset}s for an average. A score without "
    "a value is left out where it has none, and n says on how many the number stands; nothing else is left out."
)
_SHOWN = 15
NAMES = {
    BELIEF: "belief",
    BLIND_PLACE: "blind list (mean mAP on the other datasets)",
    HALF: "half of the training, on validation images",
}
# they stand beside the scores, and are none
BESIDE = (BELIEF, HALF)


@dataclass(frozen=True)
class Files:
    html: Path
    markdown: Path
    correlations: Path
    observations: Path
    plots: tuple[Path, ...]
    others: tuple[Path, ...] = ()


def write_report(study: StudyResults, folder: Path) -> Files:
    """Writes report.html, report.md, correlations.csv, observations.csv and plots/*.png into `folder`."""
    blocks: list[Block] = [Paragraph(text) for text in study.text]
    blocks += [Paragraph(text) for part in study.sections for text in verdict(part)]
    return write_blocks(study, [*blocks, *rest_of(study, folder / "plots")], folder)


def rest_of(study: StudyResults, plots: Path) -> list[Block]:
    """Settings, sections and tables."""
    blocks: list[Block] = []
    if study.facts:
        blocks += [Heading("Settings and cost"), Table(("what", "value"), study.facts)]
    for part in study.sections:
        blocks += _section(part, plots)
    for title, text, table in study.tables:
        blocks += [Heading(title), *([Paragraph(text)] if text else []), table]
    return blocks


def write_blocks(
    study: StudyResults,
    blocks: Sequence[Block],
    folder: Path,
    others: Sequence[Path] = (),
    observations: Sequence[Observation] | None = None,
) -> Files:
    """The blocks as both pages, beside the CSV files of the study and `others`. observations: None for the first section's."""
    if observations is None:
        observations = study.sections[0].observations if study.sections else ()
    folder.mkdir(parents=True, exist_ok=True)
    html, markdown = folder / "report.html", folder / "report.md"
    html.write_text(as_html(study.title, blocks), encoding="utf-8")
    markdown.write_text(as_markdown(study.title, blocks), encoding="utf-8")
    return Files(
        html,
        markdown,
        write_correlations(study.sections, folder / "correlations.csv"),
        write_observations(observations, folder / "observations.csv"),
        tuple(block.path for block in blocks if isinstance(block, Plot)),
        tuple(others),
    )


def verdict(part: Section) -> list[str]:
    """In words: the best score, whether it beats every static baseline, and what luck and noise allow."""
    found = part.correlations
    average = overall(found)
    ranked = [place for place in best_first(found) if place not in BESIDE]
    if not ranked:
        return [
            f"{part.title}: no score has a value on any {part.dataset}; nothing can be said about metrics."
        ]
    best = ranked[0]
    kind = "average weighted tau" if len(found.per_dataset) > 1 else "weighted tau"
    said = [
        f"{part.title}: of {len(ranked)} scores with a value, {place_name(best)} has the highest {kind}, "
        f"{figures(average[best][MAIN])}."
    ]
    if DEFAULT_RULE in average and best != DEFAULT_RULE:
        said.append(f"The service's default rule reaches {figures(average[DEFAULT_RULE][MAIN])}.")
    if beside := [f"{NAMES[p]} {figures(average[p][MAIN])}" for p in BESIDE if p in average]:
        said.append(f"Beside the scores: {'; '.join(beside)}.")
    said += _against_baselines(found, ranked)
    if luck := luck_of(part.observations, ranked, MAIN):
        said.append(_about(luck))
    if (ceiling := _ceiling(found)) and ceiling[MAIN].value is not None:
        said.append(f"Noise ceiling, one seed of fine-tuning against another: {figures(ceiling[MAIN])}.")
    return [" ".join(said)]


def place_name(place: Place) -> str:
    """A score's name for people."""
    metric, layer, level = place
    if place in NAMES:
        return NAMES[place]
    if layer == STATIC:
        return f"{metric.removeprefix('static_')} (static)"
    if layer == TRAINED:
        return f"{metric} on {level}"
    return metric if place == DEFAULT_RULE else f"{metric} at {layer}, {level}"


def figures(each: Coefficient) -> str:
    """0.41 [0.10, 0.66], n = 5; a dash where it is undefined."""
    if each.value is None:
        return "–"
    limits = "" if each.low is None or each.high is None else f" [{each.low:.2f}, {each.high:.2f}]"
    return f"{each.value:.2f}{limits}, n = {each.n}"


def overall(found: Correlations) -> Mapping[Place, Measured]:
    """The averages over datasets; of a single dataset its own measures, whose n and intervals are of candidates."""
    if len(found.per_dataset) == 1:
        return next(iter(found.per_dataset.values()))
    return found.average


def _against_baselines(found: Correlations, ranked: Sequence[Place]) -> list[str]:
    average = overall(found)
    known = {b: v for b in found.baselines if (v := average[b][MAIN].value) is not None}
    if not known:
        return ["No static baseline has a value here, so there is nothing to beat but chance."]
    strongest = max(known, key=lambda b: known[b])
    said = f"The strongest static baseline, {place_name(strongest)}, has {figures(average[strongest][MAIN])}."
    above = [p for p in ranked if (v := average[p][MAIN].value) is not None and v > known[strongest]]
    if not above:
        return [f"{said} No metric beats it."]
    clear = [p for p in above if (found.ahead[p][strongest][MAIN].low or -1) > 0]
    if not clear:
        return [
            f"{said} {len(above)} scores lie above it, none so clearly that the interval of the paired difference excludes zero."
        ]
    names = ", ".join(place_name(p) for p in clear[:3]) + (
        f" and {len(clear) - 3} more" if len(clear) > 3 else ""
    )
    return [
        f"{said} {len(above)} scores lie above it; with an interval of the paired difference above zero: {names}."
    ]


def _about(luck: Luck) -> str:
    return (
        f"If mAP were dealt out at random, the best of these {luck.scores} scores would still reach "
        f"{luck.median:.2f} half of the time and {luck.high:.2f} once in twenty; {luck.best:.2f} or more in {luck.share:.0%} of deals."
    )


def best_first(found: Correlations) -> list[Place]:
    """Metrics with an average, best first; those that stand on fewer than half of the datasets come after all others."""
    average = overall(found)
    known = {
        p: value
        for p, each in average.items()
        if p not in found.baselines and (value := each[MAIN].value) is not None
    }
    few = len(found.per_dataset) / 2
    return sorted(known, key=lambda p: (found.average[p][MAIN].n < few, -known[p], p))


def _ceiling(found: Correlations) -> Measured | None:
    return (
        next(iter(found.ceiling.values()))
        if len(found.per_dataset) == 1 and found.ceiling
        else found.ceiling_average
    )


def _section(part: Section, plots: Path) -> list[Block]:
    found, ranked = part.correlations, best_first(part.correlations)
    average, ceiling = overall(found), _ceiling(found)
    known = [p for p in (*part.featured, *BESIDE) if p in average]
    shown = list(dict.fromkeys([*ranked[:_SHOWN], *known]))
    if DEFAULT_RULE in average and DEFAULT_RULE not in shown:
        shown.append(DEFAULT_RULE)
    shown = [p for p in ranked if p in shown] + [p for p in shown if p not in ranked]
    blocks: list[Block] = [Heading(part.title), *(Paragraph(text) for text in part.text)]
    blocks += [Paragraph(HOW.format(dataset=part.dataset)), _averages(part, shown)]
    everything = [*shown, *found.baselines]
    named = [
        Bar(place_name(p), average[p][MAIN], "baseline" if p in found.baselines else "metric")
        for p in everything
    ]
    if ceiling:
        named.append(Bar("noise ceiling", ceiling[MAIN], "ceiling"))
    title = f"{part.title}: {TITLES[MAIN]}"
    over = f"mean over {part.dataset}s; lines: 95 % over {part.dataset}s"
    if len(found.per_dataset) == 1:
        over = f"lines: 95 % over {part.candidate}s"
    path = bars(named, plots / f"{part.slug}-averages.png", title, f"{TITLES[MAIN]}, {over}")
    blocks.append(Plot(path, f"{title}, {over}"))
    blocks.append(_by_dataset(part, everything, plots, title))
    if layers := _by_layer(part, ranked, plots):
        blocks.append(layers)
    featured = part.featured or tuple(
        dict.fromkeys([*([DEFAULT_RULE] if DEFAULT_RULE in average else []), *ranked[:1]])
    )
    blocks += [scattered(part, place, plots) for place in featured if place in average]
    return blocks


def _averages(part: Section, shown: Sequence[Place]) -> Table:
    found, average = part.correlations, overall(part.correlations)
    names = [n for n in found.measures if n != MAIN]
    rows = [(place_name(p), _row(average[p], names)) for p in (*shown, *found.baselines)]
    ceiling = _ceiling(found)
    if ceiling:
        rows.append(("noise ceiling (between seeds)", _row(ceiling, names)))
    strong = frozenset(range(len(shown), len(rows)))
    header = ("score", f"{TITLES[MAIN]} [95 %]", "n", *(TITLES.get(n, n) for n in names))
    lines = [(name, *cells) for name, cells in rows]
    if ceiling:
        header = (*header, "share of the ceiling")
        shares = [share_of_ceiling(found, p) for p in (*shown, *found.baselines)]
        lines = [
            (*line, "–" if s is None else f"{s:.2f}") for line, s in zip(lines, [*shares, 1.0], strict=True)
        ]
    return Table(header, tuple(lines), strong)


def share_of_ceiling(found: Correlations, place: Place) -> float | None:
    """Mean weighted tau divided by the mean ceiling, over the datasets where both have a value; None where there is none."""
    pairs = [
        (tau, highest)
        for dataset, ceiling in found.ceiling.items()
        if (tau := found.per_dataset[dataset][place][MAIN].value) is not None
        and (highest := ceiling[MAIN].value) is not None
    ]
    taus, ceilings = np.sum(pairs, axis=0) if pairs else (0.0, 0.0)
    return float(taus / ceilings) if ceilings > 0 else None


def _row(measured: Measured, names: Sequence[str]) -> tuple[str, ...]:
    main = measured[MAIN]
    others = ("–" if measured[n].value is None else f"{measured[n].value:.2f}" for n in names)
    return (figures(main).split(", n")[0], str(main.n), *others)


def _by_dataset(part: Section, places: Sequence[Place], plots: Path, title: str) -> Plot:
    found = part.correlations
    datasets = list(found.per_dataset)
    values = [
        [found.per_dataset[d][p][MAIN].value for d in datasets] + [found.average[p][MAIN].value]
        for p in places
    ]
    path = heat_map(
        [place_name(p) for p in places],
        [*datasets, "average"],
        np.array(values, dtype=np.float64),
        plots / f"{part.slug}-datasets.png",
        title,
        split_after=len(datasets),
    )
    return Plot(path, f"{title} of each score for each {part.dataset}")


def _by_layer(part: Section, ranked: Sequence[Place], plots: Path) -> Plot | None:
    """Metric x layer of the averages, for the metrics that stand at several places."""
    average = part.correlations.average
    elsewhere = (*part.correlations.baselines, DEFAULT_RULE)
    places = [p for p in average if p not in elsewhere and p[1] != TRAINED]
    metrics = list(dict.fromkeys(p[0] for p in ranked if p in places))
    columns = sorted({p[1:] for p in places}, key=lambda each: (each[1] != "local", each[0]))
    if len(columns) < 2 or not metrics:
        return None
    values = [[average[m, *c][MAIN].value if (m, *c) in average else None for c in columns] for m in metrics]
    title = f"{part.title}: average {TITLES[MAIN]} by layer"
    path = heat_map(
        metrics,
        [f"{layer} {level}" for layer, level in columns],
        np.array(values, dtype=np.float64),
        plots / f"{part.slug}-layers.png",
        title,
        split_after=sum(level == "local" for _, level in columns),
    )
    return Plot(path, title)


def scattered(part: Section, place: Place, plots: Path) -> Plot:
    """A score against mAP, a panel for each dataset."""
    panels = []
    for dataset, table in part.correlations.per_dataset.items():
        points = [
            (o.candidate, value, o.map)
            for o in part.observations
            if o.dataset == dataset and (value := value_at(o, place)[0]) is not None
        ]
        names, scores, maps = zip(*points, strict=True) if points else ((), (), ())
        measures = {name: table[place][name] for name in CORRELATIONS}
        panels.append(Panel(f"{part.dataset}: {dataset}", names, scores, maps, measures))
    slug = "-".join(place).replace(".", "_").replace(" ", "_").replace("/", "_")
    title = f"{place_name(place)} against mAP"
    path = scatter(panels, plots / f"{part.slug}-scatter-{slug}.png", title, place_name(place))
    return Plot(path, f"{part.title}: {title}; one point per {part.candidate}")
