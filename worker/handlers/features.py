"""A candidate's features or statistics: from this host's cache, from storage, from the parts of its shards, or read now."""

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from app.settings import Settings
from worker.data.pixels import PixelCache
from worker.features.cache import path_of
from worker.features.extract import Features, cached_features, extract, keep_features
from worker.features.reading import Reading
from worker.features.shards import Part, Took, images_of_shard, joined, key_of_part, load_part, read_vectors
from worker.features.statistics import Places, gathered, key_of_statistics, read_statistics
from worker.handlers import feature_files
from worker.handlers.candidate import InHand
from worker.metrics.gathering import Design
from worker.step import Step


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
    """What is to be got of a candidate in hand, in how many parts.

    design: of statistics; None where features are kept. what: before each line of progress, where it is not the candidate.
    """

    step: Step
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
            keep_features(features, reading, self._cache, self.step.settings.feature_cache_bytes)
        self._share(reading.key, path_of(self._cache, reading.key))
        return features

    def statistics(self) -> tuple[Places, Took, bool]:
        """What was gathered by layer and level, what that took, and whether it was there before."""
        there = self.shards == 1 and self._find_file(self.key(0), self._cache)
        return *gathered(self.hand.reading, self._parts()), there

    def is_known(self, position: int) -> bool:
        """Whether nobody needs to read this part: it is there, or all features are."""
        whole = self.hand.reading.key
        if self.design is None and feature_files.is_there(self.step, whole):
            return True
        if self.design is None and self.step.settings.embedded and path_of(self._cache, whole).exists():
            return True
        return feature_files.is_there(self.step, self.key(position))

    def parts_are_spent(self) -> bool:
        """Whether the parts of shards are of no more use: every host finds the whole, as it finds the parts."""
        whole = self.hand.reading.key
        embedded = self.step.settings.embedded and path_of(self._cache, whole).exists()
        return (
            self.design is None and self.shards > 1 and (embedded or feature_files.is_there(self.step, whole))
        )

    def key(self, position: int) -> str:
        reading, design = self.hand.reading, self.design
        if design is None:
            return key_of_part(reading, position, self.shards)
        return key_of_statistics(reading, design, position, self.shards)

    def read(self, position: int) -> Part:
        """Reads the images of a part."""
        reading, step = self.hand.reading, self.step
        images = images_of_shard(reading, position, self.shards)
        how = {
            "decode_threads": step.settings.decode_threads,
            "pixels": pixels_of(step.settings),
            "progress": self._progress,
            "check": step.check,
        }
        if self.design is None:
            return self._with_room(lambda: read_vectors(reading, images, **how))
        return self._with_room(lambda: read_statistics(reading, images, self.design, **how))

    def _extract(self) -> Features:
        reading, step = self.hand.reading, self.step
        return extract(
            reading.detector,
            reading.dataset,
            reading.spec,
            cache=self._cache,
            cache_max_bytes=step.settings.feature_cache_bytes,
            device=self.hand.device,
            precision=reading.precision,
            pixels=pixels_of(step.settings),
            decode_threads=step.settings.decode_threads,
            progress=self._progress,
            check=step.check,
        )

    def _parts(self) -> Iterator[Part]:
        """Every part, one by one: as its shard left it in storage, else read now."""
        for position in range(self.shards):
            self.step.check()
            key, folder = self.key(position), self._cache if self.shards == 1 else self.hand.scratch
            part = load_part(folder, key) if self._find_file(key, folder) else None
            if part is None:
                part = self.read(position)
                if self.shards == 1:
                    self._share(key, part.save(folder, key, self.step.settings.feature_cache_bytes))
            elif self.shards > 1:
                path_of(folder, key).unlink(missing_ok=True)
            yield part

    def _find_file(self, key: str, folder: Path) -> bool:
        return path_of(folder, key).exists() or feature_files.fetch(self.step, key, folder) is not None

    def _share(self, key: str, path: Path) -> None:
        """Other hosts find it in storage; embedded there are none, and the cache has it already."""
        settings = self.step.settings
        if settings.embedded or not path.exists() or path.stat().st_size > settings.shared_file_bytes:
            return
        feature_files.keep(self.step, key, path)

    def _progress(self, done: int, total: int, message: str) -> None:
        self.step.progress(done, total, "images", f"{self.what}{message}")

    @property
    def _cache(self) -> Path:
        return self.step.settings.cache_dir / "features"

    def _with_room(self, work):
        return self.hand.models.with_room(self.hand.reading.detector, work)
