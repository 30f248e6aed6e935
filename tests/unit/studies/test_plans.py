"""Plans compared on the same candidates, datasets and seeds."""

import csv
from pathlib import Path

import pytest
from scipy import stats

from worker.studies.errors import StudyRefused
from worker.studies.files import write_json
from worker.studies.reports.plans_report import write_plans_report
from worker.studies.runs.plans import Tuning, differences, done_in
from worker.studies.runs.study_file import read_study
from worker.studies.work_folder import opened_tunings

DATASETS, CANDIDATES, SEEDS = ("d1", "d2", "d3"), ("a", "b"), (0, 1)
# what plan `with` gives more, by dataset; seeds differ by 0.02, which is not noise of the difference
MORE = {"d1": 0.1, "d2": 0.2, "d3": 0.03}


def made(candidate: str, dataset: str, seed: int, plan: str) -> Tuning:
    value = 0.3 + 0.02 * seed + (MORE[dataset] if plan == "with" else 0.0)
    return Tuning(dataset, candidate, seed, plan, {"map": value, "seconds": 1.0, "start": {"seconds": 0.1}})


def everything() -> list[Tuning]:
    return [
        made(c, d, s, p) for p in ("without", "with") for c in CANDIDATES for d in DATASETS for s in SEEDS
    ]


def test_datasets_are_the_sample() -> None:
    found = differences(everything(), "without", "with", CANDIDATES)
    interval = stats.ttest_1samp(list(MORE.values()), 0.0).confidence_interval(0.95)
    assert found is not None
    assert (found.datasets, found.better) == (3, 3)
    assert found.mean == pytest.approx(sum(MORE.values()) / 3)
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high))
    assert found.base == pytest.approx(0.31)
    assert found.other == pytest.approx(found.base + found.mean)


def test_only_whole_pairs_count_and_one_dataset_has_no_interval() -> None:
    pairs = [made("a", "d1", 0, "without"), made("a", "d1", 0, "with"), made("a", "d1", 1, "with")]
    lost = Tuning("d2", "a", 0, "with", {"error": "too_few_images: none"})
    found = differences([*pairs, made("a", "d2", 0, "without"), lost], "without", "with", ["a"])
    assert found is not None
    assert (found.datasets, found.mean, found.low, found.high) == (1, pytest.approx(0.1), None, None)
    assert differences([made("a", "d1", 0, "without")], "without", "with", ["a"]) is None


def test_what_is_there_is_read_and_reported_before_the_end(tmp_path: Path) -> None:
    for tuning in everything()[:15]:
        path = tmp_path / "work" / tuning.plan / "tunings"
        write_json(path / f"{tuning.candidate}-on-{tuning.dataset}-{tuning.seed}.json", dict(tuning.result))
    found = list(done_in(DATASETS, CANDIDATES, tmp_path / "work", SEEDS, ("without", "with")))
    assert len(found) == 15
    files = write_plans_report(found, "Plans", ["Made up."], tmp_path / "out")
    rows = list(csv.DictReader(files[0].open()))
    assert len(rows) == 15
    assert {row["init_seconds"] for row in rows} == {"0.1"}
    (only,) = csv.DictReader(files[1].open())
    assert (only["candidate"], only["plan"], only["datasets"]) == ("a", "with", "2")
    assert float(only["mean"]) == pytest.approx(0.15)
    assert "+0.150" in files[2].read_text()


def test_a_study_file_names_plans_and_which_candidates(tmp_path: Path) -> None:
    base = '[datasets]\nd = "d"\n[[candidates]]\nname = "a"\nsource = "a"\n[[candidates]]\nname = "b"\nsource = "b"\n'
    (tmp_path / "base.toml").write_text(base)
    more = 'extends = "base.toml"\nonly = ["b", "a"]\n[plans.without]\nlr_factor = 1\n[plans.with]\nlr_factor = 2\n'
    (tmp_path / "study.toml").write_text(more)
    study = read_study(tmp_path / "study.toml")
    assert [candidate["name"] for candidate in study.candidates] == ["b", "a"]
    assert study.plans == {"without": {"lr_factor": 1}, "with": {"lr_factor": 2}}
    assert not read_study(tmp_path / "base.toml").plans
    (tmp_path / "third.toml").write_text('extends = "study.toml"\nseeds = [1]\n')
    third = read_study(tmp_path / "third.toml")
    assert (third.settings.seeds, third.plans, third.candidates) == ((1,), study.plans, study.candidates)
    (tmp_path / "base.toml").write_text('extends = "third.toml"\n' + base)
    with pytest.raises(StudyRefused, match="stand alone"):
        read_study(tmp_path / "third.toml")
    (tmp_path / "base.toml").write_text(base)
    for wrong in (more.replace('"a"]', '"c"]'), 'extends = "base.toml"\n[plans.one]\nlr_factor = 1\n'):
        (tmp_path / "study.toml").write_text(wrong)
        with pytest.raises(StudyRefused):
            read_study(tmp_path / "study.toml")


def test_fine_tunings_of_before_there_was_a_choice_are_those_without(tmp_path: Path) -> None:
    write_json(
        tmp_path / "settings.json", {"recipe": "quick", "overrides": {"iterations": 5}, "max_train": None}
    )
    opened_tunings(tmp_path, "quick", {"iterations": 5, "data_dependent_init": False}, None, {})
    for other in ({"iterations": 5}, {"iterations": 5, "data_dependent_init": True}):
        with pytest.raises(StudyRefused, match="overrides"):
            opened_tunings(tmp_path, "quick", other, None, {})
