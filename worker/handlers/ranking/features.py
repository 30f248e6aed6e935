"""A candidate's features or statistics: from this host's cache, from storage, from the parts of its shards, or read now."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from app.settings import Settings
from worker.attempt import Attempt
from worker.data.pixels import PixelCache
from worker.features import cache as store
from worker.features.cache import path_of
from worker.features.extract import Features, cached_features, extract, keep_features
from worker.features.reading import Reading
from worker.features.shards import (
    ReadPart,
    Took,
    images_of_shard,
    joined,
    key_of_part,
    load_part,
    read_vectors,
)
from worker.features.statistics import Places, gathered, key_of_statistics, read_statistics
from worker.handlers.ranking import feature_files
from worker.handlers.ranking.candidate import InHand
from worker.metrics.gathering import Design

T = TypeVar("T")


def keeps_features(asked: bool | None, reading: Reading, settings: Settings) -> bool:
    """Whether the features are kept: as asked for, else where the tables of all layers take no more than is allowed."""
    if asked is not None:
        return asked
    channels = {layer.name: layer.channels for layer in reading.chosen.layers}
    values = len(reading.objects) * len(reading.spec.levels) * sum(channels.values())
    if reading.regions is not None:
        values += len(reading.regions) * sum(channels[name] for name in reading.region_layers)
    return 4 * values <= settings.feature_table_bytes


def pixels_of(settings: Settings) -> PixelCache:
    """Where this host keeps decoded pictures."""
    return PixelCache(settings.cache_dir / "pixels", settings.pixel_cache_bytes)


@dataclass(frozen=True)
class Wanted:
    """What to read of an opened candidate, and in how many parts.

    design: of statistics; None where features are kept. what: begins each line of progress where it is not the candidate.
    """

    attempt: Attempt
    hand: InHand
    shards: int = 1
    design: Design | None = None
    what: str = ""

    def features(self) -> Features:
        """All features; new ones are in this host's cache afterwards, and in storage for the others."""
        reading, started = self.hand.reading, time.perf_counter()
        if self._find_file(reading.key, self._cache):
            found = cached_features(reading, self._cache)
            if found is not None:
                self._progress(len(reading.images), len(reading.images), "features from the cache")
                return found
        if self.shards == 1:
            features = self._with_room(self._extract)
        else:
            features = joined(reading, self._parts())
            seconds = features.seconds | {"total": round(time.perf_counter() - started, 4)}
            features = replace(features, seconds=seconds)
            keep_features(features, reading, self._cache, self.attempt.settings.feature_cache_bytes)
        self._share(reading.key, path_of(self._cache, reading.key))
        return features

    def statistics(self) -> tuple[Places, Took, bool]:
        """What was gathered by layer and level, what that took, and whether it was there before."""
        there = self.shards == 1 and self._find_file(self.key(0), self._cache)
        return *gathered(self.hand.reading, self._parts()), there

    def is_known(self, position: int) -> bool:
        """Whether this part need not be read: it, or the whole features, exist already."""
        whole = self.hand.reading.key
        if self.design is None and feature_files.is_there(self.attempt, whole):
            return True
        if self.design is None and self.attempt.settings.embedded and path_of(self._cache, whole).exists():
            return True
        return feature_files.is_there(self.attempt, self.key(position))

    def parts_are_spent(self) -> bool:
        """Whether the parts of shards are no longer needed: every host can find the whole."""
        whole = self.hand.reading.key
        embedded = self.attempt.settings.embedded and path_of(self._cache, whole).exists()
        return (
            self.design is None
            and self.shards > 1
            and (embedded or feature_files.is_there(self.attempt, whole))
        )

    def key(self, position: int) -> str:
        reading, design = self.hand.reading, self.design
        if design is None:
            return key_of_part(reading, position, self.shards)
        return key_of_statistics(reading, design, position, self.shards)

    def read(self, position: int) -> ReadPart:
        """Reads the images of a part."""
        reading, attempt = self.hand.reading, self.attempt
        images = images_of_shard(reading, position, self.shards)
        read = read_vectors if self.design is None else partial(read_statistics, design=self.design)
        return self._with_room(
            lambda: read(
                reading,
                images,
                decode_threads=attempt.settings.decode_threads,
                pixels=pixels_of(attempt.settings),
                inputs=self.hand.models.inputs,
                progress=self._progress,
                check=attempt.check,
            )
        )

    def kept(self, key: str) -> tuple[dict[str, np.ndarray], dict[str, Any]] | None:
        """Arrays and facts that were computed from such features and kept under `key`; None where they are not there."""
        return store.load(self._cache, key) if self._find_file(key, self._cache) else None

    def keep(self, key: str, arrays: dict[str, np.ndarray], facts: dict[str, Any]) -> None:
        """Keeps them as features are kept: here and for other hosts, forgotten when long unused."""
        self._share(
            key, store.save(self._cache, key, arrays, facts, self.attempt.settings.feature_cache_bytes)
        )

    def _extract(self) -> Features:
        attempt = self.attempt
        return extract(
            self.hand.reading,
            cache=self._cache,
            cache_max_bytes=attempt.settings.feature_cache_bytes,
            pixels=pixels_of(attempt.settings),
            inputs=self.hand.models.inputs,
            decode_threads=attempt.settings.decode_threads,
            progress=self._progress,
            check=attempt.check,
        )

    def _parts(self) -> Iterator[ReadPart]:
        """Every part, one by one: as its shard left it in storage, else read now."""
        for position in range(self.shards):
            self.attempt.check()
            key, folder = self.key(position), self._cache if self.shards == 1 else self.hand.scratch
            part = load_part(folder, key) if self._find_file(key, folder) else None
            if part is None:
                part = self.read(position)
                if self.shards == 1:
                    self._share(key, part.save(folder, key, self.attempt.settings.feature_cache_bytes))
            elif self.shards > 1:
                path_of(folder, key).unlink(missing_ok=True)
            yield part

    def _find_file(self, key: str, folder: Path) -> bool:
        return path_of(folder, key).exists() or feature_files.fetch(self.attempt, key, folder) is not None

    def _share(self, key: str, path: Path) -> None:
        """Other hosts find it in storage; embedded there are none, and the cache has it already."""
        settings = self.attempt.settings
        if settings.embedded or not path.exists() or path.stat().st_size > settings.shared_file_bytes:
            return
        feature_files.keep(self.attempt, key, path)

    def _progress(self, done: int, total: int, message: str) -> None:
        self.attempt.progress(done, total, "images", f"{self.what}{message}")

    @property
    def _cache(self) -> Path:
        return self.attempt.settings.cache_dir / "features"

    def _with_room(self, work: Callable[[], T]) -> T:
        return self.hand.models.with_room(self.hand.reading.detector, work)
