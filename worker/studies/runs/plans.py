"""A study of plans: every candidate fine-tuned on every dataset by each of several plans, and their differences.

What is done is kept in `work/<plan>/tunings` and not done again; what is there can be read at any time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scipy import stats

from models_store.manifest import Manifest
from worker.data.dataset import open_dataset
from worker.studies.files import read_json
from worker.studies.runs.carried import identity
from worker.studies.runs.parallel import Progress, Task, carry_out
from worker.studies.runs.parts import tune_part
from worker.studies.runs.real import StudySettings, trained_on
from worker.studies.work_folder import WorkFolder, opened_tunings

LEVEL = 0.95


@dataclass(frozen=True)
class Tuning:
    """One fine-tuning: `result` as `worker.studies.runs.fine_tuning.fine_tune` gives it, or with `error`."""

    dataset: str
    candidate: str
    seed: int
    plan: str
    result: Mapping[str, Any]


@dataclass(frozen=True)
class Difference:
    """What a plan gives more than the first. The sample are the datasets: seeds of one are averaged before.

    `base`, `other`: mean mAP of both; `mean`: of the differences of `datasets` datasets, with the limits of its
    95 % t interval, None with fewer than two. `better`: datasets on which the difference is above 0.
    """

    datasets: int
    base: float
    other: float
    mean: float
    low: float | None
    high: float | None
    better: int


def run(
    datasets: Mapping[str, Path],
    candidates: Mapping[str, Path],
    work: Path,
    settings: StudySettings,
    plans: Mapping[str, Mapping[str, Any]],
    *,
    workers: int = 1,
    device: str = "cpu",
    progress: Progress = lambda done, total, message: None,
    check: Callable[[], None] = lambda: None,
) -> list[Tuning]:
    """Fine-tune what is not fine-tuned yet, one seed of everything before the next, and read all of it.

    `plans`: name to what the plan changes of `settings.overrides`. `datasets`, `candidates`: as `real.run` has
    them. Raises StudyRefused where the folder of a plan holds fine-tunings by other settings or of other contents.
    """
    contents = {f"dataset {name}": open_dataset(folder).digest for name, folder in datasets.items()}
    manifests = {name: Manifest.read(folder) for name, folder in candidates.items()}
    contents |= {f"candidate {name}": identity(manifest) for name, manifest in manifests.items()}
    own = trained_on(datasets, manifests)
    tasks = []
    for seed in settings.seeds:
        for c in candidates:
            for d in datasets:
                if (d, c) in own:
                    continue
                for plan, changes in plans.items():
                    overrides = {**settings.overrides, **changes}
                    kept = opened_tunings(
                        work / plan, settings.recipe, overrides, settings.max_train, contents
                    )
                    done = kept.tuning((d, c), seed)
                    tasks.append(
                        Task(
                            f"{c} fine-tuned on {d}, seed {seed}, {plan}",
                            tune_part,
                            (
                                candidates[c],
                                datasets[d],
                                settings.recipe,
                                {**overrides, "seed": seed},
                                settings.max_train,
                                device,
                                done,
                            ),
                            done,
                        )
                    )
    carry_out(tasks, workers, progress, check)
    return list(done_in(datasets, candidates, work, settings.seeds, plans))


def done_in(
    datasets: Sequence[str] | Mapping[str, Path],
    candidates: Sequence[str] | Mapping[str, Path],
    work: Path,
    seeds: Sequence[int],
    plans: Sequence[str] | Mapping[str, Any],
) -> Iterator[Tuning]:
    """The fine-tunings that are there, whether or not the study has come to its end."""
    for seed in seeds:
        for candidate in candidates:
            for dataset in datasets:
                for plan in plans:
                    path = WorkFolder(work / plan).tuning((dataset, candidate), seed)
                    if path.exists():
                        yield Tuning(dataset, candidate, seed, plan, read_json(path))


def differences(
    tunings: Sequence[Tuning], base: str, other: str, candidates: Sequence[str]
) -> Difference | None:
    """By how much the mAP of plan `other` is above that of `base`, over `candidates`; None without a pair.

    A pair is one candidate, dataset and seed by both plans. Pairs of a dataset are averaged, then datasets are
    the sample: mean +- t(n - 1) s / sqrt(n).
    """
    maps = {
        (t.dataset, t.candidate, t.seed, t.plan): t.result["map"]
        for t in tunings
        if t.candidate in candidates and t.result.get("map") is not None
    }
    pairs: dict[str, list[tuple[float, float]]] = {}
    for (dataset, candidate, seed, plan), value in maps.items():
        if plan == base and (against := maps.get((dataset, candidate, seed, other))) is not None:
            pairs.setdefault(dataset, []).append((value, against))
    if not pairs:
        return None
    means = [[sum(column) / len(column) for column in zip(*found, strict=True)] for found in pairs.values()]
    changes = [after - before for before, after in means]
    low = high = None
    if len(changes) > 1:
        interval = stats.ttest_1samp(changes, 0.0).confidence_interval(LEVEL)
        low, high = float(interval.low), float(interval.high)
    return Difference(
        datasets=len(changes),
        base=sum(before for before, _ in means) / len(means),
        other=sum(after for _, after in means) / len(means),
        mean=sum(changes) / len(changes),
        low=low,
        high=high,
        better=sum(change > 0 for change in changes),
    )
