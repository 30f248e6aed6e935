"""The table of docs/metrics.md, both ways: what is promised to leave a score alone does, and what is not does not."""

import dataclasses

import numpy as np
import pytest
from changes import CHANGES
from hypothesis import given, settings
from hypothesis import strategies as st
from plain_metrics import draw, draw_regions

from worker.metrics import METRICS, FeatureSet, score
from worker.metrics import changes as words

DRAWN = [m for m in METRICS.values() if not m.pool_relative]
SLOW = {"n_leep"}  # fits of a mixture
SHAPES = {"objects": [(240, 10, 4), (260, 30, 3)], "regions": [(400, 8, 3), (320, 24, 2)]}


def of(metric, shape, seed):
    return draw(*shape, seed=seed) if metric.rows == "objects" else draw_regions(*shape, seed=seed)


def shapes_of(metric):
    return SHAPES["objects" if metric.rows == "objects" else "regions"]


def value(f, name):
    found = score(f, [name])[name]
    assert found.undefined is None, (name, found.undefined)
    return found.value


def test_the_words_are_those_of_the_changes():
    assert set(CHANGES) == set(words.CHANGES)


@pytest.mark.parametrize("name", [m.name for m in DRAWN])
def test_what_is_promised_leaves_the_score_alone(name):
    metric = METRICS[name]

    @settings(max_examples=2 if name in SLOW else 6, deadline=None)
    @given(st.sampled_from(shapes_of(metric)), st.integers(0, 10_000))
    def hold(shape, seed):
        f = of(metric, shape, seed)
        before = value(f, name)
        for change in sorted(metric.unchanged):
            after = value(CHANGES[change](f, seed), name)
            assert after == pytest.approx(before, rel=1e-6, abs=1e-8), change

    hold()


@pytest.mark.parametrize("name", [m.name for m in DRAWN])
def test_what_is_not_promised_changes_the_score(name):
    metric = METRICS[name]
    for change in sorted(set(CHANGES) - metric.unchanged):
        differences = []
        for seed in range(3):
            f = of(metric, shapes_of(metric)[0], seed)
            before = value(f, name)
            differences.append(abs(value(CHANGES[change](f, seed), name) - before) / max(abs(before), 1e-3))
        assert max(differences) > 1e-5, f"{change} never changes it: promise it"


@pytest.mark.parametrize("name", [m.name for m in DRAWN])
def test_single_precision(name):
    metric = METRICS[name]
    for seed in range(2):
        f = of(metric, shapes_of(metric)[0], seed)
        regions = f.regions
        if regions is not None:
            regions = dataclasses.replace(regions, features=regions.features.astype(np.float32))
        x = f.features.astype(np.float32)
        stored = FeatureSet(x, f.labels, f.boxes, f.source_probabilities, f.image_ids, regions)
        assert value(stored, name) == pytest.approx(value(f, name), rel=1e-5, abs=1e-7)


@pytest.mark.parametrize("metric", [m for m in METRICS.values() if m.pooled], ids=lambda m: m.name)
def test_a_pool_promises_what_all_its_terms_promise(metric):
    assert metric.unchanged == frozenset.intersection(*(METRICS[term].unchanged for term in metric.terms))


@pytest.mark.parametrize("metric", [m for m in METRICS.values() if m.sum_of], ids=lambda m: m.name)
def test_a_sum_promises_what_its_named_terms_promise(metric):
    named = [METRICS[part.name].unchanged for part in metric.sum_of.terms if part.name in METRICS]
    assert all(metric.unchanged <= of_term for of_term in named)
