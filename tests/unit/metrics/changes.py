"""Changes of a candidate's features or targets that a metric may or may not notice."""

import dataclasses

import numpy as np

from worker.metrics import FeatureSet


def on_features(change):
    """A change of the features (n, D) of objects and, drawn alike, of regions."""

    def changed(f, seed):
        regions = f.regions
        if regions is not None:
            own = change(regions.features, np.random.default_rng(seed))
            regions = dataclasses.replace(regions, features=own)
        x = change(f.features, np.random.default_rng(seed))
        return FeatureSet(x, f.labels, f.boxes, f.source_probabilities, f.image_ids, regions)

    return changed


def order_of_objects(f, seed):
    rng = np.random.default_rng(seed)
    regions = f.regions
    if regions is not None:
        regions = regions.rows(rng.permutation(len(regions.labels)))
    return dataclasses.replace(f.rows(rng.permutation(len(f.labels))), regions=regions)


def class_ids(f, seed):
    new = np.random.default_rng(seed).permutation(30)
    regions = f.regions
    if regions is not None:
        labels = np.where(regions.jittered, new[regions.labels], 30)
        regions = dataclasses.replace(regions, labels=labels)
    return FeatureSet(f.features, new[f.labels], f.boxes, f.source_probabilities, f.image_ids, regions)


def rotated(x, rng):
    return x @ np.linalg.qr(rng.standard_normal((x.shape[1],) * 2))[0]


def mapped(x, rng):
    d = x.shape[1]
    return x @ (np.eye(d) + 0.3 * rng.standard_normal((d, d)) / np.sqrt(d)) * rng.uniform(0.3, 3, d)


CHANGES = {
    "objects": order_of_objects,
    "names": class_ids,
    "columns": on_features(lambda x, rng: x[:, rng.permutation(x.shape[1])]),
    "scale": on_features(lambda x, rng: x * 10.0 ** rng.uniform(-8, 8)),
    "shift": on_features(lambda x, rng: x + rng.uniform(-1e4, 1e4, x.shape[1]) * x.std()),
    "rotation": on_features(rotated),
    "linear": on_features(mapped),
    "repeated": on_features(lambda x, rng: np.hstack([x, x])),
    "zeros": on_features(lambda x, rng: np.hstack([x, np.zeros((len(x), 3))])),
}
