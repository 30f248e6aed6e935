"""Correlations of a study: per dataset and averaged, with n and intervals; refusals; the noise between seeds."""

import json
import math

import numpy as np
import pytest
from scipy import stats

from worker.studies import Observation, StudyRefused, correlate, swapped

GOOD = ("logme", "backbone.c4", "local")
BAD = ("h_score", "backbone.c4", "local")
SIZE = ("static_parameters", "static", "static")


def observations(datasets=("cells", "ships", "cards"), candidates=6, seeds=(0,), noise=0.0, seed=0):
    """Scores `logme` follow mAP, `h_score` runs against it, the size follows it on the first dataset only."""
    rng = np.random.default_rng(seed)
    found = []
    for number, dataset in enumerate(datasets):
        truth = rng.permutation(candidates) / candidates
        for index in range(candidates):
            value = float(truth[index])
            found.append(
                Observation(
                    dataset,
                    f"model {index}",
                    {GOOD: 2 * value - 1, BAD: -value},
                    {"static_parameters": value if number == 0 else float(index)},
                    {s: value + noise * float(rng.normal()) for s in seeds},
                )
            )
    return found


def test_each_dataset_and_the_average_with_n():
    found = correlate(observations(), bootstrap=200)
    for name in ("pearson", "spearman", "kendall", "weighted_tau", "rel_at_1", "rel_at_3"):
        assert found.per_dataset["cells"][GOOD][name].value == pytest.approx(1)
        assert found.per_dataset["cells"][GOOD][name].n == 6
        assert found.average[GOOD][name].value == pytest.approx(1)
        assert found.average[GOOD][name].n == 3
    assert found.average[GOOD]["regret_at_1"].value == pytest.approx(0)
    assert found.average[BAD]["kendall"].value == pytest.approx(-1)
    assert found.per_dataset["cells"][BAD]["rel_at_1"].value == pytest.approx(0)


def test_baselines_are_measured_alike_and_compared_in_pairs():
    found = correlate(observations(), bootstrap=200)
    assert found.baselines == (SIZE,)
    assert found.per_dataset["cells"][SIZE]["pearson"].value == pytest.approx(1)
    ahead = found.ahead[GOOD][SIZE]
    each = [1 - found.per_dataset[d][SIZE]["weighted_tau"].value for d in ("cells", "ships", "cards")]
    assert ahead["weighted_tau"].value == pytest.approx(np.mean(each))
    assert ahead["weighted_tau"].n == 3
    # a regret that is lower is ahead
    assert ahead["regret_at_1"].value == pytest.approx(ahead["rel_at_1"].value)


def test_the_interval_of_a_dataset_resamples_its_candidates():
    rng = np.random.default_rng(3)
    scores, truth = rng.normal(size=30), rng.normal(size=30)
    truth = truth + scores
    rows = [
        Observation("d", str(i), {GOOD: float(s)}, {}, {0: float(t)})
        for i, (s, t) in enumerate(zip(scores, truth, strict=True))
    ]
    found = correlate(rows, bootstrap=4000, seed=1).per_dataset["d"][GOOD]["pearson"]
    index = np.random.default_rng(8).integers(30, size=(4000, 30))
    plain = [stats.pearsonr(scores[i], truth[i]).statistic for i in index]
    assert (found.low, found.high) == pytest.approx(np.quantile(plain, [0.025, 0.975]), abs=0.02)
    assert found.low < found.value < found.high
    assert found == correlate(rows, bootstrap=4000, seed=1).per_dataset["d"][GOOD]["pearson"], (
        "the seed decides"
    )


def test_the_interval_of_an_average_resamples_datasets():
    found = correlate(observations(), bootstrap=500).average[SIZE]["kendall"]
    values = [
        correlate(observations()).per_dataset[d][SIZE]["kendall"].value for d in ("cells", "ships", "cards")
    ]
    assert found.value == pytest.approx(np.mean(values))
    assert min(values) - 1e-12 <= found.low < found.value < found.high <= max(values) + 1e-12
    alone = correlate(observations(("cells",))).average[GOOD]["kendall"]
    assert (alone.n, alone.low, alone.high) == (1, None, None), "one dataset says nothing about others"


def test_no_interval_where_most_resamples_have_no_value():
    # a resample needs both the one with another score and the one with another mAP: 12 of 27 have them
    rows = [Observation("d", str(i), {GOOD: float(i == 0)}, {}, {0: float(i == 2)}) for i in range(3)]
    found = correlate(rows, bootstrap=2000).per_dataset["d"][GOOD]["kendall"]
    assert found.value == pytest.approx(-0.5)
    assert (found.low, found.high) == (None, None)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_is_refused_by_name(value):
    rows = observations()
    broken = Observation("ships", "broken one", {GOOD: value}, {}, {0: 0.5})
    with pytest.raises(
        StudyRefused, match=r"logme backbone.c4 local = (nan|inf|-inf) of broken one on ships"
    ) as refusal:
        correlate([*rows, broken])
    assert refusal.value.code == "not_finite"
    for other in (
        Observation("ships", "broken one", {}, {"static_parameters": value}, {0: 0.5}),
        Observation("ships", "broken one", {}, {}, {0: 0.5, 1: value}),
    ):
        with pytest.raises(StudyRefused, match="broken one on ships"):
            correlate([*rows, other])


def test_an_empty_study_a_candidate_twice_and_a_missing_map_are_refused():
    rows = observations()
    for given, code in (
        ([], "no_observations"),
        ([*rows, rows[0]], "duplicate"),
        ([*rows, Observation("ships", "not verified", {GOOD: 1.0}, {}, {})], "no_map"),
    ):
        with pytest.raises(StudyRefused) as refusal:
            correlate(given)
        assert refusal.value.code == code


def test_the_undefined_is_left_out_by_name_and_reason_and_counted():
    rows = observations()
    rows = [
        Observation(
            o.dataset, o.candidate, {GOOD: o.scores[GOOD]}, o.static, o.map_by_seed, {BAD: "one class only"}
        )
        if o.dataset == "ships"
        else o
        for o in rows
    ]
    rows[0] = Observation("cells", "model 0", {GOOD: rows[0].scores[GOOD]}, {}, rows[0].map_by_seed)
    found = correlate(rows, bootstrap=50)
    ships = found.per_dataset["ships"][BAD]["kendall"]
    assert ships.value is None
    assert ships.n == 0
    assert ships.excluded["model 3"] == "one class only"
    assert found.per_dataset["cells"][BAD]["kendall"].n == 5
    assert found.per_dataset["cells"][BAD]["kendall"].excluded == {"model 0": "it was not scored there"}
    assert found.average[BAD]["kendall"].n == 2
    assert list(found.average[BAD]["kendall"].excluded) == ["ships"]


def test_constant_scores_constant_map_and_too_few_are_undefined():
    same = [Observation("d", str(i), {GOOD: 1.0, BAD: float(i)}, {}, {0: 0.3}) for i in range(5)]
    found = correlate(same).per_dataset["d"]
    assert found[GOOD]["pearson"].undefined == "all candidates have the same score"
    assert found[BAD]["pearson"].undefined == "all candidates have the same mAP"
    assert found[BAD]["rel_at_1"].value == pytest.approx(1), "any choice is the best one"
    two = correlate(
        [Observation("d", str(i), {GOOD: float(i)}, {}, {0: i / 2}) for i in range(2)]
    ).per_dataset["d"]
    assert two[GOOD]["pearson"].undefined == "2 candidates have a value, at least 3 are needed"
    assert two[GOOD]["rel_at_1"].value == pytest.approx(1)
    assert two[GOOD]["rel_at_3"].value is None


def test_the_noise_ceiling_is_the_agreement_of_two_seeds():
    rows = observations(candidates=12, seeds=(0, 1), noise=0.2)
    found = correlate(rows, bootstrap=100)
    group = [o for o in rows if o.dataset == "ships"]
    first, second = ([o.map_by_seed[s] for o in group] for s in (0, 1))
    ceiling = found.ceiling["ships"]
    assert ceiling["weighted_tau"].value == pytest.approx(stats.weightedtau(first, second).statistic)
    assert ceiling["pearson"].value == pytest.approx(stats.pearsonr(first, second).statistic)
    assert ceiling["weighted_tau"].low < ceiling["weighted_tau"].value
    assert found.ceiling_average["kendall"].n == 3
    # the truth is the mean of both
    truth = np.mean([first, second], axis=0)
    scores = [o.scores[GOOD] for o in group]
    assert found.per_dataset["ships"][GOOD]["kendall"].value == pytest.approx(
        stats.kendalltau(scores, truth).statistic
    )


def test_one_seed_has_no_ceiling():
    found = correlate(observations())
    assert found.ceiling == {}
    assert found.ceiling_average is None


def test_target_selection_exchanges_the_roles():
    turned = swapped(observations())
    assert {o.dataset for o in turned} == {f"model {i}" for i in range(6)}
    assert correlate(turned, bootstrap=0).per_dataset["model 0"][GOOD]["pearson"].n == 3


def test_rows_and_json_say_everything_once():
    rows = observations(seeds=(0, 1), noise=0.05)
    found = correlate(rows, bootstrap=50)
    flat = list(found.rows())
    keys = [(r["dataset"], r["kind"], r["metric"], r["layer"], r["level"], r["measure"]) for r in flat]
    assert len(set(keys)) == len(keys)
    # three datasets and the average; two metrics, one baseline and the ceiling
    assert len(flat) == 4 * 4 * len(found.measures)
    text = json.dumps(found.to_json(), allow_nan=False)
    assert json.loads(text)["ahead"][0]["baseline"] == "static_parameters"
