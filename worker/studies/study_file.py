"""A real study as data: one TOML file that names datasets, candidates and the budget, made ready to run."""

from __future__ import annotations

import tempfile
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import models_store
from worker.data.faults import Unusable as UnusableDataset
from worker.data.ingest import ingest
from worker.features.errors import Unextractable
from worker.features.extract import Spec
from worker.features.regions import RegionSampling
from worker.metrics import METRICS
from worker.studies.bodies import random_body
from worker.studies.errors import StudyRefused
from worker.studies.layer_rules import RULES, rule_named
from worker.studies.question import Question
from worker.studies.real import Settings
from worker.studies.scoring import ON_OBJECTS
from worker.studies.zero_point import SEED, with_zero_point

KEYS = {
    "title", "text", "recipe", "plan", "seeds", "max_train_images", "feature_images", "feature_size", "layers", "levels",
    "metrics", "datasets", "candidates", "extends", "regions", "zero_point", "zero_point_seed", "probe", "metrics_by_size", "choose_on",
    "choose_metrics", "layer_rules",
}  # fmt: skip
CANDIDATE_KEYS = {"name", "source", "sha256", "random", "seed", "architecture", "published", "overrides"}


@dataclass(frozen=True)
class StudyFile:
    """`datasets`: name to where it lies; `candidates`: as in the file. question: what is chosen on which datasets, None
    where nothing is."""

    title: str
    text: tuple[str, ...]
    settings: Settings
    datasets: Mapping[str, str]
    candidates: tuple[Mapping[str, Any], ...]
    question: Question | None = None


def read_study(path: Path) -> StudyFile:
    """Raises StudyRefused `bad_file` for what a study file cannot say."""
    raw = _raw(path)
    for candidate in raw.get("candidates", []):
        if "name" not in candidate or ("source" in candidate) == ("random" in candidate):
            raise StudyRefused("bad_file", f"{path}: a candidate has a name, and either a source or random = a backbone: {candidate}")
    names = [candidate["name"] for candidate in raw.get("candidates", [])]
    if len(set(names)) < len(names) or len(names) < 2 or not raw.get("datasets"):
        raise StudyRefused("bad_file", f"{path}: at least two candidates of different names and one dataset are needed")
    settings = _settings(path, raw)
    return StudyFile(
        raw.get("title", path.stem), tuple(raw.get("text", ())), settings, raw["datasets"], tuple(raw["candidates"]),
        _question(path, raw, settings),
    )  # fmt: skip


def _raw(path: Path, *, extended: bool = False) -> dict[str, Any]:
    """The file's values, over those of the file that it extends."""
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise StudyRefused("bad_file", f"{path} cannot be read: {error}") from None
    unknown = sorted(set(raw) - KEYS) + sorted(k for c in raw.get("candidates", []) for k in set(c) - CANDIDATE_KEYS)
    if unknown:
        raise StudyRefused("bad_file", f"{path}: {', '.join(unknown)} mean nothing here; known: {', '.join(sorted(KEYS | CANDIDATE_KEYS))}")
    if "extends" not in raw:
        return raw
    if extended:
        raise StudyRefused("bad_file", f"{path} is extended by another file and cannot extend one itself")
    return {**_raw(path.parent / raw["extends"], extended=True), **raw}


def _settings(path: Path, raw: Mapping[str, Any]) -> Settings:
    try:
        regions = RegionSampling(**raw["regions"]) if "regions" in raw else None
    except (TypeError, Unextractable) as error:
        raise StudyRefused("bad_file", f"{path}: regions: {getattr(error, 'detail', error)}") from None
    spec = Spec(
        layers=tuple(raw.get("layers", ("all",))),
        levels=tuple(raw.get("levels", ("local", "global"))),
        max_images=raw.get("feature_images"),
        image_size=raw.get("feature_size"),
        source_probabilities=True,
        regions=regions,
    )
    metrics = tuple(raw.get("metrics", ON_OBJECTS if regions is None else METRICS))
    by_size = tuple(raw.get("metrics_by_size", ()))
    if unknown := sorted({*metrics, *by_size} - set(METRICS)):
        raise StudyRefused("bad_file", f"{path}: there is no metric {', '.join(unknown)}; there are {', '.join(METRICS)}")
    if refused := sorted(set(by_size) - set(with_zero_point(by_size))):
        raise StudyRefused("bad_file", f"{path}: {', '.join(refused)} cannot be scored by size: they read no features, or need a pool")
    return Settings(
        recipe=raw.get("recipe", "quick"),
        overrides=raw.get("plan", {}),
        seeds=tuple(raw.get("seeds", (0,))),
        max_train=raw.get("max_train_images"),
        spec=spec,
        metrics=metrics,
        by_size=by_size,
        zero_point=raw.get("zero_point", False),
        zero_point_seed=raw.get("zero_point_seed", SEED),
        probe=raw.get("probe"),
    )


def _question(path: Path, raw: Mapping[str, Any], settings: Settings) -> Question | None:
    if "choose_on" not in raw:
        return None
    chosen_on = tuple(raw["choose_on"])
    if unknown := sorted(set(chosen_on) - set(raw["datasets"])):
        raise StudyRefused("bad_file", f"{path}: choose_on names no dataset of the study: {', '.join(unknown)}")
    if not chosen_on or set(chosen_on) == set(raw["datasets"]):
        raise StudyRefused("bad_file", f"{path}: choose_on leaves some datasets to prove the choice on, and names at least one")
    metrics = tuple(raw.get("choose_metrics", with_zero_point(settings.metrics)))
    if unknown := sorted(set(metrics) - set(with_zero_point(settings.metrics))):
        raise StudyRefused("bad_file", f"{path}: choose_metrics names what the study does not score for one candidate alone: {', '.join(unknown)}")
    untrained = frozenset(c["name"] for c in raw["candidates"] if "random" in c)
    rules = tuple(rule_named(name) for name in raw.get("layer_rules", RULES))
    return Question(chosen_on, metrics, rules, untrained, settings.zero_point)


def make_ready(
    study: StudyFile, data: Path, work: Path, say: Callable[[str], None] = lambda line: None
) -> tuple[dict[str, Path], dict[str, Path]]:
    """Folders of the datasets in canonical form and of the converted candidates, in `work`; made once.

    Paths of the file are below `data`. Raises StudyRefused for a dataset that cannot be read, models_store.Unusable for
    a candidate that cannot be converted.
    """
    datasets, candidates = {}, {}
    for name, where in study.datasets.items():
        datasets[name] = work / "datasets" / name
        if not (datasets[name] / "annotations.json").exists():
            say(f"reading {name}")
            _ingest(data / where, datasets[name])
    for each in study.candidates:
        folder = candidates[each["name"]] = work / "candidates" / each["name"]
        if not (folder / "manifest.json").exists():
            say(f"converting {each['name']}")
            _convert(each, data, folder)
    return datasets, candidates


def _ingest(source: Path, folder: Path) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as beside:
        canonical = Path(beside) / "canonical"
        canonical.mkdir()
        try:
            ingest(source, canonical)
        except (UnusableDataset, OSError) as refusal:
            raise StudyRefused("bad_dataset", f"{source}: {refusal}") from refusal
        canonical.rename(folder)


def _convert(candidate: Mapping[str, Any], data: Path, folder: Path) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    overrides = dict(candidate.get("overrides", {}))
    with tempfile.TemporaryDirectory(dir=folder.parent) as beside:
        architecture, uri, sha256 = candidate.get("architecture"), None, candidate.get("sha256")
        if "random" in candidate:
            path = random_body(candidate["random"], Path(beside) / "random.safetensors", candidate.get("seed", 0))
            architecture = architecture or candidate["random"]
            overrides.setdefault("provenance", {"trained_on": "nothing: the library's own initial weights"})
        elif "://" in candidate["source"]:
            uri = candidate["source"]
            path = models_store.fetch(uri, Path(beside), sha256=sha256).path
        else:
            path = data / candidate["source"]
        made = Path(beside) / "made"
        manifest = models_store.convert(path, made, architecture=architecture, uri=uri, sha256=sha256, overrides=overrides)
        if "published" in candidate:
            manifest.but(published={**manifest.published, **candidate["published"]}).write(made)
        made.rename(folder)
