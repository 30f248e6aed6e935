"""What docs/metrics.md says of a metric in words and numbers, held against what the metric does."""

import re

import numpy as np
import pytest

from worker.metrics import METRICS, FeatureSet, score
from worker.metrics.coding_rate import CodingRateOptions
from worker.metrics.etran import EtranOptions
from worker.metrics.gbc import GbcOptions
from worker.metrics.n_leep import NLeepOptions
from worker.metrics.ncti import NctiOptions
from worker.metrics.parc import ParcOptions
from worker.metrics.sfda import SfdaOptions

# (metric, pattern in its formula, the setting that the number is)
NUMBERS = [
    ("transrate", r"eps = (\S+?),", CodingRateOptions().epsilon),
    ("n_leep", r"mixture of (\d+)C", NLeepOptions().components),
    ("n_leep", r"hold (\d+) %", 100 * NLeepOptions().energy),
    ("parc", r"the (\d+) standardised", ParcOptions().dims),
    ("gbc", r"on (\d+) principal", GbcOptions().dims),
    ("sfda", r"exp\(-(\d+) l1", SfdaOptions().decay),
    ("sfda", r"l1\(Sw\)\), (\S+?)\)", SfdaOptions().floor),
    ("ncti_separation", r"on (\d+) principal", NctiOptions().dims),
    ("etran_energy", r"over the (\S+) %", EtranOptions().energy_per_mille / 10),
]


@pytest.mark.parametrize(("name", "pattern", "setting"), NUMBERS)
def test_numbers_of_a_formula_are_the_settings(name, pattern, setting):
    found = re.search(pattern, METRICS[name].formula)
    assert found, METRICS[name].formula
    assert float(found[1]) == pytest.approx(setting)


def noise(n, d, c, seed=0):
    """Features that know nothing of balanced classes and of boxes, and source probabilities that neither do."""
    rng = np.random.default_rng(seed)
    low = rng.uniform(0, 0.5, (n, 2))
    boxes = np.hstack([low, low + rng.uniform(0.1, 0.4, (n, 2))])
    labels = rng.permutation(np.arange(n) % c)
    return FeatureSet(rng.standard_normal((n, d)), labels, boxes, rng.dirichlet(np.ones(5), n))


def reached(f, *names):
    found = {name: s.value for name, s in score(f, names).items()}
    return found[names[0]] if len(names) == 1 else found


@pytest.mark.parametrize(("classes", "null"), [(2, -1.07), (10, -0.27), (80, 0.78)])
@pytest.mark.parametrize("dims", [16, 256])
def test_null_of_logme(classes, null, dims):
    f = noise(2000, dims, classes)
    assert reached(f, "logme") == pytest.approx(null, abs=0.01)
    assert str(null) in METRICS["logme"].null


def test_null_of_logme_boxes_is_the_second_moment_alone():
    for dims in (8, 128):
        f = noise(1000, dims, 3)
        alone = -0.5 * np.log(2 * np.pi * np.e * np.square(f.boxes).mean(axis=0)).mean()
        assert reached(f, "logme_boxes") == pytest.approx(alone, abs=0.01)


def test_nulls_of_h_scores():
    f = noise(4000, 40, 8)
    found = reached(f, "h_score", "h_score_adjusted", "h_score_regularized")
    assert found["h_score"] == pytest.approx(7 * 40 / 3999, rel=0.25)
    assert found["h_score_adjusted"] == pytest.approx(0.0, abs=0.03)
    assert found["h_score_regularized"] == pytest.approx(0.0, abs=0.03)


def test_nulls_near_the_entropy_and_the_frequencies_of_the_labels():
    f = noise(4000, 12, 4)
    small = FeatureSet(f.features * 0.01, f.labels, f.boxes, f.source_probabilities)
    found = reached(small, "leep", "nce", "etran_classification", "sfda", "ncti_accuracy")
    assert found["leep"] == pytest.approx(-np.log(4), abs=0.01)
    assert found["nce"] == pytest.approx(-np.log(4), abs=0.01)
    for name in ("etran_classification", "sfda", "ncti_accuracy"):
        assert found[name] == pytest.approx(0.25, abs=0.02), name
    assert 0 < reached(noise(600, 6, 3), "n_leep") + np.log(3) < 0.1


def test_nulls_of_overlap():
    f = noise(6000, 8, 3)
    assert reached(f, "gbc") == pytest.approx(-3 * 2, abs=0.05)
    assert reached(f, "parc") == pytest.approx(0.0, abs=1.0)
    mean = np.square(f.boxes).mean()
    assert reached(noise(400, 100, 3), "etran_regression") == pytest.approx(-(1 - 100 / 400) * mean, rel=0.05)


def test_null_of_transrate_grows_with_dimensions():
    found = [reached(noise(1000, dims, 10), "transrate") for dims in (64, 2048)]
    assert found == pytest.approx([13, 4200], rel=0.03)


def test_null_of_iou_logme_is_the_average_box():
    f = noise(2000, 10, 3)
    with_offset = FeatureSet(np.hstack([f.features, np.ones((2000, 1)) * 3]), f.labels, f.boxes)
    average = np.broadcast_to(f.boxes.mean(axis=0), f.boxes.shape)
    low, high = np.maximum(average[:, :2], f.boxes[:, :2]), np.minimum(average[:, 2:], f.boxes[:, 2:])
    inside = np.clip(high - low, 0, None).prod(axis=1)
    areas = [(b[:, 2:] - b[:, :2]).prod(axis=1) for b in (average, f.boxes)]
    overlap = (inside / (areas[0] + areas[1] - inside)).mean()
    assert reached(with_offset, "iou_logme") == pytest.approx(overlap, abs=0.02)
