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
from worker.data.dataset import Dataset, open_dataset
from worker.data.object_sizes import sides_in
from worker.features.layers import LEVELS
from worker.features.reading import FEATURES_VERSION
from worker.features.spec import Spec
from worker.metrics import METRICS_VERSION
from worker.metrics.baselines import static_scores
from worker.ranking.belief import TargetFacts, shipped
from worker.ranking.belief.facts import facts_of_manifest
from worker.studies.document import Table
from worker.studies.errors import StudyRefused
from worker.studies.files import read_json
from worker.studies.measures.default_rule import DEFAULT_RULE, with_default_rule
from worker.studies.measures.foreknown import Known, half_of, with_foreknown
from worker.studies.measures.observations import Observation, Place
from worker.studies.measures.scoring import ON_OBJECTS, ScoringSpec, pooled
from worker.studies.measures.zero_point import SEED, architecture_digest, asked_of_zero, with_gains
from worker.studies.runs.carried import identity, trained_there
from worker.studies.runs.fine_tuning import ids_of
from worker.studies.runs.parallel import Progress, Task, carry_out
from worker.studies.runs.parts import score_part, tune_part, zero_point_part
from worker.studies.study import StudyResults, section
from worker.studies.work_folder import Key, WorkFolder, opened

EVERYTHING = Spec(layers=("all",), levels=LEVELS, source_probabilities=True)
# of a short fine-tuning: no seed of the others', whose noise it would share
PROBE_SEED = 1000


@dataclass(frozen=True)
class StudySettings:
    """What is the same for all. recipe, overrides: of the plan of every fine-tuning; max_train: training images at most,
    the same for every candidate and seed; spec, metrics, by_size: what is read and scored; zero_point: whether every
    architecture is scored untrained too, with the initial weights of zero_point_seed; probe: what of the plan is other in one short fine-tuning of each candidate on
    each dataset, None for none."""

    recipe: str = "quick"
    overrides: Mapping[str, Any] = field(default_factory=dict)
    seeds: tuple[int, ...] = (0,)
    max_train: int | None = None
    spec: Spec = EVERYTHING
    metrics: tuple[str, ...] = ON_OBJECTS
    by_size: tuple[str, ...] = ()
    zero_point: bool = False
    zero_point_seed: int = SEED
    probe: Mapping[str, Any] | None = None

    @property
    def scored(self) -> ScoringSpec:
        return ScoringSpec(self.spec, self.metrics, self.by_size)


@dataclass(frozen=True)
class RealStudy:
    """What was found: dataset and candidate to scores, to each seed's fine-tuning, to the scores of the same architecture
    untrained and to the short fine-tuning, the last two empty where they were not asked for. manifests: by candidate.
    own: pairs of a candidate and the dataset that this study trained it on, which are left alone. targets: by dataset, what
    a belief knows of it, empty where it is to know nothing."""

    settings: StudySettings
    manifests: Mapping[str, Manifest]
    scores: Mapping[Key, Mapping[str, Any]]
    tunings: Mapping[Key, Mapping[int, Mapping[str, Any]]]
    zeros: Mapping[Key, Mapping[str, Any]] = field(default_factory=dict)
    probes: Mapping[Key, Mapping[str, Any]] = field(default_factory=dict)
    own: frozenset[Key] = frozenset()
    targets: Mapping[str, TargetFacts] = field(default_factory=dict)

    def known(self) -> Known:
        """What a belief knows of its datasets and candidates, and half of the trainings."""
        half = {
            key: value
            for key, results in self.tunings.items()
            if (value := half_of(_looks(result) for result in results.values())) is not None
        }
        candidates = {
            name: facts_of_manifest(manifest.to_json()) for name, manifest in self.manifests.items()
        }
        return Known(self.targets, candidates, half)

    def observations(self) -> list[Observation]:
        """All of which no part failed, with gains where there are zero points; `left_out` names the others."""
        lost = self.left_out()
        found = []
        for dataset in dict.fromkeys(d for d, _ in self.scores):
            whole = [c for d, c in self.scores if d == dataset and (d, c) not in lost]
            values = pooled({c: self.scores[dataset, c]["rows"] for c in whole}, self.settings.metrics)
            for candidate in whole:
                key = (dataset, candidate)
                each = Observation(
                    dataset,
                    candidate,
                    values[candidate][0],
                    self._static(key),
                    {seed: result["map"] for seed, result in self.tunings[key].items()},
                    values[candidate][1],
                    self.scores[key]["object_pixels"]["median"],
                )
                found.append(with_gains(each, self.zeros[key]) if self.zeros else each)
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
    settings: StudySettings,
    *,
    workers: int = 1,
    device: str = "cpu",
    progress: Progress = lambda done, total, message: None,
    check: Callable[[], None] = lambda: None,
) -> RealStudy:
    """Score and fine-tune what is not done yet in the folder `work`, and read all of it.

    `datasets`: name to a folder in canonical form; `candidates`: name to a folder of a converted checkpoint. More of both
    may be added later, and what is scored may change: fine-tunings stay. Raises StudyRefused where `work` holds
    fine-tunings with other settings, and for a name that is no name of a file.
    """
    if bad := [
        name
        for name in (*datasets, *candidates)
        if not name or name.startswith(".") or {"/", "\\", "\0"} & set(name)
    ]:
        raise StudyRefused(
            "bad_file", f"{bad}: results are kept in files of these names; leave out slashes and a first dot"
        )
    manifests = {name: Manifest.read(folder) for name, folder in candidates.items()}
    kept = folder_of(datasets, manifests, work, settings)
    architectures = {
        name: architecture_digest(manifest, settings.zero_point_seed) for name, manifest in manifests.items()
    }
    own = trained_on(datasets, manifests)
    tasks = _tasks(datasets, candidates, kept, settings, architectures, device, own)
    carry_out(tasks, workers, progress, check)
    keys = [(d, c) for d in datasets for c in candidates if (d, c) not in own]
    return RealStudy(
        settings,
        manifests,
        {key: read_json(kept.scores(key)) for key in keys},
        {key: {seed: read_json(kept.tuning(key, seed)) for seed in settings.seeds} for key in keys},
        {(d, c): read_json(kept.zero_point(d, architectures[c])) for d, c in keys}
        if settings.zero_point
        else {},
        {} if settings.probe is None else {key: read_json(kept.probe(key)) for key in keys},
        own,
        {name: target_of(open_dataset(folder), settings) for name, folder in datasets.items()},
    )


def trained_on(datasets: Mapping[str, Path], manifests: Mapping[str, Manifest]) -> frozenset[Key]:
    """Pairs of which the study trained the candidate on the dataset."""
    digests = {name: open_dataset(folder).digest for name, folder in datasets.items()}
    return frozenset(
        (d, c)
        for d, digest in digests.items()
        for c, manifest in manifests.items()
        if trained_there(manifest, digest)
    )


def target_of(dataset: Dataset, settings: StudySettings) -> TargetFacts:
    """What a belief knows of a dataset that is trained on by these settings."""
    return TargetFacts(
        dataset.digest,
        len(ids_of(dataset, max_train=settings.max_train).train),
        len(dataset.categories),
        int((~dataset.aside).sum()) / max(1, len(dataset.images)),
        sides_in(dataset),
        settings.overrides.get("image_size"),
    )


def _looks(result: Mapping[str, Any]) -> tuple[list[tuple[int, float]], int]:
    """Every look at the validation images, and the steps, of a fine-tuning; none of one that failed."""
    points = [(point["iteration"], point["map"]) for point in result.get("val_curve", ())]
    return [(at, value) for at, value in points if value is not None], max(1, result.get("iterations") or 1)


def folder_of(
    datasets: Mapping[str, Path], manifests: Mapping[str, Manifest], work: Path, settings: StudySettings
) -> WorkFolder:
    """Where the parts of a study lie in `work`. Raises StudyRefused where that holds another study's."""
    contents = {f"dataset {name}": open_dataset(folder).digest for name, folder in datasets.items()}
    contents |= {f"candidate {name}": identity(manifest) for name, manifest in manifests.items()}
    return opened(
        work,
        {"recipe": settings.recipe, "overrides": settings.overrides, "max_train": settings.max_train},
        {**asdict(settings.scored), "features_version": FEATURES_VERSION, "metrics_version": METRICS_VERSION},
        {"probe": settings.probe},
        contents,
    )


def _tasks(
    datasets: Mapping[str, Path],
    candidates: Mapping[str, Path],
    kept: WorkFolder,
    settings: StudySettings,
    architectures: Mapping[str, str],
    device: str,
    own: frozenset[Key],
) -> list[Task]:
    """One candidate on every dataset before the next, one seed of everything before the next: whenever a study is
    interrupted, what it has is of as many datasets as possible."""
    keys = [(d, c) for c in candidates for d in datasets if (d, c) not in own]
    # on each dataset the first candidate of an architecture stands for all of it
    first = {(d, architectures[c]): c for d, c in reversed(keys)}

    def scored(key: Key) -> list[Task]:
        d, c = key
        done = kept.scores(key)
        tasks = [
            Task(
                f"scores of {c} on {d}",
                score_part,
                (candidates[c], datasets[d], settings.scored, device, done),
                done,
            )
        ]
        if settings.zero_point and first[d, architectures[c]] == c:
            done = kept.zero_point(d, architectures[c])
            asked = asked_of_zero(settings.scored)
            arguments = (candidates[c], settings.zero_point_seed, datasets[d], asked, device, done)
            tasks.append(Task(f"zero point of {c}'s architecture on {d}", zero_point_part, arguments, done))
        return tasks

    def tuned(key: Key, changes: Mapping[str, Any], done: Path, name: str) -> Task:
        overrides = {**settings.overrides, **changes}
        arguments = (
            candidates[key[1]],
            datasets[key[0]],
            settings.recipe,
            overrides,
            settings.max_train,
            device,
            done,
        )
        return Task(name, tune_part, arguments, done)

    tasks = []
    for key in keys:
        d, c = key
        tasks += scored(key)
        if settings.probe is not None:
            changes = {"seed": PROBE_SEED, **settings.probe}
            tasks.append(tuned(key, changes, kept.probe(key), f"{c} shortly fine-tuned on {d}"))
        for seed in settings.seeds[:1]:
            tasks.append(
                tuned(key, {"seed": seed}, kept.tuning(key, seed), f"{c} fine-tuned on {d}, seed {seed}")
            )
    for seed in settings.seeds[1:]:
        for key in keys:
            name = f"{key[1]} fine-tuned on {key[0]}, seed {seed}"
            tasks.append(tuned(key, {"seed": seed}, kept.tuning(key, seed), name))
    return tasks


def study_of(
    real: RealStudy,
    title: str,
    text: Sequence[str] = (),
    facts: Sequence[tuple[str, str]] = (),
    *,
    featured: Sequence[Place] = (),
    bootstrap: int = 1000,
    seed: int = 0,
) -> StudyResults:
    """The study as a report wants it. Raises StudyRefused."""
    rows = with_foreknown(with_default_rule(real.observations()), real.known(), shipped())
    part = section(
        "ranking",
        "Ranking candidates for a dataset",
        [],
        rows,
        featured=featured or (DEFAULT_RULE,),
        bootstrap=bootstrap,
        seed=seed,
    )
    return StudyResults(title, tuple(text), (*facts_of(real), *facts), (part,), tables_of(real))


def facts_of(real: RealStudy) -> tuple[tuple[str, str], ...]:
    """Settings and costs as (name, text)."""
    settings = real.settings
    return (
        ("recipe", settings.recipe),
        ("budget", ", ".join(f"{k} {v}" for k, v in settings.overrides.items()) or "the recipe's own"),
        ("training images", "all" if settings.max_train is None else f"at most {settings.max_train}"),
        ("seeds", ", ".join(map(str, settings.seeds))),
        (
            "truth",
            "mAP@[.5:.95] of the best epoch by validation, on test images looked at once; mean over seeds",
        ),
        ("seconds of training", f"{_seconds(real):.0f} in all"),
        (
            "seconds of scoring",
            f"{sum(s['seconds']['features'] + s['seconds']['scores'] for s in real.scores.values() if 'seconds' in s):.0f} in all",
        ),
    )


def tables_of(real: RealStudy) -> tuple[tuple[str, str, Table], ...]:
    """The mAP of all, and what is left out."""
    tables = [("mAP of the fine-tuned candidates", "One figure for each seed.", _map_table(real))]
    if lost := real.left_out():
        rows = tuple((d, c, why) for (d, c), why in lost.items())
        tables.append(("Left out", "", Table(("dataset", "candidate", "why"), rows)))
    return tuple(tables)


def _map_table(real: RealStudy) -> Table:
    datasets = tuple(dict.fromkeys(d for d, _ in (*real.scores, *sorted(real.own))))
    rows = []
    for candidate in real.manifests:
        cells = []
        for dataset in datasets:
            if (dataset, candidate) in real.own:
                cells.append("trained on it")
                continue
            maps = [r.get("map") for r in real.tunings[dataset, candidate].values()]
            cells.append(", ".join(f"{m:.3f}" for m in maps if m is not None) or "–")
        rows.append((candidate, *cells))
    return Table(("candidate", *datasets), tuple(rows))


def _seconds(real: RealStudy) -> float:
    return sum(result.get("seconds", 0.0) for seeds in real.tunings.values() for result in seeds.values())
