"""What a study is evidence of: the score chosen on some datasets, proven on the others beside ceiling, static orders and published scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from worker.metrics import METRICS
from worker.studies.evidence.material import Material
from worker.studies.measures.chance import Luck, luck_of
from worker.studies.measures.choice import Choice, choose, leave_one_out, stand_last
from worker.studies.measures.correlation import Coefficient, Measured, noise_ceiling
from worker.studies.measures.default_rule import DEFAULT_RULE
from worker.studies.measures.gains import gain_of, is_gain, raw_of
from worker.studies.measures.lines import (
    Beside,
    Line,
    Share,
    line_of,
    line_of_taus,
    mean_of,
    share_of,
    static_places,
    tau_among,
)
from worker.studies.measures.observations import Observation, Place
from worker.studies.measures.signals import PROBES, tau_between_seeds

MAIN = "weighted_tau"
TARGET = 0.8  # of the noise ceiling
NEAREST = 10
CHOSEN, STRICT = "chosen", "chosen, untrained last"
# The published scores, at the places they are published for or that are nearest to them: the pyramid level that fits an
# object where the checkpoint brought a pyramid, else the last map, and the map that this service reads by default.
PUBLISHED: tuple[Place, ...] = tuple(
    (metric, layer, "local")
    for metric in ("tlogme", "logme", "logme_boxes", "h_score", "h_score_regularized")
    for layer in ("neck.roi", "backbone.c5", "backbone.c4")
)


@dataclass(frozen=True)
class Priced:
    """One signal: where it is read was chosen on the datasets of the choice. seconds: of one candidate on one dataset."""

    name: str
    family: str
    choice: Choice | None
    line: Line
    seconds: float | None


@dataclass(frozen=True)
class HeldOut:
    """One dataset and what all others chose for it. static: the best static order's tau there."""

    dataset: str
    choice: Choice
    tau: float | None
    ceiling: float | None
    static: float | None
    last: bool


@dataclass(frozen=True)
class Evidence:
    """choice: the highest mean tau; strict: the same among those that put untrained candidates last. lines: the table of
    the proof, lines_on: the same on the datasets of the choice. nearest: the scores that came out best on these, on the
    others. truth_last: on how many datasets of the proof untrained
    candidates have the lowest mAP. gains: name of each raw score to its line and that of its gain at the same place.
    left_out_mean: of leaving each dataset out once."""

    material: Material
    ceiling: Mapping[str, Measured]
    ceiling_average: Measured | None
    choice: Choice
    strict: Choice
    lines: tuple[Line, ...]
    lines_on: tuple[Line, ...]
    nearest: tuple[Line, ...]
    priced: tuple[Priced, ...]
    gains: Mapping[str, tuple[Line, Line]]
    left_out: tuple[HeldOut, ...]
    left_out_mean: Coefficient
    left_out_share: Share | None
    truth_last: int
    luck: Luck | None

    def line(self, kind: str) -> Line | None:
        return next((line for line in self.lines if line.kind == kind), None)


def evidence_of(material: Material, *, bootstrap: int = 1000, seed: int = 0) -> Evidence:
    """Chooses on the question's datasets and measures on the others. Raises StudyRefused."""
    rows, question = material.observations, material.question
    ceiling, average = noise_ceiling(rows, bootstrap=bootstrap, seed=seed)
    beside = Beside(
        question.untrained,
        {d: m[MAIN].value for d, m in ceiling.items()},
        static_places(rows),
        bootstrap,
        seed,
    )
    choice = choose(rows, question.space, material.chosen_on)
    strict = choose(rows, question.space, material.chosen_on, last=question.untrained)
    left_out = _left_out(material, beside)
    taus = {each.dataset: each.tau for each in left_out}
    priced = _priced(material, beside)
    return Evidence(
        material,
        ceiling,
        average,
        choice,
        strict,
        _lines(material, choice, strict, material.proof, beside),
        _lines(material, choice, strict, material.chosen_on, beside),
        tuple(
            line_of(short(place), "metric", place, rows, material.proof, beside)
            for place in list(choice.fitting)[:NEAREST]
        ),
        priced,
        _gains(material, priced, beside),
        left_out,
        mean_of(taus, beside),
        share_of(taus, beside),
        sum(_truth_last(rows, d, question.untrained) for d in material.proof),
        luck_of([o for o in rows if o.dataset in material.chosen_on], tuple(choice.fitting), MAIN, seed=seed),
    )


def _lines(
    material: Material, choice: Choice, strict: Choice, on: Sequence[str], beside: Beside
) -> tuple[Line, ...]:
    rows = material.observations
    ceiling = {d: beside.ceiling.get(d) for d in on}
    found = (
        [line_of_taus("noise ceiling: one seed against another", "ceiling", ceiling, beside)]
        if beside.ceiling
        else []
    )
    for kind, each in ((CHOSEN, choice), (STRICT, strict)):
        if each.place is not None:
            found.append(line_of(f"{kind}: {short(each.place)}", kind, each.place, rows, on, beside))
    found.append(line_of("the service's default rule", "default", DEFAULT_RULE, rows, on, beside))
    found += [
        line_of(f"static: {p[0].removeprefix('static_')}", "baseline", p, rows, on, beside)
        for p in beside.statics
    ]
    found += [
        line_of(f"published: {short(p)}", "published", p, rows, on, beside)
        for p in PUBLISHED
        if _stands(rows, p)
    ]
    return tuple(found)


def _stands(rows: Sequence[Observation], place: Place) -> bool:
    """Whether there is a dataset on which enough candidates have a value."""
    return any(
        tau_among([o for o in rows if o.dataset == d], place) is not None
        for d in dict.fromkeys(o.dataset for o in rows)
    )


def _priced(material: Material, beside: Beside) -> tuple[Priced, ...]:
    rows, question = material.observations, material.question
    found = []
    for score in question.scores:
        places = [place for place in question.space if place[0] == score]
        # a score over classes has no value where there is one class only: it is chosen on what is left
        on = [
            d
            for d in material.chosen_on
            if any(tau_among([o for o in rows if o.dataset == d], p) is not None for p in places)
        ]
        choice = choose(rows, places, on)
        if choice.place is not None:
            line = line_of(short(choice.place), "metric", choice.place, rows, material.proof, beside)
            found.append(Priced(score, _family(score), choice, line, material.seconds(choice.place)))
    for place in beside.statics:
        line = line_of(place[0].removeprefix("static_"), "baseline", place, rows, material.proof, beside)
        if line.mean.value is not None:
            found.append(Priced(line.name, "static order", None, line, 0.0))
    if material.real.probes:
        for place in PROBES:
            line = line_of(place[0], "training", place, rows, material.proof, beside)
            found.append(Priced(place[0], "short fine-tuning", None, line, material.probe_seconds))
    groups = {d: [o for o in rows if o.dataset == d] for d in material.proof}
    early = {d: tau_between_seeds(group, material.early) for d, group in groups.items()}
    if any(t is not None for t in early.values()):
        line = line_of_taus("early_map", "training", early, beside)
        found.append(
            Priced(
                "early_map", "fine-tuning stopped at its first evaluation", None, line, material.early_seconds
            )
        )
    if beside.ceiling:
        line = line_of_taus(
            "one other seed", "ceiling", {d: beside.ceiling.get(d) for d in material.proof}, beside
        )
        found.append(Priced("one other seed", "full fine-tuning", None, line, material.full_seconds))
    return tuple(found)


def _family(score: str) -> str:
    kind = "true boxes" if METRICS[raw_of(score)].rows == "objects" else "regions"
    return f"{kind}, gain" if is_gain(score) else kind


def _gains(material: Material, priced: Sequence[Priced], beside: Beside) -> dict[str, tuple[Line, Line]]:
    if not material.question.gains:
        return {}
    found = {}
    for each in priced:
        if each.choice is not None and each.choice.place is not None and not is_gain(each.name):
            metric, layer, level = each.choice.place
            place = (gain_of(metric), layer, level)
            found[each.line.name] = (
                each.line,
                line_of(short(place), "metric", place, material.observations, material.proof, beside),
            )
    return found


def _left_out(material: Material, beside: Beside) -> tuple[HeldOut, ...]:
    rows, found = material.observations, []
    for dataset, choice in leave_one_out(rows, material.question.space).items():
        group = [o for o in rows if o.dataset == dataset]
        statics = [t for p in beside.statics if (t := tau_among(group, p)) is not None]
        found.append(
            HeldOut(
                dataset,
                choice,
                None if choice.place is None else tau_among(group, choice.place),
                beside.ceiling.get(dataset),
                max(statics, default=None),
                choice.place is not None and stand_last(group, choice.place, beside.untrained),
            )
        )
    return tuple(found)


def _truth_last(rows: Sequence[Observation], dataset: str, untrained: frozenset[str]) -> bool:
    maps = {o.candidate: o.map for o in rows if o.dataset == dataset}
    below, above = (
        [m for c, m in maps.items() if c in untrained],
        [m for c, m in maps.items() if c not in untrained],
    )
    return not below or not above or max(below) < min(above)


def short(place: Place) -> str:
    """A score's name where it is read."""
    return place[0] if place == DEFAULT_RULE else f"{place[0]}, {place[1]}"


def seed_noise(rows: Sequence[Observation], dataset: str) -> float | None:
    """Standard deviation of a fine-tuning's mAP over seeds, pooled over the candidates; None with one seed."""
    variances = [
        np.var(list(o.map_by_seed.values()), ddof=1)
        for o in rows
        if o.dataset == dataset and len(o.map_by_seed) > 1
    ]
    return float(np.sqrt(np.mean(variances))) if variances else None
