"""A ranking's request in the words of the libraries."""

import pytest

from models_store.manifest import Layer
from worker.features.regions import RegionSampling
from worker.handlers.ranking.request import rank_by_of, spec_of
from worker.ranking.records import RankBy

MAPS = ["backbone.c2", "backbone.c3", "backbone.c4", "backbone.c5"]


def layers(*names: str, untrained: str = "") -> list[Layer]:
    return [Layer(name, 16, 8, "map", name != untrained) for name in names]


@pytest.mark.parametrize(
    ("available", "read"),
    [
        (layers("backbone.c1", *MAPS, "neck.p4"), tuple(MAPS)),
        (layers("backbone.c4"), ("backbone.c4",)),
        (layers("backbone.c3", "backbone.c4", untrained="backbone.c4"), ("backbone.c3",)),
        # none of them: what the library reads nearby
        (layers("encoder.memory"), None),
        ([], None),
    ],
)
def test_of_layers_that_nobody_named_a_candidate_is_read_where_it_has_them(available, read):
    assert spec_of({"layers": MAPS, "layers_by_default": True}, available).layers == read


def test_layers_named_must_be_there():
    request = {"layers": ["backbone.c2", "neck.p4"], "layers_by_default": False}
    assert spec_of(request, layers("backbone.c2")).layers == ("backbone.c2", "neck.p4")
    assert spec_of({"layers": ["all"]}, layers("backbone.c2")).layers == ("all",)


def test_regions_as_they_were_asked_for():
    assert spec_of({}).regions is None
    assert spec_of({"regions": None}).regions is None
    asked = {"jittered": 2, "background": 6, "hard": 0.5, "shift": 0.1, "scale": 0.2}
    assert spec_of({"regions": asked}).regions == RegionSampling(2, 6, 0.5, 0.1, 0.2)


def test_rank_by():
    assert rank_by_of({}) == RankBy()
    assert rank_by_of({"rank_by": {"metric": None, "layer": "size_matched", "level": None}}) == RankBy(
        layer="size_matched"
    )
