"""TransRate: how many more bits the features take than the features of one class.

Source: Huang et al., "Frustratingly Easy Transferability Estimation", ICML 2022, arXiv 2106.09362, as the
published code computes it: all features centred by their common mean, and the classes averaged with equal
weight 1/C.
"""

from __future__ import annotations

from worker.metrics.arrays import Floats
from worker.metrics.base import Value
from worker.metrics.changes import ALWAYS
from worker.metrics.coding_rate import CodingRateOptions
from worker.metrics.metric import Metric
from worker.metrics.prepared import Prepared
from worker.metrics.targets import Targets


def transrate(prepared: Prepared, targets: Targets) -> Value:
    """R(Z) minus the mean over classes of R(Z_c), in nats."""
    rates = class_rates(prepared, targets)
    return Value(whole_rate(prepared) - float(rates.mean()), singleton_note(targets))


def transrate_weighted(prepared: Prepared, targets: Targets) -> Value:
    """R(Z) minus the mean of R(Z_c) weighted by n_c / N: the coding rate reduction of Yu et al. 2020."""
    rates = class_rates(prepared, targets)
    weights = targets.counts / targets.counts.sum()
    return Value(whole_rate(prepared) - float(weights @ rates), singleton_note(targets))


def class_rates(prepared: Prepared, targets: Targets) -> Floats:
    """(C,) coding rates of the classes, once for both forms."""
    targets.require_labels()
    prepared.require_variance()
    rates: Floats = prepared.kept(targets, "class_rates", lambda: prepared.class_rates(targets))
    return rates


def whole_rate(prepared: Prepared) -> float:
    """Coding rate of all objects, from the centred spectrum."""
    return 0.5 * prepared.spectrum.centred.logdet(
        prepared.objects * prepared.options.of(CodingRateOptions).epsilon
    )


def singleton_note(targets: Targets) -> tuple[str, ...]:
    alone = int((targets.counts == 1).sum())
    return (f"{alone} classes have one object: their coding rate is that of a single point",) if alone else ()


METRICS = (
    Metric(
        name="transrate",
        title="TransRate",
        needs=frozenset({"features", "labels"}),
        summary="Coding rate of all features less the mean coding rate within a class.",
        formula="R(Z) - 1/C sum_c R(Z_c), R(Z) = 1/2 logdet(I + Z'Z/(n eps)), eps = 1e-4, Z centred globally",
        paper="Huang et al.: Frustratingly Easy Transferability Estimation, ICML 2022, arXiv 2106.09362",
        null="grows with D and 1/N (13 to 4200 nats from D = 64 to 2048 at N = 1000): never compare different D",
        unchanged=ALWAYS | {"shift", "rotation", "zeros"},
        compute=transrate,
        options=CodingRateOptions,
        reads=frozenset({"coding_rates"}),
    ),
    Metric(
        name="transrate_weighted",
        title="TransRate, class-weighted",
        needs=frozenset({"features", "labels"}),
        summary="TransRate with every class counted by its objects: the form for imbalanced classes.",
        formula="R(Z) - sum_c (n_c / N) R(Z_c), with R and Z as in TransRate",
        paper="Yu et al.: Learning Diverse and Discriminative Representations, NeurIPS 2020, arXiv 2006.08558",
        null="grows with D and 1/N: never compare different D",
        unchanged=ALWAYS | {"shift", "rotation", "zeros"},
        compute=transrate_weighted,
        options=CodingRateOptions,
        reads=frozenset({"coding_rates"}),
    ),
)
