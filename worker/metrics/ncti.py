"""NCTI: how close the features are to neural collapse.

Source: Wang et al., "How Far Pre-trained Models Are from Neural Collapse on the Target Dataset Informs their
Transferability", ICCV 2023. Three terms on 64 principal components after linear discriminant analysis, each
scaled to [0, 1] over the pool of candidates: the score of a candidate changes when another joins.
"""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from worker.metrics.arrays import Floats, Ints
from worker.metrics.base import Undefined, Value, scaled_over_pool
from worker.metrics.changes import ALWAYS
from worker.metrics.metric import Metric, Pooled
from worker.metrics.prepared import Prepared
from worker.metrics.targets import Targets


@dataclass(frozen=True)
class NctiOptions:
    """Settings of NCTI (2023).

    dims: principal components. shrinkage_dims: those whose variance sets the shrinkage. floor: its least value.
    """

    dims: int = 64
    shrinkage_dims: int = 32
    floor: float = 1e-10


def _terms(prepared: Prepared, targets: Targets) -> tuple[float, float, float]:
    """Nuclear norm of the discriminant features, mean probability of the true class, and log of the summed
    nuclear norms of the classes' probabilities."""
    labels = targets.require_labels()
    prepared.require_variance()
    n, classes = prepared.objects, len(targets.counts)
    if n <= classes:
        raise Undefined(f"{n} objects for {classes} classes: linear discriminant analysis needs more objects")
    terms: tuple[float, float, float]
    terms = prepared.kept(targets, "ncti", lambda: _compute_terms(prepared, labels))
    return terms


def _compute_terms(prepared: Prepared, labels: Ints) -> tuple[float, float, float]:
    options = prepared.options.of(NctiOptions)
    values, scores = prepared.principal(options.dims)
    variance = float(values[: options.shrinkage_dims].sum()) / (prepared.objects - 1)
    shrinkage = max(float(np.exp(-variance)), options.floor)
    # scikit-learn takes a second to import, which only this metric and N-LEEP should pay.
    analysis = importlib.import_module("sklearn.discriminant_analysis").LinearDiscriminantAnalysis
    if shrinkage == options.floor:
        model = analysis(solver="svd")
    else:
        model = analysis(solver="eigen", shrinkage=shrinkage)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a class of one object has no covariance, here as published
        try:
            features = model.fit_transform(scores, labels)
            p = model.predict_proba(scores)
        except (ValueError, IndexError, np.linalg.LinAlgError) as error:
            raise Undefined(
                f"linear discriminant analysis finds no spread within the classes: {error}"
            ) from error
    spread = float(np.linalg.norm(features - features.mean(axis=0), ord="nuc"))
    collapse = sum(float(np.linalg.norm(p[labels == c], ord="nuc")) for c in range(p.shape[1]))
    return spread, float(p[np.arange(len(labels)), labels].mean()), float(np.log(collapse))


def ncti_separation(prepared: Prepared, targets: Targets) -> Value:
    """Nuclear norm of the centred discriminant features."""
    return Value(_terms(prepared, targets)[0])


def ncti_accuracy(prepared: Prepared, targets: Targets) -> Value:
    """Mean probability of the true class."""
    return Value(_terms(prepared, targets)[1])


def ncti_compactness(prepared: Prepared, targets: Targets) -> Value:
    """Minus the log of the summed nuclear norms of the probabilities of each class."""
    return Value(-_terms(prepared, targets)[2])


def combine(terms: Mapping[str, Floats]) -> Floats:
    """NCTI of every candidate from the terms of all."""
    scaled = {name: scaled_over_pool(values) for name, values in terms.items()}
    # The paper subtracts the scaled variability, which is 1 - the scaled compactness.
    return scaled["ncti_separation"] + scaled["ncti_accuracy"] + scaled["ncti_compactness"] - 1.0


PAPER = "Wang et al.: How Far Pre-trained Models Are from Neural Collapse, ICCV 2023"
NEEDS = frozenset({"features", "labels"})

METRICS = (
    Metric(
        name="ncti_separation",
        title="NCTI, separation",
        needs=NEEDS,
        summary="First term of NCTI: how far the discriminant features of the objects spread.",
        formula="nuclear norm of the centred features of linear discriminant analysis on 64 principal components",
        paper=PAPER,
        null="grows with N and C: compare candidates on the same objects only",
        unchanged=ALWAYS | {"shift", "rotation"},
        compute=ncti_separation,
        options=NctiOptions,
    ),
    Metric(
        name="ncti_accuracy",
        title="NCTI, accuracy",
        needs=NEEDS,
        summary="Second term of NCTI: mean probability of the true class.",
        formula="mean_i p(y_i | x_i) of the same analysis",
        paper=PAPER,
        null="near the sum of the squared class frequencies",
        unchanged=ALWAYS | {"shift", "rotation"},
        compute=ncti_accuracy,
        options=NctiOptions,
    ),
    Metric(
        name="ncti_compactness",
        title="NCTI, compactness",
        needs=NEEDS,
        summary="Third term of NCTI: how little the probabilities vary within the classes.",
        formula="- log sum_c nuclear norm of the class probabilities of the objects of class c",
        paper=PAPER,
        null="grows with N and C: compare candidates on the same objects only",
        unchanged=ALWAYS | {"shift", "rotation"},
        compute=ncti_compactness,
        options=NctiOptions,
    ),
    Metric(
        name="ncti",
        title="NCTI",
        needs=NEEDS,
        summary="How close the features are to neural collapse, relative to the other candidates.",
        formula="separation + accuracy + compactness - 1, each scaled to [0, 1] over the pool",
        paper=PAPER,
        null="none: relative to the pool",
        unchanged=ALWAYS | {"shift", "rotation"},
        pooled=Pooled(("ncti_separation", "ncti_accuracy", "ncti_compactness"), combine),
    ),
)
