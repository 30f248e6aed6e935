"""The report of a study that is evidence for a choice: the answer first, then the proof, and what it rests on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from worker.ranking.belief import shipped
from worker.studies.document import Block, Heading, Paragraph
from worker.studies.evidence.answer import answer, cautions, raw_or_gain
from worker.studies.evidence.evidence import CHOSEN, Evidence, evidence_of, short
from worker.studies.evidence.material import Material
from worker.studies.evidence.plots import by_dataset, by_map, by_rule, by_size, costs, scatter_of
from worker.studies.evidence.tables import (
    ceiling_table,
    cost_table,
    gain_table,
    layer_table,
    left_out_table,
    nearest_table,
    proof_table,
    rule_table,
    size_table,
)
from worker.studies.measures.default_rule import DEFAULT_RULE
from worker.studies.measures.foreknown import with_foreknown
from worker.studies.measures.gains import is_gain
from worker.studies.measures.lines import Line
from worker.studies.measures.observations import Observation, Place
from worker.studies.measures.sizes import SIZES
from worker.studies.reports.report import Files, rest_of, write_blocks
from worker.studies.reports.tables import write_rows
from worker.studies.runs.real import facts_of, tables_of
from worker.studies.study import StudyResults, section

HOW = (
    "Weighted tau is Kendall's with additive hyperbolic weights, symmetric between truth and score; the truth is the mean mAP "
    "over seeds. The noise ceiling is the same between the mAP of one seed and that of another; a share is a mean tau divided "
    "by the mean ceiling of the same datasets. A ceiling compares one seed with one, a score is compared with their mean, which "
    "is less noisy, so a share may exceed 1. In brackets: 95 % bootstrap intervals over datasets, and after the semicolon over "
    "candidates. Regret@1 is the share of the best mAP that is lost by fine-tuning the first candidate only."
)
FIELDS = (
    "part",
    "score",
    "kind",
    "metric",
    "place",
    "level",
    "dataset",
    "tau",
    "low",
    "high",
    "share",
    "regret",
    "seconds",
    "untrained",
)


def write_evidence(
    material: Material,
    title: str,
    text: Sequence[str],
    facts: Sequence[tuple[str, str]],
    folder: Path,
    *,
    bootstrap: int = 1000,
    seed: int = 0,
) -> tuple[StudyResults, Evidence, Files]:
    """Writes report.html, report.md, evidence.csv, correlations.csv, observations.csv and plots/*.png. Raises StudyRefused."""
    found = evidence_of(material, bootstrap=bootstrap, seed=seed)
    rows = [_of_the_question(o, material) for o in material.observations]
    part = section(
        "ranking",
        "All scores on all datasets",
        [],
        # beside all scores, not among those that are chosen from: a list over all datasets would know the proof's
        with_foreknown(rows, material.real.known(), shipped()),
        featured=(DEFAULT_RULE,),
        bootstrap=bootstrap,
        seed=seed,
    )
    study = StudyResults(
        title, tuple(text), (*facts_of(material.real), *facts), (part,), tables_of(material.real)
    )
    plots = folder / "plots"
    blocks: list[Block] = [
        *_first(found, text),
        *_proof(found, plots),
        *_ceiling(found),
        *_layers(found, plots),
    ]
    blocks += [
        *_gains(found),
        *_sizes(found, plots),
        *_cost(found, plots),
        *_cautions(found),
        *rest_of(study, plots),
    ]
    folder.mkdir(parents=True, exist_ok=True)
    table = write_rows(folder / "evidence.csv", FIELDS, _rows(found))
    return study, found, write_blocks(study, blocks, folder, (table,), material.observations)


def _first(found: Evidence, text: Sequence[str]) -> list[Block]:
    material, question = found.material, found.material.question
    asked = (
        f"Asked: which score, read at which layer, orders {len(material.real.manifests)} candidates of {material.architectures} "
        f"architectures by the mAP they reach after fine-tuning? Chosen on {', '.join(material.chosen_on)} out of "
        f"{len(question.scores)} scores ({', '.join(question.metrics)}{'; each also above its zero point' if question.gains else ''}) "
        f"at {len(question.rules)} layer rules ({', '.join(rule.name for rule in question.rules)}), and looked at on "
        f"{', '.join(material.proof)}."
    )
    said: list[Block] = [
        Heading("What was asked"),
        *(Paragraph(line) for line in text),
        Paragraph(asked),
        Heading("Answer"),
    ]
    return [*said, Paragraph(" ".join(answer(found)))]


def _proof(found: Evidence, plots: Path) -> list[Block]:
    material = found.material
    blocks: list[Block] = [
        Heading("Choice and proof"),
        Paragraph(HOW),
        Heading(f"On the datasets it was not chosen on: {', '.join(material.proof)}", 3),
        proof_table(found.lines, material.proof),
        by_dataset(found, plots),
        *scatter_of(found, plots),
        Heading(f"On the datasets of the choice: {', '.join(material.chosen_on)}", 3),
        Paragraph(chosen_from(found)),
        proof_table(found.lines_on, material.chosen_on),
        Paragraph(
            "The scores with the highest means on these datasets, and what became of them on the others: how much hangs on which one won."
        ),
        nearest_table(found),
        Heading("Each dataset left out once", 3),
        Paragraph(
            "Here the choice is made on all datasets but one and looked at on that one. The choices share most of their datasets, so they "
            "are no independent trials."
        ),
        left_out_table(found),
    ]
    return blocks


def chosen_from(found: Evidence) -> str:
    """How many scores the choice had, and how alone the chosen one stands."""
    choice, strict = found.choice, found.strict
    said = f"Of {choice.considered} scores {len(choice.fitting)} have a value for every candidate on each of these datasets"
    if found.material.question.untrained:
        said += f", {len(strict.fitting)} of them put the untrained candidates last on each"
    equal = sum(round(tau - (choice.tau or 0.0), 12) == 0 for tau in choice.fitting.values())
    if equal > 1:
        said += f"; {equal} share the highest mean, of which the first in the order of the question was taken"
    return (
        f"{said}. The tau of the chosen one is the highest of them and flatters it; the table above does not."
    )


def _ceiling(found: Evidence) -> list[Block]:
    blocks: list[Block] = [Heading("Noise ceiling")]
    if not found.ceiling:
        return [
            *blocks,
            Paragraph(
                "There is one seed only, so there is no noise ceiling: nothing says how much of mAP is luck."
            ),
        ]
    return [
        *blocks,
        Paragraph(
            "How well the mAP of one seed orders the candidates as another's does, and how far mAP moves between seeds."
        ),
        ceiling_table(found),
    ]


def _layers(found: Evidence, plots: Path) -> list[Block]:
    return [
        Heading("Where to read"),
        Paragraph(
            "Mean weighted tau over all datasets of each score at each layer rule; this describes and chooses nothing."
        ),
        by_rule(found, plots),
        rule_table(found),
        Paragraph(
            "The same for each dataset, from small to large objects: the side of the median object in pixels of the input stands beside its name, and in the table the maps that fit it."
        ),
        by_map(found, plots),
        layer_table(found),
    ]


def _gains(found: Evidence) -> list[Block]:
    if not found.material.question.gains:
        return []
    return [
        Heading("Raw score or gain"),
        Paragraph(
            f"The zero point of a candidate is the score of its architecture with initial random weights (seed {found.material.real.settings.zero_point_seed}), its gain what is "
            f"above that. On {', '.join(found.material.proof)}, both at the place that the raw score was given on the other datasets. A gain can order "
            "candidates otherwise only where architectures or their inputs differ."
        ),
        Paragraph(raw_or_gain(found)),
        gain_table(found),
    ]


def _sizes(found: Evidence, plots: Path) -> list[Block]:
    picture = by_size(found, plots)
    if picture is None:
        return []
    return [
        Heading("Small, medium and large objects"),
        Paragraph(
            "The thirds of each dataset's objects by their size in the input, scored apart, regions with the object they belong to. "
            "The truth is the mAP of all objects. Means over the datasets where every column has a value."
        ),
        picture,
        size_table(found),
    ]


def _cost(found: Evidence, plots: Path) -> list[Block]:
    return [
        Heading("Cost and signal"),
        Paragraph(
            f"On {', '.join(found.material.proof)}; where each score is read was chosen on the other datasets. Seconds are means of one "
            "candidate on one dataset on the machine of this study: reading all layers once and scoring, training without evaluation. "
            "Several scores together cost hardly more than one."
        ),
        cost_table(found),
        costs(found, plots),
    ]


def _cautions(found: Evidence) -> list[Block]:
    return [Heading("Cautions"), *(Paragraph(line) for line in cautions(found))]


def _of_the_question(each: Observation, material: Material) -> Observation:
    """Without what only some tables need: by size, and gains of scores that are no choice."""
    kept = {*material.question.space, DEFAULT_RULE}

    def of(place: Place) -> bool:
        return place in kept or (place[2] not in SIZES and not is_gain(place[0]))

    return replace(
        each,
        scores={p: v for p, v in each.scores.items() if of(p)},
        undefined={p: v for p, v in each.undefined.items() if of(p)},
    )


def _rows(found: Evidence) -> Iterator[dict[str, Any]]:
    for part, lines in (("proof", found.lines), ("choice", found.lines_on)):
        for line in lines:
            yield from _of_line(line, part)
    for each in found.priced:
        yield from (
            {**row, "kind": each.family, "seconds": each.seconds} for row in _of_line(each.line, "cost")
        )
    for left in found.left_out:
        place = left.choice.place
        yield {
            "part": "left out once",
            "score": None if place is None else short(place),
            "kind": CHOSEN,
            "dataset": left.dataset,
            "tau": left.tau,
            "share": None if left.tau is None or not left.ceiling else left.tau / left.ceiling,
        }


def _of_line(line: Line, part: str) -> Iterator[dict[str, Any]]:
    metric, place, level = line.place or ("", "", "")
    about = {
        "part": part,
        "score": line.name,
        "kind": line.kind,
        "metric": metric,
        "place": place,
        "level": level,
    }
    for dataset, tau in line.taus.items():
        ranks = " ".join(map(str, line.ranks.get(dataset, ())))
        yield {**about, "dataset": dataset, "tau": tau, "untrained": ranks}
    yield {
        **about,
        "dataset": "mean",
        "tau": line.mean.value,
        "low": line.mean.low,
        "high": line.mean.high,
        "share": None if line.share is None else line.share.value,
        "regret": line.regret,
    }
