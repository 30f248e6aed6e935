"""In how many parts the images of a candidate are read."""

import math
from typing import Any

from app.db.tables import Dataset

MOST = 256


def resolved(request: dict[str, Any], dataset: Dataset) -> dict[str, Any]:
    """The normalised request of a ranking with `shards` as a number: what it asks for, else by the size of the sample."""
    each = request.get("shard_images")
    kept = {name: value for name, value in request.items() if name != "shard_images"}
    shards = request.get("shards")
    if shards is None:
        images = images_of(request, dataset)
        shards = min(MOST, math.ceil(images / each)) if each and images else 1
    return kept | {"shards": max(1, shards)}


def images_of(request: dict[str, Any], dataset: Dataset) -> int:
    """At most so many images are sampled: training images, whether they hold an object or not."""
    train = ((dataset.summary or {}).get("splits") or {}).get("train") or {}
    images = int(train.get("images") or 0)
    most = request.get("max_images")
    return images if most is None else min(images, most)
