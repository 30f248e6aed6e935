"""Values: against the published code's own numbers, and against plain transcriptions of the formulas."""

import json
from pathlib import Path

import numpy as np
import plain_metrics as plain
import pytest

from worker.metrics import METRICS, FeatureSet, score

DATA = Path(__file__).parents[2] / "data"
GOLDEN = json.loads((DATA / "metrics_expected.json").read_text())


def golden(case):
    with np.load(DATA / f"metrics_{case}.npz") as arrays:
        return FeatureSet(**arrays)


@pytest.mark.parametrize("case", GOLDEN)
@pytest.mark.parametrize("name", GOLDEN["tall"])
def test_golden_values(case, name):
    result = score(golden(case), [name])[name]
    if (case, name) == ("wide", "h_score"):
        assert result.value is None
        assert "C - 1 = 4 whatever the features" in result.undefined
    elif (
        "logme" in name
    ):  # the published fixed point stops below the maximum; test_metrics_evidence shows how far
        assert result.value == pytest.approx(GOLDEN[case][name], abs=1e-3 if case == "wide" else 2e-6)
    else:
        assert result.value == pytest.approx(GOLDEN[case][name], abs=1e-6)
        assert result.value == pytest.approx(GOLDEN[case][name], rel=1e-10)


ALL = [name for name in METRICS if name != "n_leep"]  # seconds a fit; tested by itself

# (N, D, C): N < D, N = D, N = D + 1, N just above, N >> D, many classes, D = 1, a class larger than D
SHAPES = [
    (40, 90, 4),
    (60, 60, 3),
    (61, 60, 3),
    (64, 60, 3),
    (300, 20, 5),
    (200, 30, 40),
    (50, 1, 2),
    (30, 200, 12),
]


@pytest.mark.parametrize("offset", [0.0, 3.0])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_against_plain_transcriptions(make, shape, offset):
    f = make(*shape, offset=offset)
    x, y = f.features, f.labels
    got = score(f, ALL)
    want = {
        "logme": plain.logme(x, plain.one_hot(y)),
        "logme_boxes": plain.logme(x, f.boxes),
        "h_score_regularized": plain.h_score_regularized(x, y) if shape[1] > 1 else None,
        "transrate": plain.transrate(x, y),
        "leep": plain.leep(f.source_probabilities, y),
        "nce": plain.nce(f.source_probabilities, y),
    }
    want["tlogme"] = (want["logme"] + want["logme_boxes"]) / 2
    if shape[0] > shape[1] + 1 and shape[1] > 1:
        want["h_score"] = plain.h_score(x, y)
    for name, value in want.items():
        if value is not None:
            # for N <= D the evidence may be flat towards no ratio at all, where the plain scan stops first
            flat = "logme" in name and shape[0] <= shape[1]
            assert got[name].value == pytest.approx(value, rel=1e-8, abs=1e-7 if flat else 1e-9), name


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_together_equals_alone(make, shape):
    f = make(*shape)
    together = score(f, ALL)
    for name in ALL:
        alone = score(f, [name])[name]
        assert alone.undefined == together[name].undefined
        if alone.value is not None:
            assert alone.value == pytest.approx(together[name].value, rel=1e-12, abs=1e-12), name


def test_blocks_do_not_matter(make):
    from worker.metrics import Options

    f = make(500, 24, 6)
    one = score(f, ALL)
    many = score(f, ALL, options=Options(block_rows=7))
    for name in ALL:
        if one[name].value is not None:
            assert many[name].value == pytest.approx(one[name].value, rel=1e-11), name


def test_float32_products_are_close_but_not_the_default(make):
    from worker.metrics import Options

    f = make(500, 24, 6)
    f = FeatureSet(f.features.astype(np.float32), f.labels, f.boxes)
    names = ["logme", "logme_boxes", "h_score", "h_score_regularized", "transrate"]
    exact, mixed = score(f, names), score(f, names, options=Options(gram_precision="float32"))
    assert all(mixed[n].value == pytest.approx(exact[n].value, rel=1e-5) for n in names)
    assert any(mixed[n].value != exact[n].value for n in names)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.int64])
def test_every_number_type_is_read_as_float64(make, dtype):
    f = make(80, 10, 3)
    stored = (f.features * 10).astype(dtype)
    names = ["logme", "h_score", "h_score_regularized", "transrate"]
    a = score(FeatureSet(stored, f.labels), names)
    b = score(FeatureSet(stored.astype(np.float64), f.labels), names)
    assert {n: s.value for n, s in a.items()} == {n: pytest.approx(s.value, rel=1e-12) for n, s in b.items()}


def test_null_of_h_score_on_noise():
    """Features without information reach (C - 1) D / (N - 1) on average."""
    rng = np.random.default_rng(0)
    values = [
        score(FeatureSet(rng.standard_normal((400, 60)), rng.integers(0, 5, 400)), ["h_score"])[
            "h_score"
        ].value
        for _ in range(40)
    ]
    assert np.mean(values) == pytest.approx(4 * 60 / 399, rel=0.05)
