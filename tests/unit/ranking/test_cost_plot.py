"""Accuracy against milliseconds: which points, and who is on the line."""

from test_plots import ordering

from worker.ranking.cost_plot import cost_chart, frontier, milliseconds, points
from worker.ranking.records import Candidate

PREDICTED = {f"ckpt_{i}": (0.1 * i, 0.05 * i, 0.2 * i) for i in range(3)}


def candidates(*ms: float | None, whole: bool = True) -> list[Candidate]:
    return [
        Candidate(f"ckpt_{i}", f"c{i}", ms_per_image=ms_, inference_ms=2 * ms_ if whole and ms_ else None)
        for i, ms_ in enumerate(ms)
    ]


def test_those_that_nothing_faster_beats() -> None:
    found = [(3.0, 0.3, None, None, "c"), (1.0, 0.1, None, None, "a"), (2.0, 0.1, None, None, "b")]
    assert [point[4] for point in frontier(found)] == ["a", "c"]
    assert [point[4] for point in frontier([(1.0, 0.1, None, None, "a"), (1.0, 0.2, None, None, "b")])] == [
        "b"
    ]


def test_predictions_where_all_have_one_else_the_score() -> None:
    order = ordering([1.0, 3.0, 2.0])
    found, maps = points(order, candidates(1.0, 2.0, 3.0), PREDICTED)
    assert maps
    assert [(ms, round(value, 3)) for ms, value, *_ in found] == [(4.0, 0.1), (6.0, 0.2), (2.0, 0.0)]
    found, maps = points(order, candidates(1.0, 2.0, 3.0), {"ckpt_0": (0.1, 0.0, 0.2)})
    assert not maps
    assert [value for _, value, *_ in found] == [3.0, 2.0, 1.0]


def test_milliseconds_are_of_one_kind() -> None:
    assert milliseconds(candidates(1.0, 2.0)) == {"ckpt_0": 2.0, "ckpt_1": 4.0}
    mixed = [*candidates(1.0), Candidate("ckpt_1", "c1", ms_per_image=7.0)]
    assert milliseconds(mixed) == {"ckpt_0": 1.0, "ckpt_1": 7.0}


def test_a_picture_with_and_without_predictions(tmp_path) -> None:
    order = ordering([1.0, 3.0, 2.0])
    for name, predicted in (("with", PREDICTED), ("without", {})):
        path = cost_chart(order, candidates(1.0, 2.0, 3.0), predicted, tmp_path / name, title="cost $5 or $6")
        assert path is not None
        assert path.read_bytes().startswith(b"\x89PNG")
    assert cost_chart(order, candidates(1.0, None, None, whole=False), {}, tmp_path / "one") is None
    assert not (tmp_path / "one").exists()
