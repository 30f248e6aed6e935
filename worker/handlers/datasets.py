"""The datasets that jobs work with: whole, or the sample of one whose pictures stay where they are."""

import hashlib
import json
import os
import shutil
import uuid
import zipfile
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from app.db import tables
from app.errors import DetrankError, SourceChanged, Unavailable, UnusableDataset
from app.settings import Settings
from worker.attempt import Attempt
from worker.data.dataset import Dataset, open_dataset
from worker.data.sources.base import Source, SourceError
from worker.data.sources.kept import KeptPictures
from worker.data.sources.pinned import Pinned
from worker.data.sources.places import source_at
from worker.data.sources.sample import fetch_sample, look_again
from worker.files import kept_folder, unpacked_dataset
from worker.handlers.inputs import archive_of

# The ids of the images that a job works with, of all that a dataset has.
Choose = Callable[[Dataset], Collection[int]]


def every_image(dataset: Dataset) -> list[int]:
    """Of those that learn from all pictures, or look at all."""
    return [image.id for image in dataset.images]


@contextmanager
def dataset_folder(attempt: Attempt, dataset: tables.Dataset, choose: Choose) -> Iterator[Path]:
    """A folder for `open_dataset`: the whole dataset, or, where its pictures stay elsewhere, the images that `choose` names.

    Of those the ids stay what they are; the ones that turned out to be unusable are missing (`left_out`). Raises SourceChanged
    and Unavailable.
    """
    cache, most = attempt.settings.cache_dir / "datasets", attempt.settings.dataset_cache_bytes
    with unpacked_dataset(
        cache, attempt.store, archive_of(dataset), max_bytes=most, check=attempt.check
    ) as packed:
        if dataset.stays_at is None:
            yield packed
            return
        pinned = Pinned.load(packed)
        ids = sorted(choose(pinned.as_dataset(packed)))
        with kept_folder(
            cache,
            _name(pinned, ids),
            lambda folder: _fetch(attempt, pinned, ids, folder),
            max_bytes=most,
            check=attempt.check,
        ) as folder:
            with source_errors():
                look_again(pinned, source_of(attempt.settings, pinned.url), ids, attempt.check)
            yield folder


def annotations_of(attempt: Attempt, dataset: tables.Dataset, folder: Path) -> Dataset:
    """The dataset without its pictures, for drawing samples and counting; `folder` is one to write into."""
    with (
        attempt.store.open(archive_of(dataset)) as file,
        zipfile.ZipFile(file) as archive,
    ):
        names = ["annotations.json"] if dataset.stays_at is None else Pinned.FILES
        for name in names:
            with archive.open(name) as source, (folder / name).open("wb") as copy:
                while piece := source.read(1 << 20):
                    copy.write(piece)
    return open_dataset(folder) if dataset.stays_at is None else Pinned.load(folder).as_dataset(folder)


def left_out(root: Path, dataset: tables.Dataset) -> str | None:
    """A sentence on fetched pictures of a sample that could not be used; None where there are none."""
    if dataset.stays_at is None:
        return None
    report = json.loads((root / "report.json").read_text(encoding="utf-8"))
    gone = [fault for fault in report["faults"] if fault["action"] == "dropped"]
    if not report["images_dropped"]:
        return None
    return (
        f"{report['images_dropped']} pictures of the sample were fetched and could not be used, such as {gone[0]['file']}: "
        f"{gone[0]['reason']}"
    )


def kept_pictures(settings: Settings) -> KeptPictures:
    """Where this host keeps pictures that were fetched."""
    return KeptPictures(settings.cache_dir / "pictures", settings.picture_cache_bytes)


def source_of(settings: Settings, url: str) -> Source:
    """The place where pictures stay. Raises SourceError."""
    return source_at(url, private=settings.fetch_from_private)


@contextmanager
def source_errors(offline: type[DetrankError] = Unavailable) -> Iterator[None]:
    """Turns a source's refusals into the job's failure; `offline`: the failure where this host cannot reach the source."""
    try:
        yield
    except SourceError as refusal:
        if refusal.code == "changed":
            raise SourceChanged(refusal.detail) from refusal
        if refusal.code == "unreachable":
            raise Unavailable(refusal.detail) from refusal
        kind = offline if refusal.code == "offline" else UnusableDataset
        raise kind(refusal.detail, code=f"source_{refusal.code}") from refusal


def _name(pinned: Pinned, ids: Collection[int]) -> str:
    return hashlib.sha256(f"{pinned.digest} {pinned.url} {ids}".encode()).hexdigest()


def _fetch(attempt: Attempt, pinned: Pinned, ids: Collection[int], folder: Path) -> None:
    attempt.stage("fetching")
    kept = kept_pictures(attempt.settings)
    beside = folder.with_name(f"{folder.name}.{uuid.uuid4().hex}.part")
    beside.mkdir()
    try:
        with source_errors():
            fetch_sample(
                pinned,
                source_of(attempt.settings, pinned.url),
                ids,
                beside,
                kept=kept,
                progress=attempt.counted("images"),
                check=attempt.check,
            )
        os.rename(beside, folder)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    kept.make_room()
