"""Where a study keeps what is done, and what each part of it depends on.

Fine-tunings depend on recipe, plan, images and contents; scores on what is read and on the metrics, so they lie in a
folder named after that: other scoring settings make the scores anew and leave the fine-tunings, hours of work, alone.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from worker.studies.errors import StudyRefused
from worker.studies.files import read_json, write_json
from worker.training.recipe import INIT_BAND

Key = tuple[str, str]  # dataset, candidate
# of settings.json; older work folders hold what was scored there as well, which no longer decides
TUNING_FACTS = ("recipe", "overrides", "max_train")


@dataclass(frozen=True)
class WorkFolder:
    """root: the folder; scoring, probing: digests of the settings that its scores and short fine-tunings are made with."""

    root: Path
    scoring: str = ""
    probing: str = ""

    def scores(self, key: Key) -> Path:
        return self.root / "scores" / self.scoring / f"{key[1]}-on-{key[0]}.json"

    def zero_point(self, dataset: str, architecture: str) -> Path:
        """`architecture`: digest of all that an untrained detector depends on."""
        return self.root / "scores" / self.scoring / "zero" / f"{architecture}-on-{dataset}.json"

    def tuning(self, key: Key, seed: int) -> Path:
        return self.root / "tunings" / f"{key[1]}-on-{key[0]}-{seed}.json"

    def probe(self, key: Key) -> Path:
        return self.root / "probes" / self.probing / f"{key[1]}-on-{key[0]}.json"


def opened(
    root: Path,
    tuning: Mapping[str, Any],
    scoring: Mapping[str, Any],
    probing: Mapping[str, Any],
    contents: Mapping[str, str],
) -> WorkFolder:
    """The folder for these settings. tuning: by `TUNING_FACTS`; contents: what each dataset and candidate is, by digest.

    Raises StudyRefused where it holds fine-tunings with other settings, or where contents changed.
    """
    _same_tuning(root, plain(tuning))
    _same_contents(root, contents)
    # off is what it was before there was a choice, when digests did not say
    overrides = {k: v for k, v in tuning["overrides"].items() if (k, v) != ("data_dependent_init", False)}
    found = WorkFolder(root, digest_of(scoring), digest_of({**tuning, "overrides": overrides, **probing}))
    # for people: which settings a folder of a digest stands for
    write_json(found.scores(("", "")).parent / "settings.json", plain(scoring))
    return found


def opened_tunings(
    root: Path,
    recipe: str,
    overrides: Mapping[str, Any],
    max_train: int | None,
    contents: Mapping[str, str],
) -> WorkFolder:
    """The folder for fine-tunings alone. Raises what `opened` raises."""
    _same_tuning(root, plain({"recipe": recipe, "overrides": overrides, "max_train": max_train}))
    _same_contents(root, contents)
    return WorkFolder(root)


def digest_of(facts: Any) -> str:
    """12 hexadecimal digits of plain JSON facts."""
    return hashlib.sha256(json.dumps(plain(facts), sort_keys=True).encode()).hexdigest()[:12]


def plain(facts: Any) -> Any:
    """As it comes back from a JSON file: tuples become lists."""
    return json.loads(json.dumps(facts))


def _same_tuning(root: Path, asked: Mapping[str, Any]) -> None:
    path = root / "settings.json"
    # who does not say has the recipes' way, which is with, but for what is near enough
    asked = {**asked, "overrides": _start({"data_dependent_init": True, "init_band": INIT_BAND}, asked)}
    if not path.exists():
        write_json(path, asked)
        return
    kept = read_json(path)
    # a folder of before there was a choice holds fine-tunings without, one of before there was a band left nothing alone
    kept["overrides"] = _start({"data_dependent_init": False, "init_band": 1.0}, kept)
    if changed := [name for name in TUNING_FACTS if kept.get(name) != asked[name]]:
        raise StudyRefused(
            "other_study",
            f"{root} holds fine-tunings with other settings ({', '.join(changed)}): name another folder",
        )


def _start(unsaid: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    """The overrides, with how fresh layers begin where they do not say; of one that scales none the band is nothing."""
    overrides = {**unsaid, **settings.get("overrides", {})}
    return overrides if overrides["data_dependent_init"] else {**overrides, "init_band": 1.0}


def _same_contents(root: Path, contents: Mapping[str, str]) -> None:
    path = root / "contents.json"
    kept = read_json(path) if path.exists() else {}
    if changed := [name for name, digest in contents.items() if kept.get(name, digest) != digest]:
        raise StudyRefused(
            "other_study",
            f"{', '.join(changed)} changed since {root} was begun: give it another name, or name another folder",
        )
    write_json(path, {**kept, **contents})
