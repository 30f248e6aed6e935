import pytest

from models_store.manifest import Layer
from worker.features.errors import Unextractable
from worker.features.layers import LAYER_HELP, choose, common

C3 = Layer("backbone.c3", 8, 32, "map", True)
C4 = Layer("backbone.c4", 16, 96, "map", True)
C5 = Layer("backbone.c5", 32, 320, "map", True)
P4 = Layer("neck.p4", 16, 256, "map", False)
HEAD = Layer("head.penultimate", None, 1024, "vector", False)
DETECTOR = (C3, C4, C5, P4, HEAD)


@pytest.mark.parametrize(
    ("asked", "names", "warnings"),
    [
        (None, ["backbone.c4"], 0),
        (("all",), ["backbone.c3", "backbone.c4", "backbone.c5"], 1),
        (("all", "neck.p4"), ["backbone.c3", "backbone.c4", "backbone.c5", "neck.p4"], 2),
        (("backbone.c5", "backbone.c3", "backbone.c5"), ["backbone.c3", "backbone.c5"], 0),
        (("head.penultimate",), ["head.penultimate"], 1),
    ],
)
def test_choice(asked, names, warnings):
    chosen = choose(DETECTOR, asked)
    assert [layer.name for layer in chosen.layers] == names
    assert len(chosen.warnings) == warnings


def test_without_the_default_the_nearest_stride_is_read_and_said():
    chosen = choose((C3, C5, P4), None)
    assert [layer.name for layer in chosen.layers] == ["backbone.c3"]
    assert "backbone.c3" in chosen.warnings[0]


def test_an_untrained_default_is_read_with_a_warning():
    control = Layer("backbone.c4", 16, 96, "map", False)
    chosen = choose((C3, control), None)
    assert chosen.layers == (control,)
    assert "untrained" in chosen.warnings[0]


@pytest.mark.parametrize(
    ("available", "asked", "code"),
    [
        (DETECTOR, ("backbone.c7",), "unknown_layer"),
        (DETECTOR, ("all", "nowhere"), "unknown_layer"),
        (DETECTOR, (), "no_layers"),
        ((P4, HEAD), ("all",), "no_layers"),
        ((P4, HEAD), None, "no_layers"),
        ((), None, "no_layers"),
    ],
)
def test_what_cannot_be_read_is_refused_with_what_there_is(available, asked, code):
    with pytest.raises(Unextractable) as caught:
        choose(available, asked)
    assert caught.value.code == code
    assert all(layer.name in caught.value.detail for layer in available if code == "unknown_layer")


def test_common_layers_are_trained_everywhere():
    assert common([DETECTOR, (C4, C5, HEAD)]) == ("backbone.c4", "backbone.c5")
    assert common([]) == ()


def test_every_layer_name_of_the_published_system_has_help():
    published = [f"backbone.c{k}" for k in range(1, 6)] + [f"neck.p{k}" for k in range(2, 6)]
    assert set(published) | {"neck.roi", "head.penultimate"} <= set(LAYER_HELP)
