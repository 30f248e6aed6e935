"""Evidence on a made-up study: the planted score is chosen and proven, nothing of the proof leaks, and the words follow the numbers."""

import csv
import re
from dataclasses import replace

import pytest
from made_up import CHOOSE_ON, DATASETS, UNTRAINED, made_up, question

from worker.studies.evidence.answer import answer, cautions
from worker.studies.evidence.evidence import evidence_of
from worker.studies.evidence.material import material_of
from worker.studies.evidence.report import chosen_from, write_evidence
from worker.studies.measures.observations import Observation
from worker.studies.measures.question import Question
from worker.studies.measures.signals import early_of, tau_between_seeds

PLANTED = ("gain of detection_evidence", "backbone.c4", "local")
PROOF = DATASETS[3:]


def found_in(real, asked=None, bootstrap=50):
    return evidence_of(material_of(real, asked or question()), bootstrap=bootstrap)


@pytest.fixture(scope="module")
def exact():
    """Without noise the gain is the mAP itself."""
    return found_in(made_up(noise=0.0))


def test_the_planted_score_is_chosen_and_proven(exact):
    assert exact.choice.place == exact.strict.place == PLANTED
    line = exact.line("chosen")
    assert line.taus == pytest.approx(dict.fromkeys(PROOF, 1.0))
    assert (line.mean.value, line.share.value, line.regret) == pytest.approx((1.0, 1.0, 0.0))
    assert line.ranks == dict.fromkeys(PROOF, (7, 8))
    assert (line.last, exact.truth_last) == (4, 4)
    assert line.above[1] == 4
    assert exact.line("ceiling").mean.value == pytest.approx(1.0)
    assert [(each.dataset, each.choice.place, each.tau) for each in exact.left_out] == [
        (d, PLANTED, pytest.approx(1.0)) for d in DATASETS
    ]


def test_a_raw_score_of_several_architectures_has_their_offsets_and_its_gain_has_not(exact):
    raw, gain = exact.gains["detection_evidence, backbone.c4"]
    assert gain.mean.value == pytest.approx(1.0)
    assert raw.mean.value < 0.97


def test_a_score_without_a_value_on_a_dataset_of_the_choice_is_no_default(exact):
    assert not any(place[0].endswith("tlogme") for place in exact.choice.fitting)
    priced = next(each for each in exact.priced if each.name == "tlogme")
    assert priced.choice.on == ("bccd", "cards"), "beside the default it is chosen where it has a value"


def test_nothing_of_the_proof_reaches_the_choice():
    real = made_up()
    before = found_in(real, bootstrap=0)
    turned = {
        key: {
            seed: {**result, "map": 0.9 - result["map"]} if key[0] in PROOF else result
            for seed, result in seeds.items()
        }
        for key, seeds in real.tunings.items()
    }
    # scores of the proof turned too
    scores = {
        key: {**part, "rows": [{**row, "value": row["value"] and -row["value"]} for row in part["rows"]]}
        if key[0] in PROOF
        else part
        for key, part in real.scores.items()
    }
    after = found_in(
        replace(
            real,
            tunings=turned,
            scores=scores,
            zeros={k: {**z, "rows": z["rows"]} for k, z in real.zeros.items()},
        ),
        bootstrap=0,
    )
    assert (after.choice, after.strict, after.luck) == (before.choice, before.strict, before.luck)
    assert after.lines_on == before.lines_on
    assert [each.choice for each in after.priced] == [each.choice for each in before.priced]
    assert after.line("chosen").taus != before.line("chosen").taus


def test_the_choice_looks_at_its_own_datasets():
    real = made_up()
    turned = {
        key: {
            seed: {**result, "map": 0.9 - result["map"]} if key[0] in CHOOSE_ON else result
            for seed, result in seeds.items()
        }
        for key, seeds in real.tunings.items()
    }
    assert found_in(replace(real, tunings=turned), bootstrap=0).choice.place != PLANTED


def test_with_one_seed_there_is_no_ceiling_and_it_is_said(tmp_path):
    material = material_of(made_up(seeds=(0,)), question())
    _, found, files = write_evidence(material, "One seed", (), (), tmp_path, bootstrap=5)
    assert (found.ceiling, found.line("ceiling"), found.line("chosen").share) == ({}, None, None)
    text = files.markdown.read_text()
    assert "There is one seed only, so there is no noise ceiling" in text
    assert "with one seed of fine-tuning there is no noise ceiling to hold it against" in text
    assert "early_map" not in {each.name for each in found.priced}, "its only truth shares its noise"


def test_a_study_in_which_nothing_can_be_chosen_says_so():
    asked = Question(CHOOSE_ON, ("tlogme",), question().rules, UNTRAINED)
    said = answer(found_in(made_up(), asked, bootstrap=5))
    assert (
        said[0]
        == "None of the 4 scores has a value for every candidate on bccd, pennfudan, cards, so none could be chosen."
    )
    assert said[1] == "There is nothing to prove."


def test_the_words_are_those_of_the_numbers(exact):
    said = answer(exact)
    assert len(said) == 5
    assert "Of 32 scores, 24 have a value for every candidate" in said[0]
    assert "1.00, has gain of detection_evidence, backbone.c4." in said[0]
    assert "100% [100%, 100%] of the noise ceiling and reaches the 80%" in said[1]
    assert "last on 4 of these 4 datasets (by mAP they are last on 4)" in said[2]
    assert "the cheapest being detection_evidence, backbone.c4 with" in said[4]
    poor = found_in(
        made_up(noise=0.0), Question(CHOOSE_ON, ("logme_regions",), question().rules, UNTRAINED), bootstrap=20
    )
    said = answer(poor)
    assert "misses the 80% asked for" in said[1]
    assert "no score puts them last on all datasets of the choice" in said[2]
    assert "the cheapest being probe_" in said[4]
    assert any("8 candidates of 3 architectures" in line for line in cautions(poor))


def test_costs_are_features_scores_and_the_share_of_the_zero_points(exact):
    seconds = exact.material.seconds
    zero = 3 * 7 * 3.0 / 56  # three architectures on seven datasets, shared by all pairs
    assert seconds(("detection_evidence", "backbone.c4", "local")) == pytest.approx(2.25)
    assert seconds(("detection_evidence", "mean of maps", "local")) == pytest.approx(2.5)
    assert seconds(PLANTED) == pytest.approx(2.25 + zero)
    assert (exact.material.probe_seconds, exact.material.early_seconds, exact.material.full_seconds) == (
        5.0,
        30.0,
        60.0,
    )


def test_an_early_signal_is_held_against_another_seed():
    maps = {"a": {0: 0.1, 1: 0.3}, "b": {0: 0.2, 1: 0.2}, "c": {0: 0.3, 1: 0.1}}
    group = [Observation("d", c, {}, {}, m) for c, m in maps.items()]
    assert tau_between_seeds(group, lambda o, seed: o.map_by_seed[seed]) == pytest.approx(-1.0)
    assert tau_between_seeds(group, lambda o, seed: o.map_by_seed[1 - seed]) == pytest.approx(1.0)
    assert tau_between_seeds(group, lambda o, seed: None if o.candidate == "a" else 1.0) is None
    assert tau_between_seeds([replace(o, map_by_seed={0: 0.1}) for o in group], lambda o, seed: 1.0) is None
    result = {
        "iterations": 200,
        "seconds": 50.0,
        "val_curve": [{"iteration": 40, "map": 0.2}, {"iteration": 200, "map": 0.5}],
    }
    assert (early_of(result).value, early_of(result).seconds) == (0.2, 10.0)
    assert early_of({"error": "x"}) is None
    assert early_of({**result, "val_curve": result["val_curve"][:1]}) is None


def test_the_report_answers_first_and_its_table_can_be_read_back(tmp_path):
    material = material_of(made_up(), question())
    _, found, files = write_evidence(
        material, "Evidence", ("About.",), (("this", "that"),), tmp_path, bootstrap=10
    )
    text = files.markdown.read_text()
    headings = re.findall(r"^## (.*)$", text, re.M)
    assert headings[:9] == [
        "What was asked",
        "Answer",
        "Choice and proof",
        "Noise ceiling",
        "Where to read",
        "Raw score or gain",
        "Small, medium and large objects",
        "Cost and signal",
        "Cautions",
    ]
    assert "nan" not in text.lower().replace("pennfudan", "")
    assert len(files.plots) == len(set(files.plots)) >= 8
    with files.others[0].open(newline="") as file:
        rows = list(csv.DictReader(file))
    chosen = {
        row["dataset"]: float(row["tau"])
        for row in rows
        if row["part"] == "proof" and row["kind"] == "chosen"
    }
    assert chosen == pytest.approx({**found.line("chosen").taus, "mean": found.line("chosen").mean.value})
    assert {row["part"] for row in rows} == {"proof", "choice", "cost", "left out once"}
    with files.observations.open(newline="") as file:
        levels = {row["level"] for row in csv.DictReader(file)}
    assert {"small", "medium", "large", "local"} <= levels


def test_equals_are_told():
    """Where sizes match the same map everywhere, a rule and that map are one score."""
    real = made_up()
    alike = {
        key: {**part, "object_pixels": {"median": 64.0, "limits": [1, 2]}}
        for key, part in real.scores.items()
    }
    found = found_in(replace(real, scores=alike), bootstrap=0)
    assert found.choice.place == PLANTED
    assert list(found.choice.fitting)[:2] == [
        PLANTED,
        ("gain of detection_evidence", "size_matched / 4", "local"),
    ]
    assert "; 2 share the highest mean, of which the first" in chosen_from(found)


def test_a_failed_probe_and_zero_point_are_named_not_guessed():
    real = made_up()
    key = ("ships", "a 0")
    broken = replace(
        real,
        probes={**real.probes, key: {"error": "diverged: at 3"}},
        zeros={**real.zeros, key: {"error": "unusable: no"}},
    )
    each = next(o for o in material_of(broken, question()).observations if (o.dataset, o.candidate) == key)
    assert (
        each.undefined["probe_map", "fine-tuning", "test images"]
        == "its short fine-tuning failed: diverged: at 3"
    )
    assert (
        "could not be scored: unusable: no" in each.undefined["gain of logme_boxes", "backbone.c4", "local"]
    )
    assert not any(metric.startswith("gain") for metric, _, _ in each.scores)
