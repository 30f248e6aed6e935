import json
from types import SimpleNamespace

from app.services import recipes as app_recipes
from models_store.archs import ARCHITECTURES
from worker import catalogue
from worker.data.formats import READERS
from worker.features.layers import LAYER_HELP, SOURCE_LAYER
from worker.metrics.registry import METRICS
from worker.ranking.rule import PREFERRED_LAYERS, PREFERRED_METRICS
from worker.training.recipe import default_recipe, fitting, recipes


def test_the_committed_file_is_what_the_code_says():
    assert catalogue.PATH.read_text(encoding="utf-8") == catalogue.text(), "run: python -m worker.catalogue"


def test_it_lists_everything_that_can_be_asked_for():
    listed = json.loads(catalogue.text())
    assert [entry["name"] for entry in listed["metrics"]] == list(METRICS)
    assert [entry["name"] for entry in listed["layers"]] == [*LAYER_HELP, SOURCE_LAYER]
    # the one that is not to be asked for says which metrics stand there
    assert {entry["name"]: entry["metrics"] for entry in listed["layers"] if "metrics" in entry} == {
        SOURCE_LAYER: ["leep", "nce"]
    }
    assert {entry["name"] for entry in listed["architectures"]} == set(ARCHITECTURES)
    assert [entry["name"] for entry in listed["formats"]["datasets"]] == list(READERS)
    assert [entry["name"] for entry in listed["recipes"]] == list(recipes())


def test_every_architecture_has_a_recipe_by_default_and_each_recipe_a_length():
    listed = catalogue.catalogue()
    for architecture in ARCHITECTURES:
        manifest = SimpleNamespace(architecture=architecture)
        assert default_recipe(manifest).name in [entry["name"] for entry in listed["recipes"]]
        assert app_recipes.fitting(architecture) == list(fitting(manifest))
        assert app_recipes.default_recipe(architecture) == default_recipe(manifest).name
    for entry in listed["recipes"]:
        assert (entry["epochs"] is None) != (entry["iterations"] is None)


def test_defaults_and_preferences_exist():
    assert set(catalogue.DEFAULT_METRICS) | set(PREFERRED_METRICS) <= set(METRICS)
    assert set(PREFERRED_LAYERS) == {*LAYER_HELP, SOURCE_LAYER}
    listed = catalogue.catalogue()
    assert {entry["name"] for entry in listed["metrics"] if entry["default"]} == set(
        catalogue.DEFAULT_METRICS
    )
    assert not any(entry["pool_relative"] for entry in listed["metrics"] if entry["default"])
    assert any(entry["default"] for entry in listed["layers"])
    assert listed["defaults"]["level"] in listed["levels"]
