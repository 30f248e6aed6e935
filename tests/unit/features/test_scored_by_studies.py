"""A study reads a detector that lacks one of the layers asked for at the others, and says so."""

import pytest

from worker.features.errors import Unextractable
from worker.features.spec import Spec
from worker.studies.measures.scoring import ScoringSpec, score_detector


def scored(detector, dataset, *layers):
    return score_detector(detector, dataset, ScoringSpec(Spec(layers=layers, levels=("local",)), ("logme",)))


def test_a_layer_that_a_detector_lacks_costs_it_no_other(detector, dataset):
    both = scored(detector, dataset, "backbone.c3", "backbone.c9")
    one = scored(detector, dataset, "backbone.c3")
    assert [row["layer"] for row in both["rows"]] == ["backbone.c3"]
    assert both["rows"][0]["value"] == one["rows"][0]["value"]
    assert [note for note in both["warnings"] if "backbone.c9" in note]
    assert not [note for note in one["warnings"] if "backbone.c9" in note]


def test_one_that_has_none_of_them_is_refused(detector, dataset):
    with pytest.raises(Unextractable, match=r"backbone\.c9"):
        scored(detector, dataset, "backbone.c9")
