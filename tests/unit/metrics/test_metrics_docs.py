"""docs/metrics.md says what the code says, and the registry says it completely."""

from pathlib import Path

import pytest

from worker.metrics import METRICS, Options
from worker.metrics.docs import metrics_markdown
from worker.metrics.gbc import GbcOptions
from worker.metrics.parc import ParcOptions

PAGE = Path(__file__).parents[3] / "docs" / "metrics.md"
KINDS = {"features", "labels", "boxes", "source_probabilities", "regions"}


def test_the_page_is_up_to_date():
    assert PAGE.read_text(encoding="utf-8") == metrics_markdown(), "run python -m worker.metrics.docs"


@pytest.mark.parametrize("name", METRICS)
def test_every_metric_is_explained(name):
    m = METRICS[name]
    assert m.name == name
    assert m.needs <= KINDS
    assert all((m.title, m.summary, m.formula, m.paper, m.null, m.invariant))
    assert m.higher_is_better
    assert m.pool_relative == bool(m.terms) == (m.pooled is not None)
    assert (m.compute is None) == (m.pool_relative or bool(m.sum_of))
    assert (m.rows == "objects") == ("regions" not in m.needs)
    assert all(t in METRICS and not METRICS[t].pool_relative for t in m.terms)
    assert f"### `{name}`" in metrics_markdown()


SETTINGS = [Options, *dict.fromkeys(m.options for m in METRICS.values() if m.options)]


@pytest.mark.parametrize("settings", SETTINGS)
def test_every_parameter_is_explained(settings):
    assert [f for f in settings.__dataclass_fields__ if f not in settings.__doc__] == []


def test_settings_of_a_method_are_passed_by_their_class():
    options = Options(methods=(ParcOptions(objects=50),))
    assert options.of(ParcOptions).objects == 50
    assert options.of(GbcOptions) == GbcOptions()
    with pytest.raises(ValueError, match="two settings of one method: ParcOptions"):
        Options(methods=(ParcOptions(), ParcOptions(objects=50)))
