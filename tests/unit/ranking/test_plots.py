import dataclasses

import numpy as np
import PIL.Image
import pytest

from worker.metrics.jackknife import jackknife_interval
from worker.ranking.order import order
from worker.ranking.plots import bar_chart
from worker.ranking.records import Candidate, Scored, Target


def ordering(values: list[float], error: float = 0.0):
    rng = np.random.default_rng(0)
    pool = [
        Candidate(
            f"ckpt_{i}",
            f"candidate ${i} with a name that is much too long to be shown",
            (
                Scored(
                    "logme",
                    "backbone.c4",
                    "local",
                    v,
                    z=v / 2,
                    interval=jackknife_interval(v, v + error * rng.standard_normal(20), 0.95)
                    if error
                    else None,
                ),
            ),
        )
        for i, v in enumerate(values)
    ]
    return order(pool, Target({"a": 200, "b": 100}))


def lengths(path) -> list[int]:
    """Widths in pixels of the runs of bar colour, from top to bottom."""
    pixels = np.asarray(PIL.Image.open(path).convert("RGB")).astype(int)
    blue = (np.abs(pixels - (0x3B, 0x6E, 0xA5)) <= 2).all(-1) | (
        np.abs(pixels - (0x9D, 0xB8, 0xD2)) <= 2
    ).all(-1)
    counts = blue.sum(1)
    starts = np.flatnonzero((counts[1:] > 0) & (counts[:-1] == 0)) + 3
    return counts[starts].tolist()


@pytest.mark.parametrize("values", [[], [0.3], [-1.0, 2.0, 5.0], [1.0, 1.0], [-3.25, -3.2, -1.0, -2.0]])
def test_one_bar_per_candidate_longest_first(tmp_path, values):
    path = bar_chart(ordering(values), tmp_path / "scores.png", title="cost $5 or $6")
    assert path.read_bytes().startswith(b"\x89PNG")
    drawn = lengths(path)
    assert len(drawn) == len(values)
    assert drawn == sorted(drawn, reverse=True)


def test_intervals_are_drawn_as_lines_inside_the_picture(tmp_path):
    plain = bar_chart(ordering([1.0, 2.0, 2.1]), tmp_path / "plain.png")
    path = bar_chart(ordering([1.0, 2.0, 2.1], error=0.3), tmp_path / "scores.png")
    dark = {
        file: (np.asarray(PIL.Image.open(file).convert("RGB")).astype(int) - (0x22, 0x30, 0x3C) == 0).all(-1)
        for file in (plain, path)
    }
    assert dark[path].sum(1).max() > 50
    assert not dark[plain].any()
    assert not dark[path][:, -5:].any()
    assert len(lengths(path)) == 3


def test_the_same_order_draws_the_same_file(tmp_path):
    first = bar_chart(ordering([1.0, 2.0]), tmp_path / "a.png").read_bytes()
    assert bar_chart(ordering([1.0, 2.0]), tmp_path / "b.png").read_bytes() == first


def test_gains_begin_at_zero_which_is_inside_the_picture(tmp_path):
    def drawn(gains: list[float]) -> np.ndarray:
        made = ordering([1.0, 2.0, 2.1])
        rows = tuple(
            dataclasses.replace(row, gain=gain, zero_point=9.0)
            for row, gain in zip(made.rows, gains, strict=True)
        )
        path = bar_chart(dataclasses.replace(made, rows=rows, quantity="gain"), tmp_path / "gains.png")
        pixels = np.asarray(PIL.Image.open(path).convert("RGB")).astype(int)
        assert not (pixels - (0xB5, 0x46, 0x2F) == 0).all(-1).any(), "the zero point is the zero"
        return lengths(path)

    longest, half, quarter = drawn([4.0, 2.0, 1.0])
    assert (half / longest, quarter / longest) == pytest.approx((0.5, 0.25), abs=0.02)
    longest, half, other = drawn([4.0, 2.0, -2.0])
    assert (half / longest, other / longest) == pytest.approx((0.5, 0.5), abs=0.02)


def test_a_mark_stands_at_the_zero_point_of_each_bar_inside_the_picture(tmp_path):
    def marks(zeros: list[float | None]) -> np.ndarray:
        made = ordering([1.0, 2.0, 2.1])
        rows = tuple(
            dataclasses.replace(row, zero_point=zero) for row, zero in zip(made.rows, zeros, strict=True)
        )
        path = bar_chart(dataclasses.replace(made, rows=rows), tmp_path / "scores.png")
        pixels = np.asarray(PIL.Image.open(path).convert("RGB")).astype(int)
        assert len(lengths(path)) == 3
        return (pixels - (0xB5, 0x46, 0x2F) == 0).all(-1)

    assert not marks([None, None, None]).any()
    found = marks([-4.0, None, 6.0])
    rows, columns = np.nonzero(found)
    assert len(np.flatnonzero(np.diff(np.unique(rows)) > 1)) == 1, "two marks"
    upper, lower = columns[rows <= rows.min() + 12], columns[rows >= rows.max() - 12]
    assert upper.max() < lower.min()
    assert not found[:, :5].any()
    assert not found[:, -5:].any()
