"""Whatever finite or broken numbers come in: a finite value or a reason, never an exception, a NaN or a warning."""

import warnings

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from worker.metrics import METRICS, FeatureSet, score

ALL = [name for name in METRICS if name != "n_leep"]  # seconds a fit

numbers = st.one_of(
    st.floats(-2, 2, width=32),
    st.sampled_from([0.0, 1.0, 1e-30, 1e30, 1e160, -1e160, 5e-324, float("nan"), float("inf")]),
)


@st.composite
def sets(draw):
    n, d = draw(st.integers(0, 14)), draw(st.integers(0, 6))
    tame = draw(st.booleans())
    x = draw(arrays.arrays(np.float64, (n, d), elements=st.floats(-2, 2, width=16) if tame else numbers))
    if draw(st.booleans()) and n:
        x = x[draw(arrays.arrays(np.int64, n, elements=st.integers(0, n - 1)))]  # repeated rows
    labels = draw(arrays.arrays(np.int64, n, elements=st.integers(0, 4)))
    boxes = draw(st.none() | arrays.arrays(np.float64, (n, 4), elements=st.floats(0, 1) if tame else numbers))
    theta = draw(st.none() | arrays.arrays(np.float64, (n, 3), elements=st.floats(0, 1)))
    if theta is not None and tame and (theta.sum(axis=1) > 0).all():
        theta = theta / theta.sum(axis=1, keepdims=True)
    images = draw(st.none() | arrays.arrays(np.int64, n, elements=st.integers(0, 9)))
    return FeatureSet(x, labels, boxes, theta, images)


@settings(max_examples=150, deadline=None)
@given(sets())
def test_a_finite_value_or_a_reason(f):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for name, s in score(f, ALL, permutations=2, groups=5).items():
            assert (s.value is None) != (s.undefined is None), name
            if s.value is None:
                assert s.undefined, name
                assert s.interval is None
                assert s.null is None
            else:
                assert type(s.value) is float
                assert np.isfinite(s.value), name
                assert s.z is None or np.isfinite(s.z), name
                assert s.interval is None or np.isfinite([s.interval.low, s.interval.high]).all(), name
