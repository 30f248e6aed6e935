"""What the intervals of the ordering score say about pairs of candidates."""

import numpy as np

from worker.metrics import Interval
from worker.ranking.certainty import certainty
from worker.ranking.records import Scored

GROUPS = 20


def test_near_is_said_of_each_pair_where_groups_cannot_say_it():
    """a, b and c lie one and a half errors apart: b is like both, which no division into groups can show."""
    noise = np.random.default_rng(0).standard_normal((3, GROUPS))
    noise -= noise.mean(axis=1, keepdims=True)
    error = np.sqrt((GROUPS - 1) / GROUPS) * np.linalg.norm(noise[0] - noise[1])
    scored = [
        (name, Scored("logme", "backbone.c4", "local", value, None, interval=interval))
        for name, value, own in zip("abc", (3.0 * error, 1.5 * error, 0.0), noise, strict=True)
        for interval in [Interval(value - error, value + error, error, 0.95, tuple(value + own))]
    ]
    found = certainty(scored)
    assert found.groups == (("a", "b"), ("c",))
    assert found.near == {"a": ("b",), "b": ("a", "c"), "c": ("b",)}
