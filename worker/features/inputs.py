"""Pictures as a network takes them, kept in memory for the next network that takes them alike."""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Callable, Hashable

from torch import Tensor

from models_store.detector import Detector
from models_store.sizes import Size

# 273 pictures of 256 x 320; the network of a training takes more
MOST_BYTES = 256 << 20


class InputCache:
    """Batches of prepared pictures, at most `max_bytes` of them, those of the group used last. For one thread.

    A group is a dataset as one kind of network takes it. Readings go through it from its first batch to its last, so what
    has no room is not kept: if it took the place of an earlier batch, none would be left when the next reading comes to it.
    """

    def __init__(self, max_bytes: int = MOST_BYTES) -> None:
        self.max_bytes = max_bytes
        self._kept: OrderedDict[Hashable, dict[Hashable, tuple[Tensor, int]]] = OrderedDict()

    @property
    def held_bytes(self) -> int:
        return sum(_size(tensor) for group in self._kept.values() for tensor, _ in group.values())

    def get(self, group: Hashable, batch: Hashable, make: Callable[[], Tensor]) -> Tensor:
        """The batch, kept or made now. A kept one that somebody wrote into is made again."""
        own = self._kept.setdefault(group, {})
        self._kept.move_to_end(group)
        found = own.pop(batch, None)
        if found is None or found[0]._version != found[1]:
            made = make()
            found = made, made._version
        while len(self._kept) > 1 and self.held_bytes + _size(found[0]) > self.max_bytes:
            self._kept.popitem(last=False)
        if self.held_bytes + _size(found[0]) <= self.max_bytes:
            own[batch] = found
        return found[0]

    def clear(self) -> None:
        self._kept.clear()


def group_of(dataset_digest: str, detector: Detector, image_size: Size | None) -> Hashable:
    """Equal where two detectors make the same of a picture of the dataset."""
    manifest = detector.manifest
    options = json.dumps(dict(manifest.options), sort_keys=True, default=str)
    device = next(detector.module.parameters()).device
    return dataset_digest, type(detector), manifest.architecture, options, manifest.input, image_size, device


def _size(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()
