"""Small matrices are worked on by one BLAS thread, large ones by those of the machine, and what was set before is set again."""

import numpy as np
import pytest
from threadpoolctl import threadpool_info, threadpool_limits

from worker.metrics import FeatureSet, score
from worker.metrics.gathering import Design, Gathering, score_gathered
from worker.metrics.threads import LARGE


def blas_threads() -> set[int]:
    return {each["num_threads"] for each in threadpool_info() if each["user_api"] == "blas"}


@pytest.mark.parametrize(("rows", "dim", "expected"), [(40, 12, {1}), (12, LARGE, {1}), (LARGE, LARGE, {2})])
def test_threads_follow_the_size(rows: int, dim: int, expected: set[int]) -> None:
    rng = np.random.default_rng(0)
    features = FeatureSet(
        rng.standard_normal((rows, dim)), np.arange(rows) % 2, image_ids=np.arange(rows) % 6
    )
    seen: list[set[int]] = []
    with threadpool_limits(2, user_api="blas"):
        score(features, ["h_score_regularized"], groups=6, check=lambda: seen.append(blas_threads()))
        assert blas_threads() == {2}
    assert seen
    assert set(map(frozenset, seen)) == {frozenset(expected)}


def test_statistics_too() -> None:
    rng = np.random.default_rng(0)
    x, labels, images = rng.standard_normal((40, 8)), np.arange(40) % 2, np.arange(40) % 6
    design = Design.of(labels, None, images, ["logme"], groups=6)
    gathering = Gathering(design)
    gathering.add(np.arange(40), x)
    seen: list[set[int]] = []
    with threadpool_limits(2, user_api="blas"):
        score_gathered(gathering.result(), design, ["logme"], check=lambda: seen.append(blas_threads()))
        assert blas_threads() == {2}
    assert set(map(frozenset, seen)) == {frozenset({1})}
