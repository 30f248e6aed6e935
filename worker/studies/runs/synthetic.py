"""The synthetic benchmark of 'Transferability metrics for object detection' (arXiv 2306.15306).

Each source of glyphs becomes a detection set. A detector is trained on each, first with its body frozen, then whole: a
simulated pretrained model. Every such model is scored on every other set and transferred to it with its body frozen
and a fresh predictor. The study asks whether the scores foretell the mAP of the transfer: for each target over sources
(source selection) and for each source over targets (target selection).
"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import models_store
from models_store.save import save_detector
from worker.data.dataset import open_dataset
from worker.data.glyphs import Glyphs, load
from worker.data.ingest import ingest
from worker.data.synthetic import Scenes, synth
from worker.features.spec import Spec
from worker.metrics import OF_SOURCE
from worker.studies.errors import StudyRefused
from worker.studies.files import read_json, write_json
from worker.studies.measures.observations import Observation
from worker.studies.measures.scoring import ScoringSpec, pooled
from worker.studies.runs.bodies import random_body
from worker.studies.runs.fine_tuning import fine_tune, ids_of
from worker.studies.runs.parallel import Progress, Task, carry_out
from worker.studies.runs.parts import score_part, tune_part
from worker.studies.runs.printed import CHARACTERS, printed
from worker.studies.runs.scale import RANDOM, Scale
from worker.training.plan import plan_of

FEWEST_SOURCES = 3
AT_HAND = ("digits", *CHARACTERS)


Pair = tuple[str, str]  # source, target


@dataclass(frozen=True)
class Benchmark:
    """What was found. `models`: source to the result of its training; `scores`: pair to the scores of the source's model
    on the target; `transfers`: pair to seed to the result of the transfer."""

    scale: Scale
    seed: int
    sources: tuple[str, ...]
    models: Mapping[str, Mapping[str, Any]]
    scores: Mapping[Pair, Mapping[str, Any]]
    transfers: Mapping[Pair, Mapping[int, Mapping[str, Any]]]

    def observations(self, truth: str = "map") -> list[Observation]:
        """Each target as a dataset with the other sources' models as candidates.

        truth: `map` (best epoch by validation, test looked at once) or `map_published` (highest of all epochs on the
        images it was chosen by). Pairs of which a part failed are left out; `left_out` names them.
        """
        found = []
        lost = self.left_out()
        for target in self.sources:
            whole = [s for s in self.sources if s != target and (s, target) not in lost]
            values = pooled({s: self.scores[s, target]["rows"] for s in whole}, self.scale.metrics)
            for source in whole:
                scores, undefined = values[source]
                maps = {seed: result[truth] for seed, result in self.transfers[source, target].items()}
                static = {
                    "static_source_map": self.models[source]["map"],
                    "static_target_map": self.models[target]["map"],
                }
                pixels = self.scores[source, target]["object_pixels"]["median"]
                found.append(Observation(target, source, scores, static, maps, undefined, pixels))
        return found

    def left_out(self) -> dict[Pair, str]:
        """Pairs without scores or without a transfer, and why."""
        found = {}
        for pair, scores in self.scores.items():
            errors = [part["error"] for part in (scores, *self.transfers[pair].values()) if "error" in part]
            if errors:
                found[pair] = errors[0]
        return found


def sources_in(places: Sequence[str | Path]) -> dict[str, str]:
    """Name to place of each source: a folder or file prefix of glyphs, a folder of such folders, or one AT_HAND.

    Raises StudyRefused where there are fewer than three, two of one name, or a place without glyphs.
    """
    found: dict[str, str] = {}
    for place in places:
        inside = (
            []
            if str(place) in AT_HAND or not Path(place).is_dir()
            else [p for p in Path(place).iterdir() if p.is_dir()]
        )
        for one in sorted(map(str, inside)) or [str(place)]:
            name = Path(one).name
            if name in found:
                raise StudyRefused("unknown_source", f"two sources are called {name}: rename one folder")
            _glyphs(one)
            found[name] = one if one in AT_HAND else str(Path(one).resolve())
    if len(found) < FEWEST_SOURCES:
        raise StudyRefused(
            "few_sources",
            f"{len(found)} sources of glyphs: at least {FEWEST_SOURCES} are needed, five give the published 20 pairs. Name "
            f"folders with idx files as of MNIST or an HDF5 file as of USPS, or of those at hand: {', '.join(AT_HAND)}",
        )
    return found


def run(
    sources: Mapping[str, str],
    scale: Scale,
    work: Path,
    *,
    seed: int = 0,
    workers: int = 1,
    device: str = "cpu",
    body: str | None = None,
    progress: Progress = lambda done, total, message: None,
    check: Callable[[], None] = lambda: None,
) -> Benchmark:
    """Run what is not done yet of the benchmark in the folder `work`, and read all of it.

    `sources`: name to place, from `sources_in`. `body` replaces the scale's. Every model and pair lies in `work` as
    soon as it is done, a training's state while it lasts: after an interruption the same call goes on. Raises
    StudyRefused, also where `work` holds another study; models_store.Unusable where the body cannot be had.
    """
    _same_study(
        work, {"scale": scale.to_json(), "sources": sorted(sources), "seed": seed, "body": body or scale.body}
    )
    base = work / "base"
    if not (base / "manifest.json").exists():
        _base(scale, body or scale.body, base, seed)
    names = sorted(sources)
    pairs = [(s, t) for s in names for t in names if s != t]
    seeds = range(seed, seed + scale.transfer_seeds)
    carry_out(_tasks(sources, scale, work, seed, seeds, device), workers, progress, check)
    return Benchmark(
        scale,
        seed,
        tuple(names),
        {s: read_json(_result(work, s)) for s in names},
        {pair: read_json(_scores(work, pair)) for pair in pairs},
        {pair: {each: read_json(_transfer(work, pair, each)) for each in seeds} for pair in pairs},
    )


def _tasks(
    sources: Mapping[str, str], scale: Scale, work: Path, seed: int, seeds: Sequence[int], device: str
) -> list[Task]:
    names = sorted(sources)
    found = [
        Task(
            f"scenes of {s}",
            draw_dataset,
            (sources[s], scale, work, s, seed),
            work / "datasets" / s / "drawn.json",
        )
        for s in names
    ]
    found += [
        Task(
            f"model of {s}",
            train_source,
            (scale, work, s, seed, device),
            _result(work, s),
            (f"scenes of {s}",),
        )
        for s in names
    ]
    spec = Spec(
        layers=scale.layers,
        levels=scale.levels,
        max_images=scale.feature_images,
        seed=seed,
        source_probabilities=not set(OF_SOURCE).isdisjoint(scale.metrics),
    )
    asked = ScoringSpec(spec, scale.metrics)
    recipe = scale.recipe("transfer")
    for s in names:
        for t in names:
            if s == t:
                continue
            after = (f"model of {s}", f"scenes of {t}")
            model, dataset, done = work / "models" / s, work / "datasets" / t, _scores(work, (s, t))
            found.append(
                Task(f"scores of {s} on {t}", score_part, (model, dataset, asked, device, done), done, after)
            )
            for each in seeds:
                done = _transfer(work, (s, t), each)
                arguments = (model, dataset, recipe, {"seed": each}, None, device, done)
                found.append(Task(f"{s} to {t}, seed {each}", tune_part, arguments, done, after))
    return found


def draw_dataset(place: str, scale: Scale, work: Path, name: str, seed: int) -> None:
    """Scenes from one source, in canonical form in `work/datasets/name`."""
    glyphs = _glyphs(place)
    folder = work / "datasets" / name
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as beside:
        drawn, canonical = Path(beside) / "drawn", Path(beside) / "canonical"
        synth(
            drawn,
            glyphs,
            Scenes(scale.image_size, scale.min_size, scale.max_size, scale.max_objects),
            images_train=scale.train_images,
            images_test=scale.test_images,
            seed=seed,
        )
        canonical.mkdir()
        made = ingest(drawn, canonical, seed=seed, val_fraction=scale.val_share)
        write_json(
            canonical / "drawn.json",
            {"digest": made.digest, "glyphs": len(glyphs.images), "names": glyphs.names},
        )
        canonical.rename(folder)


def train_source(scale: Scale, work: Path, source: str, seed: int, device: str) -> None:
    """The simulated pretrained model of one source, as a checkpoint in `work/models/source`."""
    folder = work / "models" / source
    dataset = open_dataset(work / "datasets" / source)
    detector = models_store.load_detector(work / "base", device=device)
    ids = ids_of(dataset)
    plan = plan_of(scale.recipe("pretraining"), manifest=detector.manifest, images=len(ids.train), seed=seed)
    trained, result = fine_tune(detector, dataset, plan, ids, folder / "state", device=device)
    lineage = {
        "dataset": {"digest": dataset.digest, "name": source},
        "recipe": plan.recipe.name,
        "seed": seed,
        "map": result["map"],
    }
    save_detector(trained.detector, folder, class_names=dataset.categories, lineage=lineage)
    write_json(_result(work, source), result)
    shutil.rmtree(folder / "state", ignore_errors=True)


def _glyphs(place: str) -> Glyphs:
    if place in CHARACTERS:
        return printed(place)
    try:
        return load(place)
    except (ValueError, OSError) as failure:
        raise StudyRefused("unknown_source", str(failure)) from failure


def _result(work: Path, source: str) -> Path:
    return work / "models" / source / "result.json"


def _scores(work: Path, pair: Pair) -> Path:
    return work / "scores" / f"{pair[0]}-on-{pair[1]}.json"


def _transfer(work: Path, pair: Pair, seed: int) -> Path:
    return work / "transfers" / f"{pair[0]}-to-{pair[1]}-{seed}.json"


def _same_study(work: Path, about: dict[str, Any]) -> None:
    path = work / "study.json"
    digest = hashlib.sha256(repr(sorted(about.items())).encode()).hexdigest()
    if path.exists():
        if read_json(path)["digest"] != digest:
            raise StudyRefused(
                "other_study",
                f"{work} holds a study of other sources, scale, body or seed: name another folder",
            )
        return
    write_json(path, {**about, "digest": digest})


def _base(scale: Scale, body: str, folder: Path, seed: int) -> None:
    """The detector that all models start from: the body's weights, fresh pyramid and heads."""
    overrides = {
        "min_size": scale.network_size[0],
        "max_size": scale.network_size[1],
        "options": dict(scale.options),
    }
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as beside:
        if body == RANDOM:
            path = random_body(scale.backbone, Path(beside) / "random.safetensors", seed)
            sha256 = None
        elif "://" in body:
            # what the scale is pinned to; a name given instead has a content of its own
            sha256 = scale.body_sha256 if body == scale.body else None
            path = _fetched(body, Path(beside), sha256)
        else:
            path, sha256 = Path(body), None
        models_store.convert(
            path,
            folder,
            architecture=scale.backbone,
            uri=body if "://" in body else None,
            sha256=sha256,
            overrides=overrides,
        )


def _fetched(uri: str, folder: Path, sha256: str | None) -> Path:
    try:
        return models_store.fetch(uri, folder, sha256=sha256).path
    except models_store.Unusable as refusal:
        raise StudyRefused(
            "no_body", f"{refusal.detail}; the body may also be a file of weights, or `random`"
        ) from refusal
