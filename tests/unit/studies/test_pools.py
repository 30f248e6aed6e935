"""What orders the whole pool, on parts of it and at another budget."""

import csv
from pathlib import Path

import pytest

from worker.ranking.belief.records import Evidence, Facts, Observed, TargetFacts
from worker.ranking.belief.tables import evidence_of, means
from worker.studies.evidence.beliefs import BLIND, CURVE, PARAMETERS, WITH_CURVE
from worker.studies.evidence.pools import (
    FEWEST,
    HALF_BUDGET,
    PUBLISHED,
    THIS_BUDGET,
    WHOLE_POOL,
    Row,
    at_another_budget,
    by_architecture,
    held_against,
    published_of,
    write,
)

COCO, ACCURACY = PUBLISHED
# three bodies in one detector, three whole detectors of other kinds, and one that nothing was trained of
SIZE = {"a1": 1, "a2": 2, "a3": 3, "d1": 4, "d2": 5, "d3": 6, "u": 7}
# a1 to a3 are ordered as by parameters, on the second dataset the other way round
REACHED = {"x": (0.1, 0.2, 0.3), "y": (0.3, 0.2, 0.1), "z": (0.2, 0.3, 0.4), "w": (0.1, 0.3, 0.45)}
# of the three detectors everywhere the largest is best
DETECTORS = (0.5, 0.6, 0.7)


def facts(name: str) -> Facts:
    return Facts(
        name,
        "net" if name[0] == "a" else f"net {name}",
        SIZE[name] * 1000,
        detector=name[0] == "d",
        untrained=name == "u",
        scores={("logme_iou", "gain"): float(SIZE[name])},
    )


def evidence(*, half: bool = True) -> list[Evidence]:
    found = []
    for number, (dataset, values) in enumerate(REACHED.items()):
        target = TargetFacts(dataset, 100 + number, 3, 5.0)
        for name, value in zip(SIZE, (*values, *DETECTORS, 0.05), strict=True):
            if half:
                found.append(Evidence(facts(name), target, Observed(value / 2, 0.5)))
            found.append(Evidence(facts(name), target, Observed(value)))
    return found


def one(rows: list[Row], pool: str, way: str, against: str = "", measure: str = "weighted_tau") -> Row:
    (row,) = (r for r in rows if (r.pool, r.way, r.against, r.measure) == (pool, way, against, measure))
    return row


@pytest.fixture(scope="module")
def rows() -> list[Row]:
    longer = {(d, n): float(SIZE[n]) for d in REACHED for n in SIZE}
    return held_against(evidence(), {COCO: {"d1": 30.0, "d2": 20.0, "d3": 10.0}}, {"longer": longer})


def test_candidates_of_one_architecture_alone(rows: list[Row]) -> None:
    found = one(rows, "one architecture", PARAMETERS)
    # 1, -1, 1 and 1: their standard deviation is 1, and t with three degrees of freedom 3.1824
    assert found.datasets == 4
    assert found.mean == pytest.approx(0.5)
    half = 3.182446 / 4**0.5
    assert (found.low, found.high) == pytest.approx((0.5 - half, 0.5 + half), abs=1e-5)
    groups = by_architecture([facts(name) for name in SIZE])
    assert [len(group) for group in groups] == [3, 1, 1, 1, 1]


def test_differences_are_paired_with_what_never_looks_at_the_dataset(rows: list[Row]) -> None:
    # the largest detector is the best on every dataset, and published is the opposite
    size = one(rows, "whole detectors only", PARAMETERS)
    assert (size.mean, size.low, size.high) == pytest.approx((1.0, 1.0, 1.0))
    assert size.undefined == ""
    assert one(rows, "whole detectors only", BLIND).mean == pytest.approx(1.0)
    assert one(rows, "whole detectors only", PARAMETERS, BLIND).mean == pytest.approx(0.0)
    assert one(rows, "whole detectors only", COCO).mean == pytest.approx(-1.0)
    assert one(rows, "whole detectors only", PARAMETERS, COCO).mean == pytest.approx(2.0)
    assert one(rows, "whole detectors only", COCO, PARAMETERS, "regret_at_1").mean == pytest.approx(0.2 / 0.7)
    assert one(rows, WHOLE_POOL, ACCURACY).undefined
    # over the whole pool the published order is compared on the three candidates that it orders
    assert one(rows, WHOLE_POOL, PARAMETERS, COCO).mean == pytest.approx(2.0)


def test_untrained_ones_are_left_out(rows: list[Row]) -> None:
    whole, trained = one(rows, WHOLE_POOL, PARAMETERS), one(rows, "trained only", PARAMETERS)
    # the largest is untrained and last of all, so an order by parameters is better without it
    assert whole.mean < trained.mean


def test_other_budgets_are_other_truths(rows: list[Row]) -> None:
    assert one(rows, HALF_BUDGET, THIS_BUDGET).mean == pytest.approx(1.0)
    assert one(rows, HALF_BUDGET, PARAMETERS).mean == pytest.approx(one(rows, WHOLE_POOL, PARAMETERS).mean)
    assert not [r for r in rows if r.pool == HALF_BUDGET and r.way in (CURVE, WITH_CURVE)], (
        "it would be the truth itself"
    )
    assert one(rows, "longer", PARAMETERS).mean == pytest.approx(1.0)
    assert one(rows, "longer", CURVE).mean == pytest.approx(one(rows, WHOLE_POOL, PARAMETERS).mean)


def test_a_detector_that_another_machine_trained_again_is_the_same_candidate(tmp_path: Path) -> None:
    tables = Path(__file__).parents[3] / "docs/studies/truth"
    for name in ("pairs.csv", "scores.csv", "datasets.csv"):
        (tmp_path / name).write_bytes((tables / name).read_bytes())
    lines = (tables / "candidates.csv").read_text().splitlines()
    kept = [line for line in lines if not line.startswith("mobilenet_v2 COCO,")]
    other = [
        f"{line.split(',')[0]},other-{number},{line.split(',', 2)[2]}" for number, line in enumerate(kept[1:])
    ]
    (tmp_path / "candidates.csv").write_text("\n".join([lines[0], *other, "new" + other[0]]) + "\n")
    gone = next(line.split(",")[1] for line in lines if line.startswith("mobilenet_v2 COCO,"))
    rows = (tmp_path / "pairs.csv").read_text().splitlines()
    (tmp_path / "pairs.csv").write_text("\n".join(r for r in rows if ",mobilenet_v2 COCO," not in r) + "\n")
    wanted = {pair: value for pair, value in means(evidence_of([tables])).items() if pair[1] != gone}
    assert at_another_budget(tables, tmp_path) == wanted


def test_what_too_few_have_is_undefined() -> None:
    found = held_against(evidence(half=False), {COCO: {"d1": 30.0, "d2": 20.0}})
    few = one(found, WHOLE_POOL, COCO)
    assert (few.datasets, few.mean, few.low) == (0, None, None)
    assert few.undefined == f"on no dataset are there {FEWEST} candidates that have it"
    assert one(found, WHOLE_POOL, PARAMETERS, COCO).mean is None
    assert one(found, HALF_BUDGET, PARAMETERS).undefined.startswith("no dataset has 3 such candidates")
    alone = [each for each in evidence() if each.target.key == "x" or each.candidate.key[0] == "d"]
    single = one(held_against(alone), "one architecture", PARAMETERS)
    assert (single.datasets, single.mean, single.low) == (1, pytest.approx(1.0), None)
    assert single.undefined == "one dataset has no interval"


def test_it_is_one_plain_table(rows: list[Row], tmp_path: Path) -> None:
    told = list(csv.DictReader(write(rows, tmp_path).open()))
    assert len(told) == len(rows)
    assert {"pool", "way", "measure", "against", "datasets", "mean", "low", "high", "undefined"} == set(
        told[0]
    )
    (tmp_path / "candidates.csv").write_text("weights_sha256,coco_box_map,imagenet_top1\na,22.0,\nb,,71.9\n")
    assert published_of(tmp_path) == {COCO: {"a": 22.0}, ACCURACY: {"b": 71.9}}
