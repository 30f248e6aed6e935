"""The synthetic benchmark as a study: source selection, target selection, all pairs, beside the published figures."""

from __future__ import annotations

from collections.abc import Sequence

from worker.studies.document import Table
from worker.studies.measures.correlation import Coefficient
from worker.studies.measures.default_rule import DEFAULT_RULE, with_default_rule
from worker.studies.measures.observations import Observation, Place, swapped
from worker.studies.runs.synthetic import Benchmark
from worker.studies.study import Section, StudyResults, section

# Pearson with mAP at fpn_ms (here neck.roi), means over five targets, or five sources; arXiv 2306.15306, summary table.
PUBLISHED = {
    "tlogme": {"source": 0.50, "target": 0.35},
    "logme": {"source": 0.50, "target": 0.32},
    "h_score": {"source": 0.36, "target": -0.22},
    "h_score_regularized": {"source": 0.49, "target": 0.42},
    "transrate": {"source": 0.21, "target": 0.12},
}
PUBLISHED_PLACE = ("neck.roi", "local")
FEATURED: tuple[Place, ...] = (
    DEFAULT_RULE,
    ("tlogme", "neck.roi", "local"),
    ("tlogme", "neck.roi", "global"),
)


def study_of(
    benchmark: Benchmark, facts: Sequence[tuple[str, str]] = (), *, bootstrap: int = 1000
) -> StudyResults:
    """The study of a benchmark. Raises StudyRefused."""
    rows = with_default_rule(benchmark.observations())
    parts = _sections(rows, benchmark.seed, bootstrap)
    scale = benchmark.scale
    text = (
        f"Detection sets were drawn from {len(benchmark.sources)} sources of glyphs ({', '.join(benchmark.sources)}). A "
        "detector was trained on each; every such model was scored on every other set and transferred to it, with its body "
        f"frozen and a fresh predictor. That gives {len(rows)} ordered pairs. Scale {scale.name}: {scale.help}",
        "Two baselines stand beside the metrics: the model's mAP on its own source, which is what a list of published figures "
        "would order by, and the mAP that a model trained on the target itself reaches, which says how hard the target is.",
    )
    settings = (
        ("scale", f"{scale.name}: {scale.title}"),
        ("backbone", scale.backbone),
        (
            "scenes",
            f"{scale.train_images} training images ({scale.val_share:.0%} for validation), {scale.test_images} test images, {scale.image_size} pixels",
        ),
        ("pretraining", _phases(scale.pretraining)),
        ("transfer", _phases(scale.transfer)),
        ("truth", "test mAP@[.5:.95] of the best epoch by validation, looked at once"),
        ("seed", str(benchmark.seed)),
        *facts,
    )
    tables = [
        (
            "mAP of the transfers",
            "Rows: source; columns: target; one figure for each seed. On the diagonal the mAP of a source's model on its own set.",
            _map_table(benchmark),
        ),
        (
            "Beside the published figures",
            "Pearson at neck.roi (the published fpn_ms), local. The published rows are means of five correlations over four "
            "points each; so are these where there are five sources. Such means carry little certainty, as the intervals show.",
            _published_table(parts),
        ),
    ]
    if other := _published_truth(benchmark):
        tables.append(other)
    if benchmark.left_out():
        lost = tuple((source, target, why) for (source, target), why in benchmark.left_out().items())
        tables.append(
            ("Left out", "These pairs could not be carried out.", Table(("source", "target", "why"), lost))
        )
    return StudyResults(
        "Synthetic benchmark: do scores foretell the mAP of a transfer?", text, settings, parts, tuple(tables)
    )


def _sections(rows: Sequence[Observation], seed: int, bootstrap: int) -> tuple[Section, ...]:
    pairs = [
        Observation(
            "all pairs", f"{o.candidate} to {o.dataset}", o.scores, o.static, o.map_by_seed, o.undefined
        )
        for o in rows
    ]
    return (
        section(
            "source",
            "Source selection",
            ["For each target: which of the other sources' models should be fine-tuned?"],
            rows,
            dataset="target",
            candidate="source",
            featured=FEATURED,
            bootstrap=bootstrap,
            seed=seed,
        ),
        section(
            "target",
            "Target selection",
            ["For each source: which of the other sets will its model do best on?"],
            swapped(rows),
            dataset="source",
            candidate="target",
            featured=FEATURED[:2],
            bootstrap=bootstrap,
            seed=seed,
        ),
        section(
            "pairs",
            "All pairs together",
            [
                "One correlation over all ordered pairs; it mixes how good a source is with how hard a target is."
            ],
            pairs,
            dataset="pool",
            candidate="pair",
            featured=FEATURED[1:],
            bootstrap=bootstrap,
            seed=seed,
        ),
    )


def _phases(phases) -> str:
    return ", then ".join(f"{p.epochs:g} epochs at {p.lr:g}, frozen: {p.freeze}" for p in phases)


def _map_table(benchmark: Benchmark) -> Table:
    rows = []
    for source in benchmark.sources:
        cells = []
        for target in benchmark.sources:
            if source == target:
                cells.append(_number(benchmark.models[source]["map"]))
            else:
                maps = [
                    result["map"]
                    for result in benchmark.transfers[source, target].values()
                    if "error" not in result
                ]
                cells.append(", ".join(map(_number, maps)) or "–")
        rows.append((source, *cells))
    return Table(("source", *benchmark.sources), tuple(rows))


def _published_table(parts: Sequence[Section]) -> Table:
    rows = []
    for part, kind in zip(parts[:2], ("source", "target"), strict=True):
        for metric, published in PUBLISHED.items():
            measured = part.correlations.average.get((metric, *PUBLISHED_PLACE))
            each = measured["pearson"] if measured else Coefficient(None, 0)
            interval = "–" if each.low is None else f"{each.low:.2f} to {each.high:.2f}"
            rows.append(
                (part.title, metric, f"{published[kind]:.2f}", _number(each.value), interval, str(each.n))
            )
    return Table(("task", "metric", "published", "here", "95 %", "n"), tuple(rows))


def _published_truth(benchmark: Benchmark) -> tuple[str, str, Table] | None:
    """The averages with the truth taken as published: the best of all epochs on the images it was chosen by."""
    rows = with_default_rule(benchmark.observations("map_published"))
    if not rows:
        return None
    parts = _sections(rows, benchmark.seed, bootstrap=0)[:2]
    lines = []
    for part in parts:
        average = part.correlations.average
        for place in (
            DEFAULT_RULE,
            *((m, *PUBLISHED_PLACE) for m in PUBLISHED),
            *part.correlations.baselines,
        ):
            if place in average:
                cells = (_number(average[place][name].value) for name in ("weighted_tau", "pearson"))
                lines.append((part.title, place[0], *cells, str(average[place]["pearson"].n)))
    text = (
        "The published truth is the highest mAP of all epochs on the images it is reported for. Taken that way (here on the "
        "validation images) the averages are:"
    )
    return (
        "With the truth taken as published",
        text,
        Table(("task", "score", "weighted tau", "Pearson", "n"), tuple(lines)),
    )


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"
