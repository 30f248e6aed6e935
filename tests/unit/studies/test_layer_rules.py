"""Where a score is read: at one map, at the one that fits the objects as the service matches it, or at all; and gains there."""

import dataclasses

import pytest

from models_store.manifest import Layer
from worker.ranking import rule as service
from worker.ranking.records import Candidate, Scored
from worker.studies import StudyRefused
from worker.studies.measures.gains import gain_of
from worker.studies.measures.layer_rules import MEAN, RULES, rule_named, shared_maps, with_rules
from worker.studies.measures.observations import Observation
from worker.studies.measures.zero_point import with_gains

ALL = ("backbone.c2", "backbone.c3", "backbone.c4", "backbone.c5")


@pytest.mark.parametrize(
    ("rule", "pixels", "layers"),
    [
        ("backbone.c5", 1, ("backbone.c5",)),
        ("size_matched / 4", 64, ("backbone.c4",)),
        ("size_matched / 1", 64, ("backbone.c5",)),
        ("size_matched / 8", 64, ("backbone.c3",)),
        ("size_matched / 8", 2, ("backbone.c2",)),
        ("size_matched / 1", 11.3, ("backbone.c3",)),
        ("size_matched / 1", 11.4, ("backbone.c4",)),
        (MEAN, 64, ALL),
    ],
)
def test_the_layers_of_a_rule(rule, pixels, layers):
    assert rule_named(rule).layers(ALL, pixels) == layers


def test_only_maps_that_all_candidates_have_are_matched():
    whole = [Layer(name, 4, 8, "map", True) for name in (*ALL, "neck.p6")]
    short, fresh = (
        whole[:3],
        [dataclasses.replace(layer, trained=layer.name != "backbone.c2") for layer in whole],
    )
    assert shared_maps([whole, short]) == ALL[:3]
    assert shared_maps([whole, short, fresh]) == ALL[1:3]
    assert shared_maps([]) == ()
    assert rule_named("size_matched / 1").layers(ALL[:3], 640) == ("backbone.c4",)
    assert rule_named("size_matched / 1").layers((), 640) == ()


@pytest.mark.parametrize("pixels", [12.0, 20.0, 22.0, 23.0, 40.0])
def test_it_is_the_map_that_the_service_would_match(pixels):
    candidates = [
        Candidate(
            id=str(n),
            name=str(n),
            scores=tuple(Scored("logme", layer, "local", 1.0) for layer in ALL),
            object_pixels=pixels + n - 1,
        )
        for n in range(3)
    ]
    own = rule_named(f"size_matched / {service.SIZE_PER_STRIDE:g}").layers(ALL, pixels)
    assert own == (service.size_matched_layer(candidates),)


def test_every_known_rule_can_be_named_and_others_are_refused():
    assert [rule_named(name).name for name in RULES] == list(RULES)
    for name in ("stride 8", "neck.p3", "size_matched / 0.5", "best", "sum"):
        with pytest.raises(StudyRefused, match="is no layer rule"):
            rule_named(name)


def observation():
    scores = {("m", f"backbone.c{n}", "local"): float(n) for n in (2, 3, 4, 5)}
    scores |= {
        ("m", "backbone.c4", "global"): 9.0,
        ("m", "neck.roi", "local"): 9.0,
        ("m", "backbone.c4", "small"): 9.0,
    }
    scores |= {("half", "backbone.c4", "local"): 7.0}
    return Observation("d", "c", scores, {}, {0: 0.5}, {("half", "backbone.c3", "local"): "one class"})


def test_a_rule_becomes_a_place():
    found = with_rules(
        observation(), {"matched": ("backbone.c3",), MEAN: ALL, "backbone.c4": ("backbone.c4",), "none": ()}
    )
    assert found.scores["m", "matched", "local"] == 3.0
    assert found.scores["m", MEAN, "local"] == 3.5
    assert found.undefined["half", "matched", "local"] == "one class"
    assert found.undefined["half", MEAN, "local"] == "it was not scored at backbone.c2"
    assert found.undefined["m", "none", "local"] == "the candidates have no map in common"
    assert len(found.scores) == len(observation().scores) + 2


def test_a_gain_is_the_score_above_its_zero_point():
    def row(metric, layer, value, undefined=None):
        return {"metric": metric, "layer": layer, "level": "local", "value": value, "undefined": undefined}

    zero = {
        "rows": [
            row("m", "backbone.c4", 1.5),
            row("m", "backbone.c3", None, "NaN features"),
            row("half", "backbone.c3", 1.0),
            row("other", "x", 1.0),
        ]
    }
    found = with_gains(observation(), zero)
    gain = gain_of("m")
    assert found.scores[gain, "backbone.c4", "local"] == 2.5
    assert found.undefined[gain, "backbone.c3", "local"] == "its zero point is undefined: NaN features"
    assert found.undefined[gain_of("half"), "backbone.c3", "local"] == "one class"
    assert (gain, "backbone.c5", "local") not in {**found.scores, **found.undefined}
    assert {p: v for p, v in found.scores.items() if not p[0].startswith("gain")} == observation().scores
