"""A real study as data: one TOML file that names datasets, candidates and the budget, made ready to run."""

from __future__ import annotations

import tempfile
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import models_store
from worker.data.faults import Unusable as UnusableDataset
from worker.data.ingest import ingest
from worker.features.errors import Unextractable
from worker.features.regions import RegionSampling
from worker.features.spec import Spec
from worker.metrics import METRICS
from worker.studies.errors import StudyRefused
from worker.studies.measures.layer_rules import RULES, rule_named
from worker.studies.measures.question import Question
from worker.studies.measures.scoring import ON_OBJECTS
from worker.studies.measures.zero_point import SEED, with_zero_point
from worker.studies.runs.bodies import random_body
from worker.studies.runs.carried import carrying, must_be_made, task_of
from worker.studies.runs.parallel import carry_out, with_eta
from worker.studies.runs.real import StudySettings

KEYS = {
    "title",
    "text",
    "recipe",
    "plan",
    "seeds",
    "max_train_images",
    "feature_images",
    "feature_size",
    "layers",
    "levels",
    "metrics",
    "datasets",
    "candidates",
    "more_candidates",
    "extends",
    "regions",
    "zero_point",
    "zero_point_seed",
    "probe",
    "metrics_by_size",
    "choose_on",
    "choose_metrics",
    "layer_rules",
    "plans",
    "only",
}
CANDIDATE_KEYS = {
    "name",
    "source",
    "sha256",
    "random",
    "seed",
    "architecture",
    "published",
    "overrides",
    "trained_on",
    "training",
}
# no key of a file
_NAMED = "named datasets"


@dataclass(frozen=True)
class StudyFile:
    """`datasets`: name to where it lies; `candidates`: as in the file. question: what is chosen on which datasets, None
    where nothing is. plans: by name what each changes of `settings.overrides`; where there are any, the study
    compares them and scores nothing. named: datasets of this file and of those that it extends, for a part of a study
    has candidates that were trained on datasets of the whole."""

    title: str
    text: tuple[str, ...]
    settings: StudySettings
    datasets: Mapping[str, str]
    candidates: tuple[Mapping[str, Any], ...]
    question: Question | None = None
    plans: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    named: Mapping[str, str] = field(default_factory=dict)


def read_study(path: Path) -> StudyFile:
    """Raises StudyRefused `bad_file` for what a study file cannot say."""
    raw = _raw(path)
    for candidate in raw.get("candidates", []):
        if "name" not in candidate or ("source" in candidate) == ("random" in candidate):
            raise StudyRefused(
                "bad_file",
                f"{path}: a candidate has a name, and either a source or random = a backbone: {candidate}",
            )
        _must_be_trainable(path, candidate, raw[_NAMED])
    names = [candidate["name"] for candidate in raw.get("candidates", [])]
    if len(set(names)) < len(names) or len(names) < 2 or not raw.get("datasets"):
        raise StudyRefused(
            "bad_file", f"{path}: at least two candidates of different names and one dataset are needed"
        )
    settings = _settings(path, raw)
    return StudyFile(
        raw.get("title", path.stem),
        tuple(raw.get("text", ())),
        settings,
        raw["datasets"],
        _only(path, raw),
        _question(path, raw, settings),
        _plans(path, raw),
        raw[_NAMED],
    )


def _must_be_trainable(path: Path, candidate: Mapping[str, Any], named: Mapping[str, str]) -> None:
    name, training = candidate["name"], candidate.get("training", {})
    if "trained_on" not in candidate:
        if "training" in candidate:
            raise StudyRefused("bad_file", f"{path}: {name} has training but no trained_on: name its dataset")
        return
    if candidate["trained_on"] not in named:
        raise StudyRefused(
            "bad_file",
            f"{path}: {name} is trained_on {candidate['trained_on']}, which is no dataset of the study: {', '.join(named)}",
        )
    if not isinstance(training, dict):
        raise StudyRefused(
            "bad_file", f"{path}: training of {name} is a table such as {{ iterations = 480 }}: {training}"
        )
    if "published" in candidate:
        raise StudyRefused(
            "bad_file",
            f"{path}: {name} is trained here, so what is published of its source is not published of it: leave it out",
        )


def _raw(path: Path, above: tuple[Path, ...] = ()) -> dict[str, Any]:
    """The file's values, over those of the file that it extends, and under `_NAMED` the datasets of all of them.

    `above`: files that extend this one.
    """
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise StudyRefused("bad_file", f"{path} cannot be read: {error}") from None
    more = raw.pop("more_candidates", [])
    unknown = sorted(set(raw) - KEYS) + sorted(
        k for c in (*raw.get("candidates", []), *more) for k in set(c) - CANDIDATE_KEYS
    )
    if unknown:
        raise StudyRefused(
            "bad_file",
            f"{path}: {', '.join(unknown)} mean nothing here; known: {', '.join(sorted(KEYS | CANDIDATE_KEYS))}",
        )
    own = raw.get("datasets", {})
    if "extends" not in raw:
        return {**raw, "candidates": [*raw.get("candidates", []), *more], _NAMED: own}
    below = (path.parent / raw["extends"]).resolve()
    above = (*above, path.resolve())
    if below in above:
        raise StudyRefused(
            "bad_file", f"{path} extends {raw['extends']}, which extends {path}: one has to stand alone"
        )
    extended = _raw(below, above)
    candidates = [*raw.get("candidates", extended["candidates"]), *more]
    return {**extended, **raw, "candidates": candidates, _NAMED: {**extended[_NAMED], **own}}


def _only(path: Path, raw: Mapping[str, Any]) -> tuple[Mapping[str, Any], ...]:
    """The candidates, or of them those that `only` names, in its order."""
    by_name = {candidate["name"]: candidate for candidate in raw["candidates"]}
    names = raw.get("only", list(by_name))
    if unknown := [name for name in names if name not in by_name]:
        raise StudyRefused("bad_file", f"{path}: only names no candidate of the study: {', '.join(unknown)}")
    return tuple(by_name[name] for name in names)


def _plans(path: Path, raw: Mapping[str, Any]) -> Mapping[str, Mapping[str, Any]]:
    plans = raw.get("plans", {})
    if "plans" in raw and len(plans) < 2:
        raise StudyRefused(
            "bad_file", f"{path}: plans names at least two, the first is what others are held against"
        )
    return plans


def _settings(path: Path, raw: Mapping[str, Any]) -> StudySettings:
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
        raise StudyRefused(
            "bad_file", f"{path}: there is no metric {', '.join(unknown)}; there are {', '.join(METRICS)}"
        )
    if refused := sorted(set(by_size) - set(with_zero_point(by_size))):
        raise StudyRefused(
            "bad_file",
            f"{path}: {', '.join(refused)} cannot be scored by size: they read no features, or need a pool",
        )
    return StudySettings(
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


def _question(path: Path, raw: Mapping[str, Any], settings: StudySettings) -> Question | None:
    if "choose_on" not in raw:
        return None
    chosen_on = tuple(raw["choose_on"])
    if unknown := sorted(set(chosen_on) - set(raw["datasets"])):
        raise StudyRefused(
            "bad_file", f"{path}: choose_on names no dataset of the study: {', '.join(unknown)}"
        )
    if not chosen_on or set(chosen_on) == set(raw["datasets"]):
        raise StudyRefused(
            "bad_file",
            f"{path}: choose_on leaves some datasets to prove the choice on, and names at least one",
        )
    metrics = tuple(raw.get("choose_metrics", with_zero_point(settings.metrics)))
    if unknown := sorted(set(metrics) - set(with_zero_point(settings.metrics))):
        raise StudyRefused(
            "bad_file",
            f"{path}: choose_metrics names what the study does not score for one candidate alone: {', '.join(unknown)}",
        )
    untrained = frozenset(c["name"] for c in raw["candidates"] if "random" in c)
    rules = tuple(rule_named(name) for name in raw.get("layer_rules", RULES))
    return Question(chosen_on, metrics, rules, untrained, settings.zero_point)


def make_ready(
    study: StudyFile,
    data: Path,
    work: Path,
    say: Callable[[str], None] = lambda line: None,
    *,
    workers: int = 1,
    device: str = "cpu",
) -> tuple[dict[str, Path], dict[str, Path]]:
    """Folders of the datasets in canonical form and of the converted candidates, in `work`; made once.

    Paths of the file are below `data`. Candidates with `trained_on` are trained, `workers` at once. Raises StudyRefused for
    a dataset that cannot be read or a candidate that cannot be trained, models_store.Unusable for one that cannot
    be converted.
    """
    wanted = dict(study.datasets)
    wanted |= {name: study.named[name] for c in study.candidates if (name := c.get("trained_on"))}
    for name, where in wanted.items():
        folder = work / "datasets" / name
        if not (folder / "annotations.json").exists():
            say(f"reading {name}")
            _ingest(data / where, folder)
    candidates, trained = {}, []
    for each in study.candidates:
        folder = candidates[each["name"]] = work / "candidates" / each["name"]
        if own := carrying(each, study.settings.recipe, study.settings.overrides, work):
            trained.append(own)
            folder = own.base
        if not (folder / "manifest.json").exists():
            say(f"converting {each['name']}")
            _convert(each, data, folder)
    tasks = [task_of(asked, device) for asked in trained]
    if not all(task.done.exists() for task in tasks):
        carry_out(tasks, workers, with_eta(say))
    for asked in trained:
        must_be_made(asked)
    return {name: work / "datasets" / name for name in study.datasets}, candidates


def made_ready(study: StudyFile, work: Path) -> tuple[dict[str, Path], dict[str, Path]]:
    """Of the folders of `make_ready` those that are there."""
    datasets = {name: work / "datasets" / name for name in study.datasets}
    candidates = {each["name"]: work / "candidates" / each["name"] for each in study.candidates}
    return (
        {name: folder for name, folder in datasets.items() if (folder / "annotations.json").exists()},
        {name: folder for name, folder in candidates.items() if (folder / "manifest.json").exists()},
    )


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
            path = random_body(
                candidate["random"], Path(beside) / "random.safetensors", candidate.get("seed", 0)
            )
            architecture = architecture or candidate["random"]
            overrides.setdefault("provenance", {"trained_on": "nothing: the library's own initial weights"})
        elif "://" in candidate["source"]:
            uri = candidate["source"]
            path = models_store.fetch(uri, Path(beside), sha256=sha256).path
        else:
            path = data / candidate["source"]
        made = Path(beside) / "made"
        manifest = models_store.convert(
            path, made, architecture=architecture, uri=uri, sha256=sha256, overrides=overrides
        )
        if "published" in candidate:
            manifest.but(published={**manifest.published, **candidate["published"]}).write(made)
        made.rename(folder)
