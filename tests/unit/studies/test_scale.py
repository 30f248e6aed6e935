"""Scales of the synthetic benchmark: all readable, and `paper` is what was published."""

import pytest

from worker.features.layers import LAYER_HELP
from worker.metrics import METRICS
from worker.studies import StudyRefused
from worker.studies.runs.scale import scale_named, scales


@pytest.mark.parametrize("name", scales())
def test_every_scale_names_what_there_is(name):
    scale = scale_named(name)
    assert set(scale.layers) <= set(LAYER_HELP)
    assert set(scale.metrics) <= set(METRICS)
    for kind in ("pretraining", "transfer"):
        recipe = scale.recipe(kind)
        recipe.checked()
        assert recipe.batch_size == scale.batch_size
    assert [phase.freeze for phase in scale.pretraining] == ["backbone", "none"]
    assert {phase.freeze for phase in scale.transfer} == {"backbone"}


def test_paper_is_the_published_setting():
    paper = scale_named("paper")
    assert (paper.image_size, paper.min_size, paper.max_size, paper.max_objects) == (128, 15, 50, 5)
    assert (paper.train_images, paper.test_images, paper.feature_images) == (10_000, 1_000, 1_000)
    assert paper.network_size == (800, 1333)
    assert [(p.epochs, p.lr) for p in (*paper.pretraining, *paper.transfer)] == [
        (10, 1e-4),
        (20, 1e-5),
        (5, 1e-4),
    ]
    recipe = paper.recipe("transfer")
    assert (recipe.optimiser, recipe.weight_decay, recipe.batch_size, recipe.schedule) == (
        "adam",
        0.0,
        8,
        "plateau",
    )


def test_an_unknown_scale_is_refused():
    with pytest.raises(StudyRefused, match="paper, small, tiny"):
        scale_named("huge")
