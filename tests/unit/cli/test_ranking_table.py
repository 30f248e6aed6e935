from typing import Any

import pytest
from rich.console import Console

from app.cli import ranking_table

Record = dict[str, Any]


def candidate(name: str, rank: int, **sure: Any) -> Record:
    score = {"metric": "logme", "layer": "backbone.c4", "level": "local", "value": 1.0 / rank, "undefined": None}
    cost = {"parameters": 10**6, "ms_per_image": 5.0, "peak_memory_bytes": 2**20, "licence": "MIT"}
    none = {"interval": None, "z": None, "chance_of_best": None, "zero_point": None, "gain": None, "gain_interval": None}
    shown = {"checkpoint_id": name, "name": name, "rank": rank, "state": "succeeded", "timings": {"total": 1.0}}
    return shown | {"scores": [score], "cost": cost} | none | sure


def ranking(*candidates: Record) -> Record:
    return {
        "id": "rk_1", "state": "succeeded", "ranked_by": {"metric": "logme", "layer": "backbone.c4", "level": "local"},
        "candidates": list(candidates), "left_out": [], "summary": "candidates 1 and 2 cannot be told apart",
        "warnings": [{"code": "near_tie", "detail": "twice said"}, {"code": "few_objects", "detail": "12 objects"}],
    }  # fmt: skip


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    def show(record: Record) -> str:
        monkeypatch.setattr(ranking_table, "out", Console(width=160))
        ranking_table.show_ranking(record)
        return capsys.readouterr().out

    return show


def test_how_sure_the_order_is_stands_beside_the_score(shown: Any) -> None:
    sure = {"interval": [0.8, 1.2], "z": 31.25, "chance_of_best": 0.625}
    text = shown(ranking(candidate("first", 1, **sure), candidate("other", 2)))
    first, second = (next(line for line in text.splitlines() if name in line) for name in ("first", "other"))
    cells = [[cell.strip() for cell in line.split("│")[3:7]] for line in (first, second)]
    assert cells == [["1.0000", "0.2000", "31.2", "62%"], ["0.5000", "–", "–", "–"]]
    assert "candidates 1 and 2 cannot be told apart" in text
    assert "beware: 12 objects" in text
    assert "twice said" not in text


def test_a_ranking_without_intervals_has_no_empty_columns(shown: Any) -> None:
    text = shown(ranking(candidate("first", 1)))
    assert "±" not in text
    assert "best" not in text


def test_the_gain_stands_beside_the_score_where_it_is_known(shown: Any) -> None:
    text = shown(ranking(candidate("first", 1, zero_point=0.75, gain=0.25), candidate("other", 2)))
    heads, first, second = (next(line for line in text.splitlines() if name in line) for name in ("candidate", "first", "other"))
    assert [cell.strip() for cell in heads.replace("┃", "│").split("│")[3:5]] == ["logme", "gain"]
    assert [[cell.strip() for cell in line.split("│")[3:5]] for line in (first, second)] == [["1.0000", "0.2500"], ["0.5000", "–"]]
    assert "gain" not in shown(ranking(candidate("first", 1)))


def test_a_ranking_by_gains_says_so_and_shows_how_sure_they_are(shown: Any) -> None:
    sure = {"interval": [0.8, 1.2], "gain_interval": [0.2, 0.3], "z": 31.25, "chance_of_best": 0.625}
    record = ranking(candidate("first", 1, zero_point=0.75, gain=0.25, **sure))
    record["ranked_by"]["quantity"] = "gain"
    text = shown(record)
    assert "ranked by gain of logme at backbone.c4 (local)" in text
    first = next(line for line in text.splitlines() if "first" in line)
    assert [cell.strip() for cell in first.split("│")[3:6]] == ["1.0000", "0.2500", "0.0500"]


def test_every_score_stands_below_by_rank(shown: Any) -> None:
    second = {"metric": "tlogme", "layer": "backbone.c4", "level": "local", "value": None, "undefined": "one class"}
    elsewhere = {"metric": "logme", "layer": "backbone.c5", "level": "local", "value": 9.0, "undefined": None}
    first = candidate("first", 1)
    first["scores"] = [*first["scores"], second, elsewhere]
    text = shown(ranking(first, candidate("other", 2)))
    below = text[text.index("every score at") :]
    cells = {row[1].strip(): [cell.strip() for cell in row[2:-1]] for line in below.splitlines() if len(row := line.split("│")) > 2}
    assert cells == {"logme": ["1.0000", "0.5000"], "tlogme": ["undefined", "–"]}
