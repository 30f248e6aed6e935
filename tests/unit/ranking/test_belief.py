"""The belief about mAP: exact where it can be checked by other means, calibrated on made-up worlds, and honest far away."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import multivariate_normal

from worker.ranking.belief import Evidence, Facts, Learned, Observed, TargetFacts, believe, shipped
from worker.ranking.belief.design import TOO_SMALL, pair_numbers
from worker.ranking.belief.facts import is_untrained, scores_of, stride_of
from worker.ranking.belief.learn import learn
from worker.ranking.belief.learned import Curve, Spread
from worker.ranking.belief.records import SCORES, SOURCES, Believed
from worker.ranking.belief.tables import evidence_of, means

FACTS = {
    "log images": (4.0, 0.5),
    "log parameters": (15.0, 0.5),
    "detector": (0.3, 0.5),
}
BARE = Learned(0.5, Spread(), FACTS, (Curve(0.5, 0.05, 0.9, 0.05, 0.06),), ())


def candidate(name: str, **more: object) -> Facts:
    return Facts(name, more.pop("architecture", "net"), 3_000_000, **more)


def target(name: str = "here") -> TargetFacts:
    return TargetFacts(name, 100, 3, 5.0)


def seen(name: str, where: str, map: float, **more: object) -> Evidence:
    share = more.pop("share", 1.0)
    return Evidence(
        candidate(name, **more), target(where), Observed(map, share, f"v_{name}_{where}_{map}", True)
    )


def of(found: Sequence[Believed], name: str) -> Believed:
    return next(each for each in found if each.key == name)


def test_it_is_the_conditional_distribution_of_a_joint_gaussian() -> None:
    # The same model written out as one joint distribution of weights and effects, conditioned by brute force.
    spread = BARE.spread
    own = [seen("a", "there", 0.3), seen("b", "there", 0.2), seen("a", "here", 0.25)]
    found = believe([candidate("a"), candidate("b"), candidate("c")], target(), own, learned=BARE)
    rows = [("a", "there"), ("b", "there"), ("a", "here"), ("a", "here"), ("b", "here"), ("c", "here")]
    images = (np.log(100) - 4.0) / 0.5
    parameters, detector = (np.log(3e6) - 15) / 0.5, -0.3 / 0.5
    common = spread.mean**2 + spread.target_facts**2 * images**2 + spread.architecture**2
    common += spread.candidate_facts**2 * (parameters**2 + detector**2)
    joint = np.array(
        [
            [
                common
                + spread.target**2 * (t == u)
                + spread.candidate**2 * (c == d)
                + spread.pair**2 * ((c, t) == (d, u))
                for d, u in rows
            ]
            for c, t in rows
        ]
    )
    joint[:3, :3] += np.eye(3) * spread.seed**2
    off = np.sqrt([0.3, 0.2, 0.25]) - 0.5
    weights = joint[3:, :3] @ np.linalg.inv(joint[:3, :3])
    mean, covariance = 0.5 + weights @ off, joint[3:, 3:] - weights @ joint[:3, 3:]
    for place, each in enumerate(found.candidates):
        assert sum(each.parts.values()) == pytest.approx(mean[place], abs=1e-6)
        sd = np.sqrt(covariance[place, place] + spread.seed**2)
        assert np.sqrt([each.low, each.high]) == pytest.approx(
            np.clip(mean[place] + np.array([-1.2815516, 1.2815516]) * sd, 0, 1), abs=1e-6
        )
        assert each.mean == pytest.approx(mean[place] ** 2 + sd**2, abs=1e-6)
    draws = multivariate_normal(mean, covariance, allow_singular=True).rvs(100_000, random_state=1)
    shares = np.bincount(draws.argmax(axis=1), minlength=3) / 100_000
    assert [each.chance_of_best for each in found.candidates] == pytest.approx(shares, abs=0.015)


def test_without_any_evidence_nothing_is_known_and_it_says_so() -> None:
    found = believe([candidate("a"), candidate("b")], target(), learned=BARE)
    assert [each.chance_of_best for each in found.candidates] == pytest.approx([0.5, 0.5], abs=0.04)
    assert all(each.high - each.low > 0.35 for each in found.candidates)
    assert "no fine-tuning of this dataset is known" in " ".join(found.warnings)
    assert found.used == ()
    assert all("nothing was learned from its architecture" in each.far[0] for each in found.candidates)


def test_an_own_training_sharpens_at_once_and_is_taken_back_as_if_it_had_never_been() -> None:
    pool = [candidate("a"), candidate("b")]
    before = believe(pool, target(), [seen("b", "there", 0.3)], learned=BARE)
    after = believe(pool, target(), [seen("b", "there", 0.3), seen("a", "here", 0.5)], learned=BARE)
    a, was = of(after.candidates, "a"), of(before.candidates, "a")
    assert abs(a.mean - 0.5) < 0.05 < abs(was.mean - 0.5)
    assert a.high - a.low < 0.5 * (was.high - was.low)
    # it tells how hard the dataset is, so of the other as well
    assert of(after.candidates, "b").mean > of(before.candidates, "b").mean
    assert after.used == ("v_b_there_0.3", "v_a_here_0.5")
    assert believe(pool, target(), [seen("b", "there", 0.3)], learned=BARE) == before
    more = believe(pool, target(), [seen("a", "here", 0.5), seen("a", "here", 0.52)], learned=BARE)
    assert of(more.candidates, "a").high - of(more.candidates, "a").low < a.high - a.low


def test_trainings_elsewhere_order_and_part_of_a_training_says_less_than_a_whole() -> None:
    elsewhere = [seen(n, f"t{i}", m) for i in range(4) for n, m in (("a", 0.4), ("b", 0.2))]
    found = believe([candidate("a"), candidate("b"), candidate("c")], target(), elsewhere, learned=BARE)
    assert of(found.candidates, "a").mean > of(found.candidates, "c").mean > of(found.candidates, "b").mean
    assert of(found.candidates, "a").chance_of_best > 0.5

    def width(*own: Evidence) -> float:
        each = of(believe([candidate("a")], target(), own, learned=BARE).candidates, "a")
        return each.high - each.low

    # halfway through, then whole; of before the first share that was learned for nothing is known
    assert width(seen("a", "here", 0.3)) < width(seen("a", "here", 0.27, share=0.6)) < width()
    assert width(seen("a", "here", 0.1, share=0.2)) == width()


def test_scores_count_as_much_as_was_learned_of_them() -> None:
    pool = [candidate("a", scores={SCORES[0]: 1.0}), candidate("b", scores={SCORES[0]: -1.0})]
    mute = replace(BARE, spread=replace(BARE.spread, scores=0.0))
    own = [
        seen(n, f"t{i}", m, scores={SCORES[0]: s})
        for i in range(6)
        for n, m, s in (("c", 0.4, 1.0), ("d", 0.2, -1.0))
    ]
    with_scores = believe(pool, target(), own, learned=BARE).candidates
    assert of(with_scores, "a").mean > of(with_scores, "b").mean + 0.01
    assert of(with_scores, "a").parts["scores"] > 0 > of(with_scores, "b").parts["scores"]
    without = believe(pool, target(), own, learned=mute).candidates
    assert of(without, "a").mean == pytest.approx(of(without, "b").mean)
    assert set(of(without, "a").parts) == set(SOURCES)


def test_objects_too_small_for_the_finest_map_count_against_who_reads_no_finer_one() -> None:
    # half of all objects have a side up to a fifth of the picture's, so up to 51 of 256 pixels
    sides = (0.0, 0.2, 1.0)
    at = replace(target(), sides=sides, pixels=256)
    fine, coarse = candidate("fine", stride=4), candidate("coarse", stride=16)
    assert pair_numbers(fine, at)[TOO_SMALL] == pytest.approx(0.5 * (8 / 256) / 0.2)
    assert pair_numbers(coarse, at)[TOO_SMALL] == pytest.approx(0.5 * (32 / 256) / 0.2)
    assert pair_numbers(coarse, replace(at, pixels=64))[TOO_SMALL] > 0.5, (
        "pictures are trained at fewer pixels"
    )
    for unknown in (replace(at, sides=None), replace(at, pixels=None)):
        assert pair_numbers(coarse, unknown) == {}
    assert pair_numbers(candidate("x"), at) == {}
    told = replace(BARE, facts=FACTS | {TOO_SMALL: (0.2, 0.3)})
    tiny = replace(target("tiny"), sides=(0.0, 0.02, 0.05), pixels=256)
    own = [
        Evidence(each, replace(where, key=f"{where.key} {n}"), Observed(map))
        for n in range(3)
        for where, maps in (
            (tiny, (0.3, 0.05)),
            (replace(tiny, key="large", sides=(0.3, 0.5, 1.0)), (0.3, 0.35)),
        )
        for each, map in zip((fine, coarse), maps, strict=True)
    ]
    small = believe([fine, coarse], tiny, own, learned=told).candidates
    large = believe(
        [fine, coarse], replace(tiny, key="x", sides=(0.3, 0.5, 1.0)), own, learned=told
    ).candidates
    behind = [of(found, "fine").mean - of(found, "coarse").mean for found in (small, large)]
    assert behind[0] > 0.1
    assert behind[1] < 0.8 * behind[0]
    assert of(small, "coarse").parts["object_sizes"] < of(small, "fine").parts["object_sizes"]


def test_the_finest_map_behind_the_body_is_what_a_head_reads() -> None:
    body = [{"name": f"backbone.c{k}", "stride": 2**k, "kind": "map"} for k in (3, 4, 5)]
    neck = [{"name": f"neck.p{k}", "stride": 2**k, "kind": "map"} for k in (4, 5, 6)]
    regions = [{"name": "neck.roi", "stride": None, "kind": "vector"}]
    assert stride_of({"layers": body + neck + regions}) == 16
    assert stride_of({"layers": [*body, {"name": "encoder.memory", "stride": 32, "kind": "map"}]}) == 32
    # regions of a C4 detector are cut from its body
    assert stride_of({"layers": body + regions}) == 16
    assert stride_of({}) is None


def test_far_from_all_that_it_was_learned_on_it_says_so() -> None:
    own = [seen("a", "there", 0.3)]
    found = believe(
        [candidate("a"), Facts("x", "other", 10**12)], TargetFacts("here", 10**6, 3, 5.0), own, learned=BARE
    )
    assert of(found.candidates, "a").far == ()
    assert [each.architecture_seen for each in found.candidates] == [True, False]
    assert len(of(found.candidates, "x").far) == 2
    assert any("images of 1,000,000" in each for each in found.warnings)
    near = believe([candidate("a")], target(), own, learned=BARE)
    assert (
        of(found.candidates, "x").high - of(found.candidates, "x").low
        > near.candidates[0].high - near.candidates[0].low
    )


def made_up(seed: int, targets: int = 12, candidates: int = 8, weight: float = 0.06) -> list[Evidence]:
    """A world that is as the model says, with one score that foretells and one that does not."""
    rng = np.random.default_rng(seed)
    worth = rng.normal(0, 0.05, candidates)
    found = []
    for t in range(targets):
        hard = rng.normal(0, 0.12)
        for c in range(candidates):
            score = rng.normal(size=2)
            root = 0.5 + hard + worth[c] + weight * score[0] + rng.normal(0, 0.03)
            facts = Facts(
                f"c{c}", f"net{c % 3}", 10**6 * (c + 1), scores=dict(zip(SCORES, score, strict=False))
            )
            for _ in range(2):
                value = float(np.clip(root + rng.normal(0, 0.02), 0, 1) ** 2)
                half = float(np.clip(0.02 + 0.9 * root + rng.normal(0, 0.04), 0, 1) ** 2)
                at = TargetFacts(f"t{t}", 100 + t, 1 + t % 4, 3.0)
                found += [Evidence(facts, at, Observed(half, 0.5)), Evidence(facts, at, Observed(value))]
    return found


def test_what_it_learns_is_what_a_made_up_world_is_made_with() -> None:
    found = learn(made_up(0))
    assert found.mean == pytest.approx(0.5, abs=0.1)
    assert 0.015 < found.spread.seed < 0.03
    assert 0.02 < found.spread.pair < 0.045
    assert 0.06 < found.spread.target < 0.2
    (curve,) = found.curves
    assert curve.share == 0.5
    assert curve.slope == pytest.approx(0.9, abs=0.1)
    assert len(found.evidence) == 2 * 12 * 8


def test_in_a_made_up_world_its_intervals_hold_what_they_say() -> None:
    inside, total, ahead = 0, 0, []
    for seed in range(3):
        world = made_up(seed)
        for t in ("t0", "t5"):
            learned = learn([each for each in world if each.target.key != t])
            here = [each for each in world if each.target.key == t and each.observed.share == 1]
            pool = list({each.candidate.key: each.candidate for each in here}.values())
            found = believe(pool, here[0].target, learned=learned)
            limits = {each.key: (each.low, each.high) for each in found.candidates}
            for each in here:
                inside += limits[each.candidate.key][0] <= each.observed.map <= limits[each.candidate.key][1]
                total += 1
            truth = means(here)
            said = [each.mean for each in found.candidates]
            ahead.append(np.corrcoef(said, [truth[t, each.key] for each in pool])[0, 1])
    assert np.mean(ahead) > 0.75
    assert 0.55 < inside / total <= 1.0  # six targets share a hardness each


def test_the_file_says_all_and_another_version_is_refused(tmp_path: Path) -> None:
    learned = learn(made_up(1, targets=4))
    again = Learned.from_json(json.loads(json.dumps(learned.to_json())))
    assert again.spread == learned.spread
    assert again.curves == learned.curves
    pool = [each.candidate for each in learned.evidence[:4:2]]
    assert believe(pool, target(), learned=again) == believe(pool, target(), learned=learned)
    with pytest.raises(ValueError, match="version 99"):
        Learned.from_json({**learned.to_json(), "version": 99})
    assert {each.target.key for each in learned.without("t1").evidence} == {"t0", "t2", "t3"}


def test_what_is_shipped_can_be_read_and_was_learned_from_committed_tables() -> None:
    found = shipped()
    root = Path(__file__).parents[3] / "docs" / "studies"
    assert found.studies
    fresh = learn(evidence_of([root / name for name in found.studies]), found.studies)
    assert len(fresh.evidence) == len(found.evidence)
    assert fresh.mean == pytest.approx(found.mean)
    for name, sd in vars(found.spread).items():
        assert getattr(fresh.spread, name) == pytest.approx(sd, rel=0.02), name


def test_scores_are_read_from_maps_and_bodies_that_learned_nothing_are_known() -> None:
    metric = SCORES[0][0]
    both = scores_of({(metric, "backbone.c3"): (1.0, 0.5), (metric, "backbone.c4"): (2.0, 1.0)})
    assert both[metric, "gain"] == pytest.approx(0.75)
    assert both[metric, "value"] == pytest.approx(1.5)
    assert (metric, "gain") not in scores_of({(metric, "backbone.c4"): (2.0, None)})
    body = {"name": "backbone.c4", "trained": False}
    assert is_untrained({"layers": [body]})
    assert not is_untrained({"layers": [{**body, "trained": True}, {"name": "neck.roi", "trained": False}]})
    assert is_untrained({"provenance": {"trained_on": "nothing: initial weights"}})


def test_what_was_never_trained_has_less() -> None:
    learned = replace(BARE, untrained=-0.3)
    found = believe([candidate("a"), candidate("u", untrained=True)], target(), learned=learned).candidates
    a, u = of(found, "a"), of(found, "u")
    assert u.parts["candidate"] == pytest.approx(a.parts["candidate"] - 0.3)
    assert u.chance_of_best < 0.1 < a.chance_of_best
    # that it reaches little says nothing of the dataset, for it was foreseen
    own = [seen("u", "here", 0.04, untrained=True)]
    told = believe([candidate("a")], target(), own, learned=learned).candidates[0]
    assert told.mean == pytest.approx(
        believe([candidate("a")], target(), learned=learned).candidates[0].mean, abs=0.04
    )
    assert told.mean > believe([candidate("a")], target(), own, learned=BARE).candidates[0].mean + 0.05


def test_of_untrained_weights_one_number_is_learned() -> None:
    trained = [seen(name, where, 0.16 + 0.01 * i) for where in "xyz" for i, name in enumerate("abc")]
    roots = np.mean(np.sqrt([0.16, 0.17, 0.18]))
    found = learn([*trained, *(seen("u", where, 0.01, untrained=True) for where in "xy")])
    assert found.untrained == pytest.approx(0.1 - roots)
    assert replace(found, untrained=0.0) == learn(trained)
    assert Learned.from_json(found.to_json()).untrained == found.untrained
