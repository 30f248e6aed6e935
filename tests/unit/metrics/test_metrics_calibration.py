"""Nulls, intervals and comparisons: the shared way gives what the slow way gives, and they mean what they say."""

import numpy as np
import pytest
from plain_metrics import draw

from worker.metrics import METRICS, FeatureSet, compare, logme, score
from worker.metrics.evidence import EvidenceSearch
from worker.metrics.jackknife import image_groups
from worker.metrics.targets import Targets

SINGLE = [m.name for m in METRICS.values() if not m.pool_relative and m.name != "n_leep"]
# primal; dual; primal whose parts are dual; classes that vanish with a group of images
SETS = [(260, 12, 4), (40, 60, 3), (64, 60, 3), (230, 10, 30)]


def permuted_by_hand(f, count, seed):
    rng, targets = np.random.default_rng(seed), Targets.of(f)
    for _ in range(count):
        t = targets.permuted(rng)
        yield FeatureSet(f.features, t.labels, t.boxes, f.source_probabilities)


@pytest.mark.parametrize("shape", SETS, ids=str)
def test_null_equals_scores_of_permuted_targets(shape):
    f = draw(*shape)
    shared = score(f, SINGLE, permutations=5, seed=3)
    slow = [score(g, SINGLE) for g in permuted_by_hand(f, 5, 3)]
    for name, s in shared.items():
        if s.null is None:
            assert s.undefined or any("permutation" in n for n in s.notes)
            continue
        values = [r[name].value for r in slow]
        assert s.null.mean == pytest.approx(np.mean(values), rel=1e-9, abs=1e-9), name
        assert s.null.std == pytest.approx(np.std(values, ddof=1), rel=1e-6, abs=1e-9), name
        assert s.z is None or s.z == pytest.approx((s.value - s.null.mean) / s.null.std)


@pytest.mark.parametrize("shape", SETS, ids=str)
def test_replicates_equal_scores_without_the_images(shape):
    f = draw(*shape)
    shared = score(f, SINGLE, groups=6, seed=1)
    group = image_groups(f.image_ids, 6, 1)
    slow = [score(f.rows(group != g), SINGLE) for g in range(6)]
    for name, s in shared.items():
        values = [r[name].value for r in slow]
        if s.interval is None:
            assert s.undefined or None in values, name
            continue
        assert s.interval.replicates == pytest.approx(values, rel=1e-8, abs=1e-9), name
        std = np.sqrt(5 / 6 * np.square(np.array(values) - np.mean(values)).sum())
        assert s.interval.std == pytest.approx(std, rel=1e-5, abs=1e-9), name
        assert s.interval.low <= s.value <= s.interval.high


def test_evidences_of_all_permutations_and_of_all_groups_are_searched_at_once(monkeypatch):
    searched = []

    class Counted(EvidenceSearch):
        def maximised(self, b, squares, of=None):
            searched.append((len(self.spectra), len(b)))
            return super().maximised(b, squares, of)

    monkeypatch.setattr(logme, "EvidenceSearch", Counted)
    score(draw(260, 12, 4), ["tlogme"], permutations=5, groups=6, seed=1)
    # labels (4 columns) and boxes (4): of the score, of 5 permutations, of 6 groups
    assert searched == [(1, 4), (1, 4), (1, 20), (1, 20), (6, 24), (6, 24)]


def test_null_of_noise_is_the_score_of_noise():
    rng = np.random.default_rng(0)
    zs = []
    for _ in range(12):
        f = FeatureSet(rng.standard_normal((150, 10)), rng.integers(0, 3, 150))
        zs.append(score(f, ["logme"], permutations=30)["logme"].z)
    assert abs(np.mean(zs)) < 1
    assert np.abs(zs).max() < 5


def test_z_of_informative_features_is_large(make):
    s = score(make(200, 10, 3), ["logme", "h_score"], permutations=10)
    assert min(s["logme"].z, s["h_score"].z) > 10


def test_same_seed_same_numbers(make):
    f = make(120, 8, 3)
    assert score(f, ["logme"], permutations=4, groups=6, seed=2)["logme"].null == (
        score(f, ["logme"], permutations=4, groups=6, seed=2)["logme"].null
    )
    a = score(f, ["logme"], permutations=4, seed=2)["logme"].null
    assert a != score(f, ["logme"], permutations=4, seed=3)["logme"].null


def test_groups_keep_images_whole_and_do_not_depend_on_the_order():
    ids = np.array([7, 7, 3, 9, 9, 9, 3, 1, 5, 5])
    group = image_groups(ids, 3, 0)
    assert all(len(set(group[ids == i])) == 1 for i in ids)
    order = np.random.default_rng(0).permutation(len(ids))
    np.testing.assert_array_equal(image_groups(ids[order], 3, 0), group[order])
    assert sorted(np.bincount(group[np.unique(ids, return_index=True)[1]])) == [1, 2, 2]


def test_interval_covers_the_value_of_the_whole_population():
    """Jackknife at 95 %: over 40 samples few intervals miss what a very large sample gives."""
    rng = np.random.default_rng(0)

    def sample(n):
        y = rng.integers(0, 2, n)
        return FeatureSet(
            rng.standard_normal((n, 3)) + y[:, None] * [1.0, 0.5, 0.0], y, image_ids=np.arange(n)
        )

    truth = score(sample(40_000), ["h_score_adjusted"])["h_score_adjusted"].value
    covered = 0
    for _ in range(40):
        i = score(sample(400), ["h_score_adjusted"], groups=20)["h_score_adjusted"].interval
        covered += i.low <= truth <= i.high
    assert covered >= 34


def test_too_few_images_and_no_image_ids(make):
    f = make(60, 8, 3)
    few = FeatureSet(f.features, f.labels, f.boxes, image_ids=np.arange(60) % 4)
    s = score(few, ["logme"], groups=20)["logme"]
    assert s.interval is None
    assert "no interval: 4 images" in s.notes[0]
    bare = score(FeatureSet(f.features, f.labels), ["logme"], groups=20)["logme"]
    assert "objects were taken as independent" in bare.notes[0]


def test_a_class_in_one_image_only(make):
    f = make(120, 8, 2)
    labels = np.where(np.arange(120) < 3, 1, 0)
    s = score(FeatureSet(f.features, labels, image_ids=f.image_ids), ["logme"], groups=10)["logme"]
    assert s.value is not None
    assert s.interval is None
    assert "1 of 10 groups of images cannot be left out" in s.notes[0]


@pytest.mark.parametrize("arguments", [{"permutations": 1}, {"permutations": -1}, {"groups": -1}])
def test_numbers_that_cannot_be_meant(make, arguments):
    with pytest.raises(ValueError, match="permutations must be"):
        score(make(20, 3, 2), ["logme"], **arguments)


def pool(qualities, seed=0):
    """Candidates whose features see the same objects with more or less signal."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 3, 240)
    centres = rng.standard_normal((3, 6))
    noise = rng.standard_normal((240, 6))
    return {
        name: score(
            FeatureSet(q * centres[y] + noise + e, y, image_ids=np.arange(240) // 3), ["logme"], groups=20
        )["logme"]
        for (name, q), e in zip(qualities.items(), 0.05 * rng.standard_normal((9, 240, 6)), strict=False)
    }


def test_candidates_are_told_apart_where_they_differ():
    result = compare(pool({"bad": 0.2, "good": 1.0, "twin": 1.0, "none": 0.0}), "logme")
    assert set(result.order[:2]) == {"good", "twin"}
    assert result.group["good"] == result.group["twin"] == 1
    assert result.group["bad"] > 1
    assert sum(result.chance_of_best.values()) == pytest.approx(1)
    assert result.chance_of_best["good"] + result.chance_of_best["twin"] > 0.999
    assert 0.02 < result.chance_of_best["good"] < 0.98


def test_errors_that_candidates_share_cancel():
    """Two candidates whose intervals overlap wholly are told apart when one is better on the same images."""
    scores = pool({"a": 1.0, "b": 0.9})
    a, b = scores["a"].interval, scores["b"].interval
    assert a.low < b.high
    assert compare(scores, "logme").group == {"a": 1, "b": 2}


def test_candidates_without_interval_are_left_out_with_the_reason(make):
    f = make(90, 8, 3)
    broken = FeatureSet(np.full_like(f.features, np.nan), f.labels, image_ids=f.image_ids)
    scores = {
        "fine": score(f, ["logme"], groups=10)["logme"],
        "nan": score(broken, ["logme"], groups=10)["logme"],
        "plain": score(f, ["logme"])["logme"],
    }
    result = compare(scores, "logme")
    assert result.order == ("fine",)
    assert result.chance_of_best == {"fine": 1.0}
    assert "NaN" in result.left_out["nan"]
    assert result.left_out["plain"] == "it has no interval"
    scores["plain"] = score(f, ["logme"], groups=7)["logme"]
    with pytest.raises(ValueError, match="different numbers of image groups"):
        compare(scores, "logme")


def test_metrics_without_features_are_calibrated_although_the_features_are_broken(make):
    f = make(90, 8, 3)
    broken = FeatureSet(np.full_like(f.features, np.nan), f.labels, None, f.source_probabilities, f.image_ids)
    s = score(broken, ["leep", "logme"], permutations=4, groups=6)
    assert s["leep"].null is not None
    assert s["leep"].interval is not None
    assert s["logme"].undefined


def test_a_candidate_that_is_there_twice_shares_its_chance():
    scores = pool({"a": 1.0, "b": 1.0})
    first, second = scores
    alone = compare(scores, "logme").chance_of_best
    found = compare(scores | {"again": scores[first]}, "logme").chance_of_best
    assert found[first] == found["again"] == pytest.approx(alone[first] / 2, abs=0.02)
    assert sum(found.values()) == pytest.approx(1.0)
    assert found[second] == pytest.approx(1.0 - 2 * found[first])


def test_check_can_stop_the_calibration(make):
    class Stop(Exception):
        pass

    calls = []

    def check():
        calls.append(1)
        if len(calls) == 30:
            raise Stop

    with pytest.raises(Stop):
        score(make(60, 8, 3), ["logme"], permutations=20, groups=20, check=check)
