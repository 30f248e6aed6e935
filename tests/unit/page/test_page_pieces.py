"""What pages are made of: files that load nothing foreign, numbers as people say them, charts"""

import re
from pathlib import Path

from app.page import charts, words
from app.page.evaluations import recall_of_classes

STATIC = Path(__file__).parents[3] / "app" / "page" / "static"


def test_nothing_foreign_in_what_is_served_and_little_script() -> None:
    scripts = sum(path.stat().st_size for path in STATIC.glob("*.js"))
    assert scripts < 60_000
    templates = STATIC.parent / "templates"
    for path in [*STATIC.iterdir(), *templates.iterdir()]:
        text = path.read_text(encoding="utf-8").replace("http://www.w3.org/2000/svg", "")
        assert not re.search(r"https?://|(src|href)=[\"']//", text), path


def test_scores_have_the_digits_that_their_interval_deserves() -> None:
    assert words.score(0.123456, [0.1, 0.14]) == "0.123"
    assert words.half_width(0.123456, [0.1, 0.14]) == "0.020"
    assert words.score(12.3456, [10.0, 14.0]) == "12.3"
    assert words.score(-1.5, None) == "−1.500"
    assert words.score(None) == "–"


def test_times_and_sizes_as_people_say_them() -> None:
    assert words.duration(3.04) == "3.0 s"
    assert words.duration(200) == "3 min 20 s"
    assert words.duration(7500) == "2 h 5 min"
    assert words.size(3_500_000) == "3.3 MiB"
    assert words.share(0.999) == "> 99 %"
    assert words.share(0.0) == "0 %"


def test_the_frontier_is_what_nothing_faster_beats() -> None:
    points = [
        charts.Point(str(n), "", x, y)
        for n, (x, y) in enumerate([(5, 1), (10, 3), (12, 2), (10, 1), (20, 3)])
    ]
    assert [point.name for point in charts.frontier(points)] == ["0", "1"]


def test_ticks_are_round_and_within() -> None:
    assert charts.ticks(0, 1) == [0, 0.2, 0.4, 0.6, 0.8, 1]
    assert charts.ticks(3, 3) == [3]
    assert charts.ticks(-0.013, 0.017) == [-0.01, 0, 0.01]


def test_charts_of_nothing_are_nothing() -> None:
    assert charts.bars([], [], "x") == ""
    assert charts.scatter([], "x", "y", "z") == ""
    assert charts.lines([("loss", [])], "x", "y") == ""
    assert charts.histogram({"edges": [0, 1], "counts": [0, 0]}, "x") == ""


def test_the_curves_of_the_classes_that_are_found_worst() -> None:
    names = [f"class {n}" for n in range(6)]
    evaluation = {
        "per_class": [{"category": name, "ap50": 1 - n / 10} for n, name in enumerate(names)],
        "curves": {"by_class": {name: [1.0, 0.5, 0.0] for name in names}},
    }
    found = recall_of_classes(evaluation)
    assert [name for name, _ in found] == ["class 5", "class 4", "class 3", "class 2"]
    assert found[0][1] == [(0.0, 1.0), (0.5, 0.5), (1.0, 0.0)]
    assert recall_of_classes({"per_class": [], "curves": {"recall": [], "precision": {}}}) == []
