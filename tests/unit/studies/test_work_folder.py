"""What is done stays done as long as what it depends on is the same, and no longer."""

import pytest

from worker.studies import StudyRefused
from worker.studies.files import read_json, write_json
from worker.studies.work_folder import digest_of, opened

TUNING = {"recipe": "quick", "overrides": {"iterations": 240}, "max_train": 150}
SCORING = {"metrics": ("tlogme",), "spec": {"layers": ("all",)}}
KEY = ("ships", "net a")


def open_it(root, tuning=TUNING, scoring=SCORING, probing=None, contents=None):
    return opened(root, tuning, scoring, {"probe": probing}, contents or {"dataset ships": "1"})


def test_other_scores_lie_elsewhere_and_fine_tunings_where_they_were(tmp_path):
    one, other = open_it(tmp_path), open_it(tmp_path, scoring={**SCORING, "metrics": ("tlogme", "logme")})
    assert one.scores(KEY) != other.scores(KEY)
    assert one.zero_point("ships", "0") != other.zero_point("ships", "0")
    assert one.tuning(KEY, 1) == other.tuning(KEY, 1) == tmp_path / "tunings" / "net a-on-ships-1.json"
    assert one.probe(KEY) == other.probe(KEY) != open_it(tmp_path, probing={"iterations": 30}).probe(KEY)
    assert open_it(tmp_path) == one
    assert read_json(one.scores(KEY).parent / "settings.json") == {
        "metrics": ["tlogme"],
        "spec": {"layers": ["all"]},
    }


def test_a_folder_of_before_is_taken_over_with_its_fine_tunings(tmp_path):
    old = {**TUNING, "spec": {"layers": ["all"], "seed": 0}, "metrics": ["tlogme", "etran"]}
    write_json(tmp_path / "settings.json", old)
    write_json(tmp_path / "tunings" / "net a-on-ships-0.json", {"map": 0.5})
    write_json(tmp_path / "scores" / "net a-on-ships.json", {"rows": []})
    # trainings of then began without data-dependent initialisation
    with pytest.raises(StudyRefused, match=r"other settings .overrides"):
        open_it(tmp_path)
    as_then = {**TUNING, "overrides": {**TUNING["overrides"], "data_dependent_init": False}}
    found = open_it(tmp_path, tuning=as_then)
    assert read_json(found.tuning(KEY, 0)) == {"map": 0.5}
    assert not found.scores(KEY).exists(), "its scores are of other settings"
    assert read_json(tmp_path / "settings.json") == old


def test_fine_tunings_of_before_there_was_a_band_left_nothing_alone(tmp_path):
    always = {**TUNING, "overrides": {**TUNING["overrides"], "data_dependent_init": True}}
    write_json(tmp_path / "settings.json", always)
    with pytest.raises(StudyRefused, match=r"other settings .overrides"):
        open_it(tmp_path)
    open_it(tmp_path, tuning={**always, "overrides": {**always["overrides"], "init_band": 1.0}})


@pytest.mark.parametrize(
    "change", [{"recipe": "sgd_1x"}, {"overrides": {"iterations": 30}}, {"max_train": None}]
)
def test_other_fine_tunings_are_refused(tmp_path, change):
    open_it(tmp_path)
    with pytest.raises(StudyRefused, match=f"other settings .{next(iter(change))}"):
        open_it(tmp_path, tuning={**TUNING, **change})


def test_other_contents_are_refused_and_more_are_not(tmp_path):
    open_it(tmp_path)
    open_it(tmp_path, contents={"dataset bccd": "2"})
    with pytest.raises(StudyRefused, match="dataset ships changed"):
        open_it(tmp_path, contents={"dataset ships": "3"})


def test_a_digest_is_of_the_values_alone():
    assert (
        digest_of({"a": (1, 2), "b": None})
        == digest_of({"b": None, "a": [1, 2]})
        != digest_of({"a": (2, 1), "b": None})
    )
