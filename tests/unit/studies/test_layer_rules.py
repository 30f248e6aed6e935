"""Where a score is read: at the nearest stride, at the one that fits the objects, or at all; and gains there."""

import pytest

from models_store.manifest import Layer
from worker.studies import StudyRefused
from worker.studies.layer_rules import MEAN, RULES, rule_named, with_rules
from worker.studies.observations import Observation
from worker.studies.zero_point import gain_of, with_gains

MAPS = tuple(Layer(f"backbone.c{n}", stride, 8, "map", True) for n, stride in enumerate((4, 4, 8, 16, 32), start=1))
OTHERS = (Layer("neck.p6", 64, 8, "map", True), Layer("neck.roi", None, 8, "vector", True), Layer("backbone.c6", 64, 8, "map", False))


@pytest.mark.parametrize(
    ("rule", "pixels", "layers"),
    [
        ("stride 4", 999, ("backbone.c2",)),
        ("stride 32", 1, ("backbone.c5",)),
        ("stride 64", 1, ("backbone.c5",)),
        ("size / 4", 64, ("backbone.c4",)),
        ("size / 1", 64, ("backbone.c5",)),
        ("size / 8", 64, ("backbone.c3",)),
        ("size / 8", 2, ("backbone.c2",)),
        ("size / 1", 11.3, ("backbone.c3",)),
        ("size / 1", 11.4, ("backbone.c4",)),
        (MEAN, 64, ("backbone.c2", "backbone.c3", "backbone.c4", "backbone.c5")),
    ],
)
def test_the_layers_of_a_rule(rule, pixels, layers):
    assert rule_named(rule).layers((*MAPS, *OTHERS), pixels) == layers


def test_of_two_strides_equally_far_the_coarser():
    assert rule_named("stride 16").layers((MAPS[2], MAPS[4]), 1) == ("backbone.c5",)
    assert rule_named("stride 16").layers(OTHERS, 1) == ()


def test_every_known_rule_can_be_named_and_others_are_refused():
    assert [rule_named(name).name for name in RULES] == list(RULES)
    for name in ("stride", "stride -8", "size / 0.5", "best", "sum"):
        with pytest.raises(StudyRefused, match="is no layer rule"):
            rule_named(name)


def observation():
    scores = {("m", f"backbone.c{n}", "local"): float(n) for n in (2, 3, 4, 5)}
    scores |= {("m", "backbone.c4", "global"): 9.0, ("m", "neck.roi", "local"): 9.0, ("m", "backbone.c4", "small"): 9.0}
    scores |= {("half", "backbone.c4", "local"): 7.0}
    return Observation("d", "c", scores, {}, {0: 0.5}, {("half", "backbone.c3", "local"): "one class"})


def test_a_rule_becomes_a_place():
    found = with_rules(observation(), [rule_named(n) for n in ("stride 16", "size / 8", MEAN)], MAPS, 64.0)
    assert found.scores["m", "stride 16", "local"] == 4.0
    assert found.scores["m", "size / 8", "local"] == 3.0
    assert found.scores["m", MEAN, "local"] == 3.5
    assert found.scores["half", "stride 16", "local"] == 7.0
    assert found.undefined["half", "size / 8", "local"] == "one class"
    assert found.undefined["half", MEAN, "local"] == "it was not scored there"
    assert len(found.scores) == len(observation().scores) + 4


def test_a_gain_is_the_score_above_its_zero_point():
    def row(metric, layer, value, undefined=None):
        return {"metric": metric, "layer": layer, "level": "local", "value": value, "undefined": undefined}

    zero = {"rows": [row("m", "backbone.c4", 1.5), row("m", "backbone.c3", None, "NaN features"), row("half", "backbone.c3", 1.0), row("other", "x", 1.0)]}
    found = with_gains(observation(), zero)
    gain = gain_of("m")
    assert found.scores[gain, "backbone.c4", "local"] == 2.5
    assert found.undefined[gain, "backbone.c3", "local"] == "its zero point is undefined: NaN features"
    assert found.undefined[gain_of("half"), "backbone.c3", "local"] == "one class"
    assert (gain, "backbone.c5", "local") not in {**found.scores, **found.undefined}
    assert {p: v for p, v in found.scores.items() if not p[0].startswith("gain")} == observation().scores
