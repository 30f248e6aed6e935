from typing import Any

import pytest
from rich.console import Console

from app.cli.show import rankings as ranking_table

Record = dict[str, Any]


def candidate(name: str, rank: int, **sure: Any) -> Record:
    score = {
        "metric": "logme",
        "layer": "backbone.c4",
        "level": "local",
        "value": 1.0 / rank,
        "undefined": None,
    }
    cost = {"parameters": 10**6, "ms_per_image": 5.0, "peak_memory_bytes": 2**20, "licence": "MIT"}
    none = {
        "value": 1.0 / rank,
        "interval": None,
        "near": [],
        "map": None,
        "z": None,
        "chance_of_best": None,
        "predicted_map": None,
        "zero_point": None,
        "gain": None,
        "gain_interval": None,
    }
    shown = {
        "checkpoint_id": name,
        "name": name,
        "rank": rank,
        "state": "succeeded",
        "timings": {"total": 1.0},
    }
    return shown | {"scores": [score], "cost": cost} | none | sure


def ranking(*candidates: Record) -> Record:
    return {
        "id": "rk_1",
        "state": "succeeded",
        "order_by": "score",
        "ranked_by": {"metric": "logme", "layer": "backbone.c4", "level": "local"},
        "candidates": list(candidates),
        "left_out": [],
        "summary": "candidates 1 and 2 cannot be told apart",
        "warnings": [
            {"code": "near_tie", "detail": "twice said"},
            {"code": "few_objects", "detail": "12 objects"},
        ],
    }


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    def show(record: Record, *, whole: bool = False) -> str:
        monkeypatch.setattr(ranking_table, "out", Console(width=160))
        (ranking_table.show_whole_ranking if whole else ranking_table.show_ranking)(record)
        return capsys.readouterr().out

    return show


def cells(text: str, name: str) -> list[str]:
    line = next(line for line in text.splitlines() if name in line)
    return [cell.strip() for cell in line.replace("┃", "│").split("│")[1:-1]]


def test_how_sure_the_order_is_stands_beside_the_score(shown: Any) -> None:
    first = candidate("first", 1, interval=[0.8, 1.2], near=["other"], z=443.25, chance_of_best=0.625)
    text = shown(ranking(first, candidate("other", 2, near=["first"])))
    assert cells(text, "candidate") == ["rank", "candidate", "logme", "as good as", "ms/image", "memory"]
    assert cells(text, "first") == ["1", "first", "1.00 ± 0.20", "#2", "5.0", "1 MiB"]
    assert cells(text, "other") == ["2", "other", "0.500", "#1", "5.0", "1 MiB"]
    assert "443" not in text
    assert "candidates 1 and 2 cannot be told apart" in text
    assert "beware: 12 objects" in text
    assert "twice said" not in text


def test_what_a_choice_is_not_made_by_is_for_who_asks(shown: Any) -> None:
    known = {
        "z": 443.25,
        "zero_point": 0.25,
        "gain": 0.75,
        "baselines": {"parameters": {"value": 10, "rank": 2}},
    }
    record = ranking(
        candidate("first", 1, chance_of_best=0.625, **known), candidate("other", 2, baselines={})
    )
    assert "every" not in shown(record)
    text = shown(record, whole=True).partition("every figure")[2]
    assert cells(text, "candidate")[3:8] == ["zero point", "gain", "z", "chance of best", "parameters"]
    assert cells(text, "first")[2:] == ["1.000", "0.250", "0.750", "443", "62 %", "1.0 M", "2", "MIT"]
    assert cells(text, "other")[2:] == ["0.500", "–", "–", "–", "–", "1.0 M", "–", "MIT"]
    assert cells(text.partition("every score")[2], "logme") == ["logme", "1.0000", "0.5000"]


def test_many_that_are_as_good_are_counted(shown: Any) -> None:
    many = [candidate(f"name {n}", n) for n in range(1, 9)]
    many[0] |= {"interval": [0.0, 2.0], "near": [one["name"] for one in many[1:]]}
    assert cells(shown(ranking(*many)), "name 1")[3] == "#2, #3, #4, #5 and 3 more"


def test_a_ranking_without_intervals_has_no_empty_columns(shown: Any) -> None:
    text = shown(ranking(candidate("first", 1)))
    assert "±" not in text
    assert "as good as" not in text


def test_no_table_has_more_than_seven_columns(shown: Any) -> None:
    done = [{"id": "vf_1", "state": "succeeded"}]
    text = shown(ranking(candidate("first", 1, interval=[0.8, 1.2], map=0.4321, verifications=done)))
    assert len(cells(text, "candidate")) == 7
    assert cells(text, "first")[4] == "0.432"


def test_map_is_shown_as_predicted_until_it_was_measured(shown: Any) -> None:
    told = {"predicted_map": {"mean": 0.3, "low": 0.2, "high": 0.42, "level": 0.8}}
    text = shown(ranking(candidate("first", 1, **told), candidate("other", 2)))
    assert "predicted mAP (80%)" in cells(text, "candidate")
    assert cells(text, "first")[3] == "0.20 to 0.42"
    assert cells(text, "other")[3] == "–"
    done = {"verifications": [{"id": "vf_1", "state": "succeeded"}], "map": 0.4321}
    near = {"interval": [0.8, 1.2], "near": ["other"]}
    text = shown(ranking(candidate("first", 1, **told, **done, **near), candidate("other", 2, **told)))
    assert len(cells(text, "candidate")) == 7
    assert (cells(text, "first")[4], cells(text, "other")[4]) == ("0.432", "0.20 to 0.42")


def test_an_order_by_prediction_says_so_with_the_chance_of_being_best(shown: Any) -> None:
    told = {"predicted_map": {"mean": 0.3, "low": 0.2, "high": 0.42, "level": 0.8}, "chance_of_best": 0.46}
    near = {"interval": [0.8, 1.2], "near": ["other"]}
    found = ranking(candidate("first", 1, **told, **near), candidate("other", 2, **told) | {"rank": None})
    text = shown(found | {"order_by": "predicted_map"})
    assert "ranked by the mAP that fine-tuning is predicted to reach" in text
    assert len(cells(text, "candidate")) == 7
    assert cells(text, "candidate")[3] == "chance of best"
    assert (cells(text, "first")[3], cells(text, "other")[3]) == ("46 %", "–")


def test_a_candidate_without_a_score_shows_its_state_in_its_place(shown: Any) -> None:
    failed = {"value": None, "rank": None, "state": "failed"}
    text = shown(ranking(candidate("first", 1), candidate("broken", 2) | failed))
    assert cells(text, "broken")[:3] == ["–", "broken", "failed"]


def test_a_ranking_by_gains_says_so_and_shows_how_sure_they_are(shown: Any) -> None:
    sure = {"interval": [0.8, 1.2], "gain_interval": [0.2, 0.3], "z": 31.25, "chance_of_best": 0.625}
    record = ranking(candidate("first", 1, zero_point=0.75, gain=0.25, **sure))
    record["ranked_by"]["quantity"] = "gain"
    text = shown(record)
    assert "ranked by gain of logme at backbone.c4 (local)" in text
    assert cells(text, "candidate")[2] == "gain"
    assert cells(text, "first")[2] == "0.250 ± 0.050"


def test_every_score_stands_below_by_rank(shown: Any) -> None:
    second = {
        "metric": "tlogme",
        "layer": "backbone.c4",
        "level": "local",
        "value": None,
        "undefined": "one class",
    }
    elsewhere = {"metric": "logme", "layer": "backbone.c5", "level": "local", "value": 9.0, "undefined": None}
    first = candidate("first", 1)
    first["scores"] = [*first["scores"], second, elsewhere]
    text = shown(ranking(first, candidate("other", 2)), whole=True)
    below = text[text.index("every score at") :]
    found = {
        row[1].strip(): [cell.strip() for cell in row[2:-1]]
        for line in below.splitlines()
        if len(row := line.split("│")) > 2
    }
    assert found == {"logme": ["1.0000", "0.5000"], "tlogme": ["undefined", "–"]}
