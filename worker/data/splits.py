"""Train, val and test: read from names in the archive, or drawn."""

import re
from collections.abc import Sequence

import numpy as np

SPLITS = ("train", "val", "test")
_ALIASES = {
    "train": "train", "training": "train", "trainval": "train",
    "val": "val", "valid": "val", "validation": "val", "dev": "val",
    "test": "test", "testing": "test",
}  # fmt: skip


def split_named(name: object) -> str | None:
    """The split that a word means (`valid`, `Validation`, `train2017`), or None."""
    return _ALIASES.get(re.sub(r"[\d_\-\s]+$", "", str(name).strip().lower()))


def split_of_folders(path: str) -> str | None:
    """The split named by the deepest folder of a relative POSIX path that names one."""
    for folder in reversed(path.split("/")[:-1]):
        if split := split_named(folder):
            return split
    return None


def split_of_file(path: str) -> str | None:
    """The split that an annotation file stands for: a word in its name (`instances_val2017.json`), else its folder."""
    for word in re.split(r"[^a-z]+", path.rpartition("/")[2].lower()):
        if word in _ALIASES:
            return _ALIASES[word]
    return split_of_folders(path)


def draw(keys: Sequence[str], fractions: dict[str, float], seed: int) -> list[str]:
    """Give every key a split: `fractions` of them to val and test, the rest to train.

    The result follows the keys and the seed, not the order of the keys. A split with a fraction above 0 gets at
    least one key while train keeps at least one.
    """
    order = (
        np.argsort(np.asarray(keys, dtype=object), kind="stable")
        if len(keys)
        else np.zeros(0, dtype=np.int64)
    )
    shuffled = order[np.random.default_rng(seed).permutation(len(keys))]
    splits = ["train"] * len(keys)
    taken = 0
    for name, fraction in fractions.items():
        wanted = max(round(len(keys) * fraction), int(fraction > 0))
        count = min(wanted, max(len(keys) - 1 - taken, 0))
        for index in shuffled[taken : taken + count]:
            splits[index] = name
        taken += count
    return splits


def complete(
    splits: Sequence[str | None], keys: Sequence[str], *, seed: int, val_fraction: float, test_fraction: float
) -> tuple[list[str], str]:
    """Fill in the splits that the archive does not give.

    `keys` are one unchanging text per image (its sha256). Returns a split per image and one sentence on where they
    come from. Images without a split join train; with no val (or no train) at all, val is drawn.
    """
    found = {split for split in splits if split}
    by_seed = f"with seed {seed}"
    if len(found) <= 1:
        drawn = draw(keys, {"val": val_fraction, "test": test_fraction}, seed)
        only = f"all {next(iter(found))}" if found else "none"
        return (
            drawn,
            f"drawn {by_seed} (the archive names {only}): val {val_fraction:g}, test {test_fraction:g} of the images",
        )
    result = [split or "train" for split in splits]
    if found >= {"train", "val"}:
        return result, "from the archive"
    source = "train" if "train" in found else "val"
    undivided = [index for index, split in enumerate(result) if split in ("train", "val")]
    for index, split in zip(
        undivided, draw([keys[index] for index in undivided], {"val": val_fraction}, seed), strict=True
    ):
        result[index] = split
    return (
        result,
        f"test from the archive; train and val drawn {by_seed} from its {source} split: val {val_fraction:g} of the images",
    )
