"""A study of real candidates on real datasets, on the spot: every candidate scored and fine-tuned on every dataset.

Everything is in plain folders (converted checkpoints, canonical datasets), so a notebook, the command line and the
service's handlers can use it alike. What is done is kept in the work folder and not done again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from models_store.manifest import Manifest
from worker.data.dataset import open_dataset
from worker.features.extract import Spec
from worker.features.layers import LEVELS
from worker.metrics import METRICS
from worker.metrics.baselines import static_scores
from worker.studies.default_rule import DEFAULT_RULE, with_default_rule
from worker.studies.document import Table
from worker.studies.errors import StudyRefused
from worker.studies.files import read_json, write_json
from worker.studies.observations import Observation, Place
from worker.studies.parallel import Progress, Task, carry_out
from worker.studies.parts import score_part, tune_part
from worker.studies.scoring import pooled
from worker.studies.study import Study, section

Key = tuple[str, str]  # dataset, candidate
EVERYTHING = Spec(layers=("all",), levels=LEVELS, source_probabilities=True)


@dataclass(frozen=True)
class Settings:
    """What is the same for all. recipe, overrides: of the plan of every fine-tuning; max_train: training images at most,
    the same for every candidate and seed; spec: what is read for the scores."""

    recipe: str = "quick"
    overrides: Mapping[str, Any] = field(default_factory=dict)
    seeds: tuple[int, ...] = (0,)
    max_train: int | None = None
    spec: Spec = EVERYTHING
    metrics: tuple[str, ...] = tuple(METRICS)


@dataclass(frozen=True)
class RealStudy:
    """What was found: dataset and candidate to scores, and to each seed's fine-tuning. manifests: by candidate."""

    settings: Settings
    manifests: Mapping[str, Manifest]
    scores: Mapping[Key, Mapping[str, Any]]
    tunings: Mapping[Key, Mapping[int, Mapping[str, Any]]]

    def observations(self) -> list[Observation]:
        """All of which no part failed; `left_out` names the others."""
        lost = self.left_out()
        found = []
        for dataset in dict.fromkeys(d for d, _ in self.scores):
            whole = [c for d, c in self.scores if d == dataset and (d, c) not in lost]
            values = pooled({c: self.scores[dataset, c]["rows"] for c in whole}, self.settings.metrics)
            for candidate in whole:
                key = (dataset, candidate)
                found.append(
                    Observation(
                        dataset,
                        candidate,
                        values[candidate][0],
                        self._static(key),
                        {seed: result["map"] for seed, result in self.tunings[key].items()},
                        values[candidate][1],
                    )
                )
        return found

    def left_out(self) -> dict[Key, str]:
        """Candidates without scores or without a fine-tuning on a dataset, and why."""
        found = {}
        for key, scores in self.scores.items():
            errors = [part["error"] for part in (scores, *self.tunings[key].values()) if "error" in part]
            if errors:
                found[key] = errors[0]
        return found

    def _static(self, key: Key) -> dict[str, float | None]:
        figures = {**self.manifests[key[1]].published, "parameters": self.scores[key]["parameters"]}
        return {name: each.value for name, each in static_scores(figures).items()}


def run(
    datasets: Mapping[str, Path],
    candidates: Mapping[str, Path],
    work: Path,
    settings: Settings,
    *,
    workers: int = 1,
    device: str = "cpu",
    progress: Progress = lambda done, total, message: None,
    check: Callable[[], None] = lambda: None,
) -> RealStudy:
    """Score and fine-tune what is not done yet in the folder `work`, and read all of it.

    `datasets`: name to a folder in canonical form; `candidates`: name to a folder of a converted checkpoint. More of both
    may be added later. Raises StudyRefused where `work` holds a study with other settings, and for a name that is no
    name of a file.
    """
    if bad := [name for name in (*datasets, *candidates) if not name or name.startswith(".") or {"/", "\\", "\0"} & set(name)]:
        raise StudyRefused("bad_file", f"{bad}: results are kept in files of these names; leave out slashes and a first dot")
    _same_settings(work, settings)
    manifests = {name: Manifest.read(folder) for name, folder in candidates.items()}
    contents = {f"dataset {name}": open_dataset(folder).digest for name, folder in datasets.items()}
    contents |= {f"candidate {name}": manifest.weights_sha256 for name, manifest in manifests.items()}
    _same_contents(work, contents)
    keys = [(d, c) for d in datasets for c in candidates]
    tasks = []
    for d, c in keys:
        done = _scores(work, (d, c))
        arguments = (candidates[c], datasets[d], settings.spec, settings.metrics, device, done)
        tasks.append(Task(f"scores of {c} on {d}", score_part, arguments, done))
    # a whole seed before the next: an interrupted study has one seed of everything sooner
    for seed in settings.seeds:
        for d, c in keys:
            done = _tuning(work, (d, c), seed)
            overrides = {**settings.overrides, "seed": seed}
            arguments = (candidates[c], datasets[d], settings.recipe, overrides, settings.max_train, device, done)
            tasks.append(Task(f"{c} fine-tuned on {d}, seed {seed}", tune_part, arguments, done))
    carry_out(tasks, workers, progress, check)
    return RealStudy(
        settings,
        manifests,
        {key: read_json(_scores(work, key)) for key in keys},
        {key: {seed: read_json(_tuning(work, key, seed)) for seed in settings.seeds} for key in keys},
    )


def study_of(
    real: RealStudy, title: str, text: Sequence[str] = (), facts: Sequence[tuple[str, str]] = (), *,
    featured: Sequence[Place] = (), bootstrap: int = 1000, seed: int = 0,
) -> Study:  # fmt: skip
    """The study as a report wants it. Raises StudyRefused."""
    rows = with_default_rule(real.observations())
    settings = real.settings
    known = (
        ("recipe", settings.recipe),
        ("budget", ", ".join(f"{k} {v}" for k, v in settings.overrides.items()) or "the recipe's own"),
        ("training images", "all" if settings.max_train is None else f"at most {settings.max_train}"),
        ("seeds", ", ".join(map(str, settings.seeds))),
        ("truth", "mAP@[.5:.95] of the best epoch by validation, on test images looked at once; mean over seeds"),
        ("seconds of training", f"{_seconds(real):.0f} in all"),
        ("seconds of scoring", f"{sum(s['seconds']['features'] + s['seconds']['scores'] for s in real.scores.values() if 'seconds' in s):.0f} in all"),
    )
    part = section("ranking", "Ranking candidates for a dataset", [], rows, featured=featured or (DEFAULT_RULE,), bootstrap=bootstrap, seed=seed)
    tables = [("mAP of the fine-tuned candidates", "One figure for each seed.", _map_table(real))]
    if lost := real.left_out():
        rows_ = tuple((d, c, why) for (d, c), why in lost.items())
        tables.append(("Left out", "", Table(("dataset", "candidate", "why"), rows_)))
    return Study(title, tuple(text), (*known, *facts), (part,), tuple(tables))


def _map_table(real: RealStudy) -> Table:
    datasets = tuple(dict.fromkeys(d for d, _ in real.scores))
    rows = []
    for candidate in real.manifests:
        cells = []
        for dataset in datasets:
            maps = [r.get("map") for r in real.tunings[dataset, candidate].values()]
            cells.append(", ".join(f"{m:.3f}" for m in maps if m is not None) or "–")
        rows.append((candidate, *cells))
    return Table(("candidate", *datasets), tuple(rows))


def _seconds(real: RealStudy) -> float:
    return sum(result.get("seconds", 0.0) for seeds in real.tunings.values() for result in seeds.values())


def _scores(work: Path, key: Key) -> Path:
    return work / "scores" / f"{key[1]}-on-{key[0]}.json"


def _tuning(work: Path, key: Key, seed: int) -> Path:
    return work / "tunings" / f"{key[1]}-on-{key[0]}-{seed}.json"


def _same_settings(work: Path, settings: Settings) -> None:
    # more seeds may follow: each has files of its own
    about = {k: v for k, v in asdict(settings).items() if k != "seeds"}
    path = work / "settings.json"
    if not path.exists():
        write_json(path, about)
    elif read_json(path) != read_json(write_json(work / "asked.json", about)):
        raise StudyRefused("other_study", f"{work} holds a study with other settings: name another folder")


def _same_contents(work: Path, contents: Mapping[str, str]) -> None:
    path = work / "contents.json"
    kept = read_json(path) if path.exists() else {}
    if changed := [name for name, digest in contents.items() if kept.get(name, digest) != digest]:
        raise StudyRefused(
            "other_study", f"{', '.join(changed)} changed since {work} was begun: give it another name, or name another folder"
        )
    write_json(path, {**kept, **contents})
