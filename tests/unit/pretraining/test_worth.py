"""What a comparison says: gains over paired seeds."""

import numpy as np
import pytest
from scipy import stats

from worker.pretraining.worth import gain_of, sentence


def test_the_gain_is_the_mean_difference_with_students_interval() -> None:
    found = gain_of({0: 0.5, 1: 0.6, 2: 0.55, 9: 1.0}, {0: 0.4, 1: 0.45, 2: 0.5, 7: 0.0})
    differences = [0.1, 0.15, 0.05]
    low, high = stats.t.interval(0.95, 2, np.mean(differences), stats.sem(differences))
    assert (found.n, found.mean) == (3, pytest.approx(0.1))
    assert (found.low, found.high) == (pytest.approx(low), pytest.approx(high))
    assert found.says == "not_shown"
    assert gain_of({0: 0.5, 1: 0.5, 2: 0.51}, {0: 0.4, 1: 0.41, 2: 0.4}).says == "helped"
    assert gain_of({0: 0.4, 1: 0.41, 2: 0.4}, {0: 0.5, 1: 0.5, 2: 0.51}).says == "hurt"


def test_without_two_seeds_there_is_no_interval_and_without_one_nothing() -> None:
    one = gain_of({0: 0.5}, {0: 0.1})
    assert (one.mean, one.low, one.says) == (pytest.approx(0.4), None, "not_shown")
    assert "no interval" in str(one.undefined)
    none = gain_of({0: 0.5}, {1: 0.1})
    assert (none.n, none.mean) == (0, None)
    assert "not known" in sentence(0.05, "what it started from", none)
    assert "+40.0 AP50" in sentence(0.05, "what it started from", one)
